"""A model cut into stages: each runs the library's own forward over its part of the library's own modules.

No code of a model is written again here. `Cut` names where a model's forward can be entered and left: the modules that run
once before the blocks (`entries`), the list of blocks, and the modules after it. In a later stage the entries are stand-ins
that give back what was received; in an earlier one the block after the last is a door, through which the forward is left
with all that the rest of the model reads. What travels is therefore a tuple of tensors: each entry's output, the moving ones
(`moving`: what a block takes and gives) as they are at the cut.

Parameters keep the names that they have in the whole model, so that weights, checkpoints and exports do not depend on where
it was cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

State = tuple[torch.Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where the forward of one architecture is entered and left. Names are paths of modules within the model."""

    primary: str
    """The argument that the first stage's input is given as."""
    blocks: str
    """The list of blocks, each called with the output of the one before it."""
    entries: Mapping[str, int]
    """Modules whose outputs the blocks or the head read, in the order in which they first run, and how many tensors each
    gives. The first is the input of the first block."""
    moving: Mapping[str, int] = field(default_factory=lambda: {"hidden_states": 0})
    """Argument of a block to the place of its tensor in the state."""
    heads: tuple[str, ...]
    """Modules that run after the blocks."""
    reads: Mapping[str, str] = field(default_factory=dict)
    """Entry to the path of a tensor below it that the model's own forward looks at (its number type)."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that are the same in each call."""
    output: str = "logits"
    """The field of the model's output that is the stage's."""


class _Left(Exception):
    """The forward went through the door; carries the state."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state


class _Given(nn.Module):
    """Stands in for an entry of an earlier stage: gives back what was received."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Any = None

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.value


class _Door(nn.Module):
    """Stands after the last block of a stage that is not the last one."""

    def __init__(self, cut: Cut, seen: dict[str, Any]) -> None:
        super().__init__()
        self._cut = cut
        self._seen = seen

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(self._cut.moving, args, strict=False)), **kwargs}
        state = list(_flat(self._seen[name] for name in self._cut.entries))
        for name, place in self._cut.moving.items():
            state[place] = given[name]
        raise _Left(tuple(state))


class _Blocks(nn.ModuleList):
    """Some blocks of a list, under the indices that they have in all of it; stand-ins are found by index only."""

    def __init__(self, blocks: Mapping[int, nn.Module], *, stand_ins: Mapping[int, Any], door: _Door | None) -> None:
        super().__init__()
        for index, block in blocks.items():
            self.add_module(str(index), block)
        self._stand_ins = dict(stand_ins)
        self._door = [door] if door is not None else []  # in a list: it's no part of the model

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([*self._modules.values(), *self._door])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self)  # models slice to all of their blocks
        return self._stand_ins[index] if index in self._stand_ins else self._modules[str(index)]


