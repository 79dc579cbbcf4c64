"""What `watch` shows: a picture that moves on a terminal, lines elsewhere, objects with --json."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from frazil_cli.cluster.snapshot import Happening, Snapshot, as_line
from frazil_cli.display import LINE_EVERY_SECONDS, duration, rate_text

COLOURS: Final = {"Complete": "green", "Failed": "red", "Restarting": "yellow", "Storing": "cyan", "Running": "cyan"}
SHOWN_JOBS: Final = 40


class Screen(Protocol):
    """Something that shows jobs."""

    def __enter__(self) -> Screen: ...
    def __exit__(self, *exception: object) -> None: ...
    def show(self, jobs: Sequence[Snapshot], *, silence: str | None = None) -> None:
        """The present state; called at every change, and once a second."""


class Lines:
    """A line a change, for logs: the phase, a condition, an Event, and counts every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[str, Snapshot] = {}
        self._counted: dict[str, tuple[float, int, int]] = {}
        """When counts were said last, and which."""
        self._silence: str | None = None

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, jobs: Sequence[Snapshot], *, silence: str | None = None) -> None:
        """A line for what is new."""
        if silence and not self._silence:
            self._say(f"! {silence}")
        self._silence = silence
        over = [job for job in jobs if job.finished and job.uid not in self._seen] if len(jobs) > 1 else []
        for job in over[:SHOWN_JOBS]:
            self._say(f"{job.name}: {job.phase}")
        if len(over) > SHOWN_JOBS:
            self._say(f"and {len(over) - SHOWN_JOBS} more that are over")
        self._seen.update({job.uid: job for job in over})
        for job in jobs:
            before = self._seen.get(job.uid)
            for line in self._news(job, before):
                self._say(f"{job.name}: {line}")
            self._seen[job.uid] = job

    def _news(self, job: Snapshot, before: Snapshot | None) -> list[str]:
        lines = []
        if before is None or before.phase != job.phase:
            lines.append(job.phase)
        known = {(one.condition, one.reason) for one in before.notes} if before else set()
        lines += [
            f"{'!' if one.trouble else '…'} {one.reason}: {one.message}"
            for one in job.notes
            if (one.condition, one.reason) not in known
        ]
        told = {(one.at, one.reason) for one in before.events} if before else set()
        lines += [
            f"{one.reason} ({one.about}): {one.message}"
            for one in job.events
            if one.kind == "Warning" and (one.at, one.reason) not in told
        ]
        ended = job.finished and (before is None or not before.finished)
        now = time.monotonic()
        said_at, *said = self._counted.get(job.uid, (float("-inf"), 0, 0))
        due = ended if job.finished else now - said_at >= LINE_EVERY_SECONDS
        if job.total and said != [job.done, job.made] and due:
            self._counted[job.uid] = (now, job.done, job.made)
            lines.append(counts(job))
        if ended:
            lines += results(job)
        return lines

    def _say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


class JsonLines:
    """One object a line at every change."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, jobs: Sequence[Snapshot], *, silence: str | None = None) -> None:
        """Those that changed."""
        for job in jobs:
            line = json.dumps(as_line(job), ensure_ascii=False)
            if self._said.get(job.uid) != line:
                self._said[job.uid] = line
                sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Picture:
    """Everything at once, redrawn in place; what was shown last stays."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=False, vertical_overflow="ellipsis")

    def __enter__(self) -> Picture:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, jobs: Sequence[Snapshot], *, silence: str | None = None) -> None:
        """Draw it."""
        self._live.update(drawn(jobs, silence=silence))


def choose(*, as_json: bool, console: Console | None = None) -> Screen:
    """A picture on a terminal, lines elsewhere, objects when asked."""
    if as_json:
        return JsonLines()
    out = console or Console(highlight=False)
    return Picture(out) if out.is_terminal and not out.is_dumb_terminal else Lines(out)


