"""The one kind of diffusers hook that Frazil uses: it takes the place of a module's forward and may call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook


class ForwardHook(ModelHook):
    """Subclasses define `new_forward(module, *args, **kwargs)`. A hook put on later is outside of those before it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inner(self) -> Callable[..., Any]:
        """The forward that this hook took the place of, the hooks inside included."""
        forward: Callable[..., Any] = self.fn_ref.original_forward  # type: ignore[assignment]
        return forward

    def put_on(self, module: torch.nn.Module, name: str) -> None:
        """Register under `name`, which must be new on this module."""
        registry = HookRegistry.check_if_exists_or_initialize(module)
        registry.register_hook(self, name)
        registry.invalidate_child_registries_cache()


def take_off(module: torch.nn.Module, name: str) -> None:
    """Remove the hook of that name from `module` alone."""
    HookRegistry.check_if_exists_or_initialize(module).remove_hook(name, recurse=False)