class Stage(nn.Module):
    """One stage. Takes the model's primary input (first stage) or the state of the stage before; gives the state, or the
    model's output (last stage). Keyword arguments are those of the model's forward, and reach every stage."""

    def __init__(
        self,
        model: nn.Module,
        cut: Cut,
        *,
        blocks: range,
        of: int,
        sample: torch.Tensor,
        checkpointed: bool = False,
    ) -> None:
        """Keep of `model` what blocks `blocks` of `of` need; the rest is taken out of it.

        `sample` is one row of the primary input, without the batch: its shape and number type are those of every call.
        `checkpointed`: what a block computed for its backward isn't kept, but computed again in there.
        """
        super().__init__()
        self.is_first, self.is_last = blocks.start == 0, blocks.stop == of
        self._cut = cut
        self._sample = (tuple(sample.shape), sample.dtype)
        self._seen: dict[str, Any] = {}
        self._given: dict[str, _Given] = {}
        whole = cast(nn.ModuleList, model.get_submodule(cut.blocks))
        kept = {index: whole[index] for index in blocks}
        if checkpointed:
            for block in kept.values():
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        stand_ins: dict[int, Any] = {}
        for name in cut.entries:
            inside = name.removeprefix(f"{cut.blocks}.") if name.startswith(f"{cut.blocks}.") else None
            if self.is_first:
                model.get_submodule(name).register_forward_hook(self._note(name))
            elif inside is None:
                self._given[name] = given = _Given()
                for path in (cut.reads[name],) if name in cut.reads else ():
                    dtype = model.get_submodule(name).get_parameter(path).dtype
                    head, _, rest = path.partition(".")
                    setattr(given, head, _spaces(rest, torch.empty(0, dtype=dtype)))
                model.set_submodule(name, given)
            else:
                index, _, path = inside.partition(".")
                self._given[name] = given = _Given()
                stand_ins[int(index)] = _spaces(path, given)
        door = None if self.is_last else _Door(cut, self._seen)
        model.set_submodule(cut.blocks, _Blocks(kept, stand_ins=stand_ins, door=door))
        if not self.is_last:
            for name in cut.heads:
                _take_out(model, name)
        _in_running_order(model, cut)
        self.model = model

    def _note(self, name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            self._seen[name] = output

        return hook

    def forward(self, *state: torch.Tensor, **kwargs: Any) -> Any:
        """Run the stage on one microbatch."""
        cut = self._cut
        if self.is_first:
            (primary,) = state
        else:
            self._receive(state)
            shape, dtype = self._sample
            primary = torch.zeros((), dtype=dtype, device=state[0].device).expand(state[0].shape[0], *shape)
        try:
            output = self.model(**{cut.primary: primary, **cut.constants, **_nested(kwargs)})
        except _Left as left:
            return left.state if len(left.state) > 1 else left.state[0]
        finally:
            self._seen.clear()
            for given in self._given.values():
                given.value = None
        return output[cut.output] if isinstance(output, Mapping) else getattr(output, cut.output)

    def _receive(self, state: Sequence[torch.Tensor]) -> None:
        place = 0
        for name in self._cut.entries:
            width = self._cut.entries[name]
            # Views: what a stage only hands on must not be the very tensor that it received, a leaf of its graph.
            value = tuple(tensor.view_as(tensor) for tensor in state[place : place + width])
            self._given[name].value = self._seen[name] = value if width > 1 else value[0]
            place += width

    def weights(self) -> dict[str, nn.Parameter]:
        """Parameters by the names that they have in the whole model."""
        return dict(self.model.named_parameters())

    def saved_buffers(self) -> dict[str, torch.Tensor]:
        """Buffers that a saved model has, by the same names."""
        saved = self.model.state_dict()
        return {name: saved[name] for name, _ in self.model.named_buffers() if name in saved}


def _flat(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from value
        else:
            yield value


def _nested(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": x}` as `{"a": {"b": x}}`: a pipeline passes tensors by flat names."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        outer, dot, inner = name.partition(".")
        if dot:
            found.setdefault(outer, {})[inner] = value
        else:
            found[name] = value
    return found


def _spaces(path: str, value: Any) -> Any:
    """`value` under a dotted path of plain attributes."""
    for name in reversed(path.split(".")):
        value = SimpleNamespace(**{name: value})
    return value


def _take_out(model: nn.Module, name: str) -> None:
    """Remove a module, or a parameter, that this stage never comes to."""
    owner, _, leaf = name.rpartition(".")
    parent = model.get_submodule(owner)
    if leaf in parent._parameters:
        parent._parameters[leaf] = None
    elif parent._modules.get(leaf) is not None:
        parent._modules[leaf] = nn.Identity()


def _in_running_order(model: nn.Module, cut: Cut) -> None:
    """Entries first, then blocks, then heads: the order in which parameters are listed is the order in which they run."""
    for name in (*cut.entries, cut.blocks, *cut.heads):
        if name.startswith(f"{cut.blocks}."):
            continue
        owner, _, leaf = name.rpartition(".")
        modules = model.get_submodule(owner)._modules
        if leaf in modules:
            modules[leaf] = modules.pop(leaf)
