"""What each unit of a denoiser costs: multiply-adds, counted on tensors without memory, at the size of a real call.

A count, not a time: it is the same on every rank, so that all of them make the same cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from frazil_jobs.base.log import get_logger
from frazil_jobs.generation.stages.cut import Stages
from frazil_jobs.generation.stages.partial import Part, Units
from frazil_jobs.generation.stages.units import Anatomy, anatomy_of, structure_of

log = get_logger(__name__)


def unit_costs(module: torch.nn.Module, anatomy: Anatomy, arguments: Mapping[str, Any]) -> list[float]:
    """Multiply-adds of each unit in the call `module(**arguments)`.

    Where the call can't be made on meta tensors, a unit counts as its parameters; a warning says so.
    """
    try:
        return _counted(module, anatomy, arguments)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, KeyError) as error:
        log.warning("costs are taken from parameters", denoiser=type(module).__name__, reason=str(error)[:200])
        return parameter_costs(anatomy)


def parameter_costs(anatomy: Anatomy) -> list[float]:
    """The parameters of each unit."""
    return [float(sum(weight.numel() for weight in unit.module.parameters())) for unit in anatomy.units]


def _counted(module: torch.nn.Module, anatomy: Anatomy, arguments: Mapping[str, Any]) -> list[float]:
    name = type(module).__name__
    twin = _twin(module)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), torch.device("meta"), counter:
        twin(**tree_map(_without_memory, dict(arguments)))
    counts = counter.get_flop_counts()
    return [sum(counts.get(f"{name}.{unit.name}", {}).values()) / 2 for unit in anatomy.units]


def boundary_bytes(module: torch.nn.Module, stages: Stages, arguments: Mapping[str, Any]) -> int:
    """Bytes that cross all boundaries of `stages` in one step, by the same means."""
    twin = _twin(module)
    units = Units(twin, anatomy_of(twin))
    part = Part(keep_outputs=frozenset(boundary.after for boundary in stages.boundaries))
    with torch.no_grad(), torch.device("meta"), units.running(part):
        twin(**tree_map(_without_memory, dict(arguments)))
    return sum(tensor.numel() * tensor.element_size() for kept in part.outputs.values() for tensor in kept)


def _twin(module: torch.nn.Module) -> torch.nn.Module:
    """The same denoiser without memory for its weights."""
    config: Any = module.config
    twin = structure_of(type(module), config)
    torch.nn.Module.to(twin, next(module.parameters()).dtype)  # diffusers' own has advice for weights
    return twin


def _without_memory(value: Any) -> Any:
    return value.to("meta") if isinstance(value, torch.Tensor) else value