def drawn(jobs: Sequence[Snapshot], *, silence: str | None = None) -> RenderableType:
    """All jobs: a row each; of one alone, everything that is known."""
    parts: list[RenderableType] = [_table(jobs[:SHOWN_JOBS])]
    if len(jobs) > SHOWN_JOBS:
        parts.append(Text(f"  and {len(jobs) - SHOWN_JOBS} more", style="dim"))
    alone = len(jobs) == 1
    for job in jobs[:SHOWN_JOBS]:
        parts += _details(job, alone=alone)
    if silence:
        parts.append(Text.assemble(("! ", "bold yellow"), (silence, "yellow")))
    return Group(*parts)


def counts(job: Snapshot) -> str:
    """`112 of 200 stored (115 made) · 3 of 13 shards · 1.6 images/s · 1:04 min left`."""
    training = job.kind == "TrainingJob"
    parts = [f"step {job.done} of {job.total}" if training else f"{job.done} of {job.total} stored"]
    if job.made > job.done:
        parts[0] += f" ({job.made} made)"
    if job.shards:
        failed = f", {job.shards_failed} failed" if job.shards_failed else ""
        parts.append(f"{job.shards_done} of {job.shards} shards{failed}")
    if not job.finished:
        parts += _pace(job)
    return " · ".join(parts)


def results(job: Snapshot) -> list[str]:
    """Where the results of a finished job are, and the next command; nothing where it left none."""
    if not job.results or not (job.done or job.phase == "Complete"):
        return []
    partial = "" if job.phase == "Complete" else " --partial"
    return [f"results: {job.results}", f"fetch them: frazil fetch {job.name} -n {job.namespace}{partial}"]


def _pace(job: Snapshot) -> list[str]:
    parts = []
    if job.per_second:
        parts.append(f"{job.per_second:.3g} samples/s" if job.kind == "TrainingJob" else rate_text(job.per_second))
    if job.seconds_left is not None:
        parts.append(f"{duration(job.seconds_left)} left")
    return parts


def _table(jobs: Sequence[Snapshot]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=42)
    table.add_column(no_wrap=True)
    table.add_column(min_width=10, max_width=30, ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
    for job in jobs:
        table.add_row(
            Text(job.name, style="bold"),
            Text(job.phase, style=COLOURS.get(job.phase, "")),
            _bar(job),
            f"{job.done}/{job.total}" if job.total else "",
            Text(_doing(job), style="dim"),
        )
    return table


def _bar(job: Snapshot) -> RenderableType:
    if not job.total:
        return Text("")
    return ProgressBar(
        total=float(job.total),
        completed=float(min(job.done, job.total)),
        complete_style="red" if job.phase == "Failed" else "cyan",
        finished_style="green",
    )


def _doing(job: Snapshot) -> str:
    parts = [] if job.finished else _pace(job)
    if job.desired and not job.finished:
        parts.append(f"{job.ready} of {job.desired} ready")
    if job.shards:
        parts.append(f"{job.shards_done}/{job.shards} shards")
    if job.shards_failed:
        parts.append(f"failed: {job.shards_failed}")
    if job.loss:
        parts.append(f"loss {job.loss}")
    if job.restarts:
        parts.append(f"{job.restarts} restart{'s' if job.restarts > 1 else ''}")
    return " · ".join(parts)


def _details(job: Snapshot, *, alone: bool) -> list[RenderableType]:
    name = "" if alone else f"{job.name}: "
    lines: list[RenderableType] = [
        Text.assemble(
            ("! " if one.trouble else "… ", "bold yellow" if one.trouble else "dim"),
            name,
            (one.reason, "yellow" if one.trouble else ""),
            (f"  {one.message}", "" if one.trouble else "dim"),
        )
        for one in job.notes
        if alone or one.trouble
    ]
    if alone:
        lines += [_event(one) for one in job.events]
        if job.finished:
            lines += [Text.assemble(("  → ", "cyan"), line) for line in results(job)]
    return lines


def _event(event: Happening) -> Text:
    colour = "yellow" if event.kind == "Warning" else "dim"
    often = f" ({event.count} times)" if event.count > 1 else ""
    return Text.assemble((f"  {_clock(event.at)} ", "dim"), (event.reason, colour), f" {event.message}{often}")


def _clock(at: str) -> str:
    """The time of day, here."""
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "--:--:--"
