"""What a person sees while a job runs: bars on a terminal, lines elsewhere, nothing when asked for quiet.

`View` is all there is to show; what draws it knows nothing of processes, Redis or stores. Everything goes to stderr.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

LINE_EVERY_SECONDS = 10.0
"""Between two lines about the same thing when stderr is no terminal."""
SHOWN_SHARDS = 8


@dataclass(frozen=True)
class ShardView:
    """One shard in work."""

    index: int
    replica: int
    total: int
    generated: int
    stored: int
    step: int = 0
    steps: int = 0
    images_per_second: float = 0.0
    state: str = ""


@dataclass(frozen=True)
class View:
    """All there is to show at one moment. Counts are images of the whole job."""

    phase: str
    total: int = 0
    generated: int = 0
    """Made so far, those of earlier runs included."""
    stored: int = 0
    images_per_second: float | None = None
    shards: tuple[ShardView, ...] = ()
    notices: tuple[str, ...] = ()
    """What is wrong now, and what is done about it."""

    @property
    def seconds_left(self) -> float | None:
        """At the present rate."""
        left = self.total - self.generated
        return left / self.images_per_second if self.images_per_second and left > 0 else None

    @property
    def counts(self) -> tuple[int, ...]:
        """What a new line is about."""
        return self.generated, self.stored

    @property
    def is_complete(self) -> bool:
        """Whether all is stored."""
        return self.stored == self.total

    def line(self) -> str:
        """How far it is, in one line; empty before that is known."""
        return counts_line(self) if self.total else ""

    def table(self) -> RenderableType | None:
        """The same as bars."""
        return _table(self) if self.total else None


@dataclass(frozen=True)
class TrainingView:
    """All there is to show of a TrainingJob at one moment."""

    phase: str
    steps: int = 0
    """In all; 0 before it's known."""
    step: int = 0
    """That are done."""
    loss: float | None = None
    validation_loss: float | None = None
    accuracy: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    freeze_ratio: float | None = None
    """None: nothing is frozen in this job."""
    freezing: str = ""
    """Phase of freezing."""
    checkpoint: int | None = None
    """Step of the newest that is stored."""
    notices: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[int, ...]:
        """What a new line is about."""
        return self.step, self.checkpoint or 0

    @property
    def is_complete(self) -> bool:
        """Whether all steps are done and stored."""
        return self.step == self.steps == self.checkpoint

    def line(self) -> str:
        """How far it is, in one line."""
        return f"step {self.step} of {self.steps} · " + " · ".join(self._facts()) if self.steps and self.step else ""

    def table(self) -> RenderableType | None:
        """The same as a bar."""
        if not self.steps:
            return None
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(min_width=16, max_width=40, ratio=1)
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_row(Text("  steps", style="bold"), _bar(self.step / self.steps), f"{self.step}/{self.steps}")
        facts = self._facts()
        for start in range(0, len(facts), 4):
            table.add_row("", "", Text(" · ".join(facts[start : start + 4]), style="dim"))
        return table

    def _facts(self) -> list[str]:
        found = []
        if self.loss is not None:
            found.append(f"loss {self.loss:.4g}")
        if self.validation_loss is not None:
            found.append(f"validation {self.validation_loss:.4g}")
        if self.accuracy is not None:
            found.append(f"accuracy {100 * self.accuracy:.1f} %")
        if self.samples_per_second:
            found.append(f"{self.samples_per_second:.3g} samples/s")
        if self.freeze_ratio is not None:
            found.append(f"frozen {self.freeze_ratio:.0%}" + (f" ({self.freezing.lower()})" if self.freezing else ""))
        if self.seconds_left is not None and self.step < self.steps:
            found.append(f"{duration(self.seconds_left)} left")
        if self.checkpoint is not None:
            found.append(f"checkpoint {self.checkpoint}")
        return found


Shown = View | TrainingView


class Display(Protocol):
    """Something that shows views."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *exception: object) -> None: ...
    def show(self, view: Shown) -> None:
        """Show the present state; called several times a second."""

    def say(self, message: str, *, mark: str = "") -> None:
        """Say something once, for good."""


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, view: Shown) -> None:
        """Nothing."""

    def say(self, message: str, *, mark: str = "") -> None:
        """Nothing."""


class Plain:
    """Lines: one when something changes, and one every few seconds while images come."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._phase = ""
        self._notices: tuple[str, ...] = ()
        self._counts: tuple[int, ...] = (-1, -1)
        self._last = float("-inf")

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, view: Shown) -> None:
        """A line for what is new."""
        if view.phase != self._phase:
            self._phase = view.phase
            self.say(view.phase)
            self._last = float("-inf")
        for notice in view.notices:
            if _words(notice) not in {_words(known) for known in self._notices}:
                self.say(notice, mark="!")
        self._notices = view.notices
        counts, line = view.counts, view.line()
        now = time.monotonic()
        if line and counts != self._counts and (now - self._last >= LINE_EVERY_SECONDS or view.is_complete):
            self._counts, self._last = counts, now
            self.say(line)

    def say(self, message: str, *, mark: str = "") -> None:
        """One line."""
        self._console.print(Text(f"{mark} {message}".strip()))


