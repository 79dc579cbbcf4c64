"""Jobs of several pods, for tests on a cluster."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any


def training_job(tenant: Any, name: str, **spec: Any) -> dict[str, Any]:
    """A TrainingJob of two pods in the namespace of a tenant, whose model and data are nowhere; `spec` overrides its
    sections whole."""
    return {
        "apiVersion": "frazil.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": tenant.namespace},
        "spec": {
            "task": "CausalLM",
            "model": {"uri": "hf://frazil/none"},
            "dataset": {"uri": "s3://frazil/results/none"},
            "steps": 60,
            "seed": 3,
            "parallelism": {"pipeline": 2},
            "checkpoint": {"everySteps": 10},
            "workers": {"nodesPerReplica": 2, "gpusPerNode": 1, "sharedMemory": "64Mi"},
            **spec,
        },
    }


def small_llama(tenant: Any, name: str, **spec: Any) -> dict[str, Any]:
    """The same with a Llama of 32 channels and a text, put into the tenant's part of the store: a real training."""
    return training_job(
        tenant,
        name,
        **{
            "model": {"uri": _stored(tenant, "models/llama", _model)},
            "dataset": {"uri": _stored(tenant, "data/text", _text), "sequenceLength": 32},
            "initialWeights": "Random",
            "batchSize": 16,
            "precision": "float32",
            "freezing": {"method": "None"},  # plans follow from measured times: two runs would differ
            "evaluation": {"everySteps": 20, "batches": 1},
            **spec,
        },
    )


def _model(folder: Path) -> None:
    import tiny_models

    tiny_models.llama(folder)


def _text(folder: Path) -> None:
    import tiny_models

    (folder / "train.txt").write_text(tiny_models.CORPUS)


def _stored(tenant: Any, prefix: str, write: Any) -> str:
    """Files made by `write`, in the tenant's part of the store."""
    from frazil_jobs.base.files import sha256_of

    base = f"{tenant.namespace}/{prefix}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        for path in sorted(folder.rglob("*")):
            key = f"{base}/{path.relative_to(folder)}"
            if path.is_file() and tenant.store.stat(key) is None:
                tenant.store.put_file(key, path, sha256=sha256_of(path), content_type="application/octet-stream")
    return f"s3://frazil/results/{base}"
