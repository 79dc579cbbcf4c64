"""The units of a denoiser in the order in which they run, found from its structure, never from its name.

Two structures are known. A *chain* is a transformer: blocks in one or several lists, each block taking what the one
before it returned (joint, single-stream and two-stream blocks alike). A *nest* is a U-Net: what the outer layers keep for
the way up goes around the inner ones, so that a cut takes a run of units out of the middle, whose skips are its own.

In both, a *core* is a run of neighbouring units that can be left out when its result is known from elsewhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

LISTS: Final = ("transformer_blocks", "single_transformer_blocks", "blocks", "layers", "visual_transformer_blocks")
"""Names that diffusers gives to lists of a transformer's blocks (`diffusers.hooks._common`)."""
_LAYERS: Final = ("resnets", "attentions", "motion_modules", "downsamplers", "upsamplers")
"""What a block of a U-Net may hold. Anything else means that it runs in an order that isn't known."""
FEWEST_BLOCKS: Final = 3
"""Of a chain: the first, the last, and one between them."""


class Uncuttable(Exception):
    """A denoiser's structure isn't known. The text is a clause for people."""


@dataclass(frozen=True)
class Unit:
    """A module that is run whole or not at all."""

    name: str
    """Within the denoiser: `transformer_blocks.3`."""
    module: nn.Module


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The units of one denoiser, in order."""

    units: tuple[Unit, ...]
    nests: tuple[range, ...] = ()
    """Of a U-Net: the runs of units that can be taken out of the middle, the largest first. Empty for a chain."""

    @property
    def nested(self) -> bool:
        """True for a U-Net."""
        return bool(self.nests)

    def __len__(self) -> int:
        return len(self.units)


def structure_of(kind: Any, config: Mapping[str, Any]) -> nn.Module:
    """A denoiser of class `kind` without memory for its weights."""
    with torch.device("meta"):
        found: nn.Module = kind.from_config(dict(config))
    return found.eval()


def anatomy_of(module: nn.Module) -> Anatomy:
    """Find the units of `module`. Raises Uncuttable."""
    if all(hasattr(module, name) for name in ("conv_in", "down_blocks", "up_blocks", "conv_out")):
        return _nest(module)
    return _chain(module)


def _chain(module: nn.Module) -> Anatomy:
    units = [
        Unit(f"{name}.{index}", block)
        for name, blocks in module.named_children()
        if name in LISTS and isinstance(blocks, nn.ModuleList)
        for index, block in enumerate(blocks)
    ]
    if len(units) < FEWEST_BLOCKS:
        raise Uncuttable(f"{type(module).__name__} has {len(units)} blocks in lists that Frazil knows, too few to cut")
    for unit in units:
        if "skip" in inspect.signature(type(unit.module).forward).parameters:
            raise Uncuttable(f"{type(module).__name__} has blocks with long skips ({unit.name})")
    return Anatomy(units=tuple(units))


def _nest(module: Any) -> Anatomy:
    """Units of a U-Net: each layer by itself. Each way down makes one skip a resnet or downsampler, and one at the start."""
    units = [Unit("conv_in", module.conv_in)]
    made = [1]
    """Number of units that have run when the skip of that number is there."""
    for index, block in enumerate(module.down_blocks):
        for layers in _steps(block, f"down_blocks.{index}", "downsamplers"):
            units += layers
            made.append(len(units))
    if module.mid_block is not None:
        units.append(Unit("mid_block", module.mid_block))
    used = []
    """Number of units that have run when the last, the second last … skip was used."""
    for index, block in enumerate(module.up_blocks):
        steps = list(_steps(block, f"up_blocks.{index}", "upsamplers"))
        for layers in steps[: len(block.resnets)]:
            units += layers
            used.append(len(units))
        units += [layer for layers in steps[len(block.resnets) :] for layer in layers]
    if getattr(module, "conv_norm_out", None) is not None:
        units.append(Unit("conv_norm_out", module.conv_norm_out))
    units.append(Unit("conv_out", module.conv_out))
    if len(made) != len(used):
        raise Uncuttable(f"{type(module).__name__} makes {len(made)} skips on the way down and uses {len(used)}")
    skips = len(made)
    nests = tuple(range(made[kept - 1], used[skips - 1 - kept]) for kept in range(1, skips))
    return Anatomy(units=tuple(units), nests=nests)


def _steps(block: nn.Module, name: str, sampler: str) -> Iterator[list[Unit]]:
    """The layers of a U-Net's block, in the groups in which they make (or use) a skip: each resnet, each sampler."""
    unknown = [
        child
        for child, layers in block.named_children()
        if child not in _LAYERS and next(layers.parameters(), None) is not None
    ]
    resnets = getattr(block, "resnets", None)
    if unknown or not isinstance(resnets, nn.ModuleList):
        raise Uncuttable(f"{type(block).__name__} holds {', '.join(unknown) or 'no resnets'}")
    for index in range(len(resnets)):
        group = []
        for kind in ("resnets", "attentions", "motion_modules"):
            layers = getattr(block, kind, None)
            if layers is not None and index < len(layers) and isinstance(layers[index], nn.Module):
                group.append(Unit(f"{name}.{kind}.{index}", layers[index]))
        yield group
    for index, layer in enumerate(getattr(block, sampler, None) or ()):
        yield [Unit(f"{name}.{sampler}.{index}", layer)]


def streams_into(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, ...] | None:
    """What a transformer's block is given, in the order in which it returns it; None where that order isn't known.

    For blocks that return one tensor it is the first argument; for the others diffusers' registry of blocks says which
    of the two returned is the picture's stream and which the text's.
    """
    from diffusers.hooks._helpers import TransformerBlockRegistry

    try:
        known: Any = TransformerBlockRegistry.get(type(module))
    except ValueError:
        known = None
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if known is None:
        return (given[names[0]],) if isinstance(given.get(names[0]), torch.Tensor) else None
    hidden = given.get(known.hidden_states_argument_name)
    text = given.get(known.encoder_hidden_states_argument_name)
    if not isinstance(hidden, torch.Tensor):
        return None
    if known.return_encoder_hidden_states_index is None:
        return (hidden,)
    if not isinstance(text, torch.Tensor):
        return None
    return (hidden, text) if known.return_hidden_states_index == 0 else (text, hidden)
