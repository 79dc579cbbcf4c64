"""Jobs of several pods, for tests on a cluster."""

from __future__ import annotations

from typing import Any


def training_job(tenant: Any, name: str, **spec: Any) -> dict[str, Any]:
    """A TrainingJob of two pods in the namespace of a tenant; `spec` overrides its sections whole."""
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
            "workers": {
                "nodesPerReplica": 2,
                "gpusPerNode": 1,
                "sharedMemory": "64Mi",
                "template": {"env": [{"name": "STAND_IN_STEP_SECONDS", "value": "0.2"}]},
            },
            **spec,
        },
    }