class Bars:
    """Bars that move in place, under the lines that stay."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True, redirect_stdout=False)
        self._spinner = Spinner("dots", style="cyan")

    def __enter__(self) -> Bars:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, view: Shown) -> None:
        """Draw it."""
        self._live.update(self.drawn(view))

    def drawn(self, view: Shown) -> RenderableType:
        """The view as something that rich can print."""
        self._spinner.update(text=Text(view.phase))
        parts: list[RenderableType] = [self._spinner]
        if (table := view.table()) is not None:
            parts.append(table)
        parts += [Text.assemble(("! ", "bold yellow"), (notice, "yellow")) for notice in view.notices]
        return Group(*parts)

    def say(self, message: str, *, mark: str = "") -> None:
        """A line above the bars."""
        colour = {"✓": "green", "!": "yellow"}.get(mark, "cyan")
        self._live.console.print(Text.assemble((f"{mark} " if mark else "", f"bold {colour}"), message))


def _table(view: View) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(min_width=16, max_width=40, ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    several = len({shard.replica for shard in view.shards}) > 1
    for shard in view.shards[:SHOWN_SHARDS]:
        name = f"  shard {shard.index}" + (f" (replica {shard.replica})" if several else "")
        table.add_row(
            Text(name, style="dim"),
            _bar(_fraction(shard)),
            f"{shard.generated}/{shard.total}",
            Text(_doing(shard), style="dim"),
        )
    if (more := len(view.shards) - SHOWN_SHARDS) > 0:
        table.add_row(Text(f"  and {more} more", style="dim"), "", "", "")
    bar = _bar(view.generated / view.total)
    table.add_row(Text("  images", style="bold"), bar, f"{view.generated}/{view.total}", Text(_pace(view)))
    return table


def _bar(fraction: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=min(1.0, fraction), complete_style="cyan", finished_style="green")


def _fraction(shard: ShardView) -> float:
    """Images, and the steps of those in hand as a part of the next one."""
    part = shard.step / shard.steps if shard.steps and shard.generated < shard.total else 0.0
    return min(1.0, (shard.generated + min(part, 1.0)) / shard.total) if shard.total else 0.0


def _doing(shard: ShardView) -> str:
    parts = []
    if shard.steps and shard.generated < shard.total:
        parts.append(f"step {shard.step}/{shard.steps}")
    if shard.images_per_second:
        parts.append(rate_text(shard.images_per_second))
    return " · ".join(parts) or shard.state


def _pace(view: View) -> str:
    parts = [f"{view.stored} stored"]
    if view.images_per_second:
        parts.append(rate_text(view.images_per_second))
    if (left := view.seconds_left) is not None:
        parts.append(f"{duration(left)} left")
    return " · ".join(parts)


def counts_line(view: View) -> str:
    """`112 of 200 images made, 110 stored · 1.6 images/s · 1:04 left`."""
    return f"{view.generated} of {view.total} images made, " + _pace(view)


def count(number: int, word: str, words: str | None = None) -> str:
    """`1 image`, `1,200 images`, `3 indices`."""
    return f"{number:,} {word if number == 1 else words or word + 's'}"


def rate_text(images_per_second: float) -> str:
    """`1.6 images/s`, or seconds an image when that is the larger number."""
    if images_per_second >= 0.1:
        return f"{images_per_second:.2g} images/s" if images_per_second < 10 else f"{images_per_second:.0f} images/s"
    return f"{duration(1 / images_per_second)} an image" if images_per_second > 0 else ""


def duration(seconds: float) -> str:
    """`9.3 s`, `1:04 min`, `2:03:04 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d} h"


def choose(*, quiet: bool, as_json: bool, console: Console | None = None) -> Display:
    """Bars on a terminal, lines elsewhere, nothing when asked."""
    if quiet or as_json:
        return Quiet()
    stderr = console or Console(stderr=True, highlight=False)
    return Bars(stderr) if stderr.is_terminal and not stderr.is_dumb_terminal else Plain()


def _words(notice: str) -> str:
    """A notice without its numbers, so that a growing one is said once."""
    return "".join(character for character in notice if not character.isdigit())
