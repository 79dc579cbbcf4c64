"""The CustomResourceDefinitions, generated from the types: `python -m frazil_jobs.api.crd` writes or `--check`s them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from frazil_jobs.api.base import GROUP, VERSION, ApiModel
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.schema import Schema, schema_of, validation
from frazil_jobs.api.trainingjob import TrainingJob

FOLDER = Path(__file__).parents[3] / "charts" / "templates" / "crds"
"""In a checkout."""
_HEAD = "# Generated from frazil_jobs.api by `make generated`; CI makes it again and compares.\n"


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False, description: str) -> Schema:
    return {
        "name": name,
        "type": kind,
        "jsonPath": path,
        "description": description,
        **({"priority": 1} if wide else {}),
    }


_PHASE = _column("Phase", ".status.phase", description="Summary of the conditions.")
_TAIL = [
    _column("Restarts", ".status.restarts", "integer", description="Attempts charged to maxRestarts."),
    _column(
        "Reason",
        '.status.conditions[?(@.type=="Failed")].reason',
        wide=True,
        description="Why it failed.",
    ),
    _column("Queue", ".spec.scheduling.queueName", wide=True, description="Kueue queue."),
    _column("Results", ".status.outputs.uri", wide=True, description="Where the results are."),
    _column("Age", ".metadata.creationTimestamp", "date", description="Since it was made."),
]
_COLUMNS: dict[str, list[Schema]] = {
    "GenerationJob": [
        _PHASE,
        _column("Stored", ".status.progress.summary", description="Outputs stored, of those asked for."),
        _column("Ready", ".status.workers.ready", "integer", description="Replicas whose pods are ready."),
        _column("Mode", ".spec.parallelism.mode", wide=True, description="What may change in the images."),
        *_TAIL,
    ],
    "TrainingJob": [
        _PHASE,
        _column("Step", ".status.progress.summary", description="Optimizer steps done, of those wanted."),
        _column("Frozen", ".status.progress.freezeRatio", description="Mean freeze ratio."),
        _column("Checkpoint", ".status.checkpoint.step", "integer", description="Newest committed checkpoint."),
        *_TAIL,
    ],
}
_SHORT = {"GenerationJob": "gj", "TrainingJob": "tj"}
_SCALE = {
    "specReplicasPath": ".spec.workers.replicas",
    "statusReplicasPath": ".status.workers.active",
    "labelSelectorPath": ".status.workers.selector",
}


def crd(kind: type[ApiModel]) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    name = kind.__name__
    plural = f"{name.lower()}s"
    schema = schema_of(kind, skip=frozenset({"api_version", "kind", "metadata"}))
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
        "kind": {"type": "string", "description": f"{name}."},
        "metadata": {"type": "object"},
        **schema["properties"],
    }
    schema["required"] = ["spec"]
    schema["x-kubernetes-validations"] = [validation(rule) for rule in kind.RULES]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/name": "frazil"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": plural,
                "singular": name.lower(),
                "shortNames": [_SHORT[name]],
                "categories": ["batch", "frazil"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}, **({"scale": _SCALE} if kind is GenerationJob else {})},
                    "selectableFields": [
                        {"jsonPath": ".spec.scheduling.queueName"},
                        {"jsonPath": ".status.phase"},
                    ],
                    "additionalPrinterColumns": _COLUMNS[name],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def texts() -> dict[str, str]:
    """File name to content, of every CRD."""
    return {
        f"{kind.__name__.lower()}s.yaml": _HEAD
        + yaml.safe_dump(crd(kind), sort_keys=False, width=120, allow_unicode=True)
        for kind in (GenerationJob, TrainingJob)
    }


def write_or_check(folder: Path, files: dict[str, str], *, check: bool) -> int:
    """Write generated files, or say which differ. Returns the exit code."""
    stale = []
    for name, text in files.items():
        path = folder / name
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in stale:
        print(f"{name} is stale: run `make generated`", file=sys.stderr)
    return 1 if stale else 0


def main() -> int:
    """Write or check the CRDs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    return write_or_check(FOLDER, texts(), check=parser.parse_args().check)


if __name__ == "__main__":
    sys.exit(main())
