"""A bar that counts, for whoever looks at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(what: str, *, total: int | None, shown: bool, notes: Iterable[str] = ()) -> Iterator[Callable[[], None]]:
    """A function that counts one more. The bar is there on a terminal alone, the notes before it everywhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
    )
    for line in notes if shown else ():
        console.print(line, markup=False)
    task = progress.add_task(what, total=total)
    with progress:
        yield lambda: progress.advance(task)
