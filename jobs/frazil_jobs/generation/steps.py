"""Where a pipeline call is: its step, and whether its denoiser was called yet.

Every diffusers pipeline announces its steps through `self.progress_bar`, those without a callback (PixArt) too, so that is
what reports. A forward pre-hook on the denoisers tells a call that was refused from one that failed on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from frazil_jobs.generation.guidance import DENOISERS


class StepWatch:
    """Watches the calls of one pipeline. `on_step(step, steps)` is called after each step."""

    def __init__(self, pipe: Any, on_step: Callable[[int, int], None]) -> None:
        self._on_step = on_step
        self._begun = False
        pipe.progress_bar = self._progress_bar
        for name in DENOISERS:
            module = getattr(pipe, name, None)
            if module is not None:
                module.register_forward_pre_hook(self._note_call)

    def reset(self) -> None:
        """Call it before each pipeline call."""
        self._begun = False

    @property
    def begun(self) -> bool:
        """True once the denoiser of the call in hand was called, and with it, maybe, a collective."""
        return self._begun

    def _note_call(self, *_: Any) -> None:
        self._begun = True

    def _progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> StepBar:
        if iterable is not None:
            entries = list(iterable)
            return StepBar(entries, len(entries), self._on_step)
        return StepBar([], total or 0, self._on_step)


class StepBar:
    """Stands where a pipeline expects a tqdm bar: as an iterator, or as a context with `update`."""

    def __init__(self, entries: list[Any], total: int, on_step: Callable[[int, int], None]) -> None:
        self._entries = entries
        self._on_step = on_step
        self.total = total
        self.n = 0

    def __enter__(self) -> StepBar:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __iter__(self) -> Iterator[Any]:
        for entry in self._entries:
            yield entry
            self.update()

    def update(self, count: int = 1) -> None:
        """`count` more steps are done."""
        self.n += count
        self._on_step(self.n, self.total)

    def set_postfix(self, *_: Any, **__: Any) -> None:
        """tqdm's; nothing to show."""

    def set_description(self, *_: Any, **__: Any) -> None:
        """tqdm's; nothing to show."""

    def close(self) -> None:
        """tqdm's; nothing to close."""
