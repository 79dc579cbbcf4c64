"""Models of transformers from their folder: configuration first, weights when they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.draws import seed_of
from frazil_jobs.training.tasks.base import MODEL_FIELD, unsupported


def config_of(folder: Path, job: TrainingJob, classes: Sequence[str]) -> tuple[Any, str]:
    """The folder's configuration and the class of its model, one of `classes`. Raises BadConfiguration."""
    if not (folder / "config.json").is_file():
        raise BadConfiguration(
            f"{folder} has no config.json", field=MODEL_FIELD, remedy="name a folder in transformers' format"
        )
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    named = list(config.architectures or [])
    suited = [name for name in classes if getattr(transformers, name).config_class is type(config)]
    if not suited or (named and not set(named) & set(classes) and not _same_family(named[0], suited[0])):
        raise unsupported(named[0] if named else type(config).__name__, classes, job.spec.task)
    return config, suited[0]


def _same_family(named: str, suited: str) -> bool:
    """A folder of the bare model (ViTModel) can begin a task's (ViTForImageClassification)."""
    return named.removesuffix("Model") == suited.partition("For")[0]


def library_model(folder: Path, job: TrainingJob, class_name: str, config: Any) -> nn.Module:
    """The model with the folder's weights, or with weights that follow from the job's seed; float32."""
    cls: Any = getattr(transformers, class_name)
    if job.spec.initial_weights == "Random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(job.spec.seed, "weights"))
            return cls(config).float()  # type: ignore[no-any-return]
    # Parts that the folder lacks (a new head) are drawn, from the seed.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(job.spec.seed, "weights"))
        model: nn.Module = cls.from_pretrained(
            folder, config=config, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    return model


def require_head_of_its_own(config: Any, job: TrainingJob) -> None:
    """Raise BadConfiguration where one matrix would lie in the first stage and in the last one."""
    if getattr(config, "tie_word_embeddings", False) and job.spec.parallelism.pipeline > 1:
        raise BadConfiguration(
            "its embedding and its head are one matrix (tie_word_embeddings), and a pipeline holds them on two ranks",
            field=MODEL_FIELD,
            remedy="set tie_word_embeddings to false in its config.json and store the head's weights (or begin from "
            "Random), or train with pipeline: 1",
        )
