"""A batch cut into microbatches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from frazil_jobs.base.exits import BadConfiguration


def parts_of(tensor: torch.Tensor, microbatches: int, what: str) -> list[torch.Tensor]:
    """Equal parts along the first dimension. Raises BadConfiguration where it doesn't divide."""
    if tensor.shape[0] % microbatches:
        raise BadConfiguration(
            f"{what} holds {tensor.shape[0]} samples, which {microbatches} microbatches don't divide",
            field="spec.batchSize",
            remedy="make it a multiple of parallelism.microbatches * parallelism.data * accumulation, and drop a last "
            "batch that is smaller",
        )
    return list(torch.split(tensor, tensor.shape[0] // microbatches))


def parts_of_all(tensors: tuple[torch.Tensor, ...], microbatches: int) -> list[tuple[torch.Tensor, ...]]:
    """The positional arguments of each microbatch."""
    parts = [parts_of(tensor, microbatches, f"input {position}") for position, tensor in enumerate(tensors)]
    return list(zip(*parts, strict=True)) if parts else [()] * microbatches


def parts_of_named(values: Mapping[str, Any] | None, microbatches: int) -> list[dict[str, Any]]:
    """The keyword arguments of each microbatch: tensors are cut, everything else goes to each as it is."""
    cut = {
        name: parts_of(value, microbatches, name) if isinstance(value, torch.Tensor) else [value] * microbatches
        for name, value in (values or {}).items()
    }
    return [{name: parts[microbatch] for name, parts in cut.items()} for microbatch in range(microbatches)]
