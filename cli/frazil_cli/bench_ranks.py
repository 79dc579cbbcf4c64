"""Two ranks of this machine to measure on: one process and one thread a core, each pinned to its own.

`measure(module, document)` starts `python -m module` twice; in there, `with joined(...)` gives each its process group.
What is compared runs in the same two processes, in turn, so that a slow minute of the machine slows both sides.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from frazil_jobs.base import parent
from frazil_jobs.base.exits import BadConfiguration, FrazilError
from frazil_jobs.base.files import write_atomically

if TYPE_CHECKING:
    from frazil_jobs.generation.groups import RankGroups

_TIMEOUT_SECONDS = 1800
_PROGRESS = "progress"


def measure(
    module: str,
    document: Mapping[str, Any],
    *,
    seconds: float = _TIMEOUT_SECONDS,
    tell: Callable[[str], None] = lambda text: None,
) -> Any:
    """Run two ranks of `module`, which read `document`, and return what rank 0 left. Raises FrazilError with their logs.

    `tell` is told what the ranks note of their progress."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0, 1]
    if len(cores) < 2:
        raise BadConfiguration("two cores are needed to compare one rank with two", remedy="run it on a larger machine")
    with tempfile.TemporaryDirectory(prefix="frazil-bench-") as folder:
        workdir = Path(folder)
        (workdir / "settings.json").write_text(json.dumps(document))
        ranks = []
        for rank in range(2):
            env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            log = (workdir / f"rank-{rank}.log").open("wb")
            arguments = [sys.executable, "-m", module, folder, str(rank), str(cores[rank])]
            ranks.append(parent.start(arguments, env=env, stdout=log, stderr=log))
        try:
            _wait_for_all(ranks, workdir, seconds, tell)
        finally:
            for process in ranks:
                process.kill()
                process.wait()
        return json.loads((workdir / "result.json").read_text())


def _wait_for_all(ranks: list[Any], workdir: Path, seconds: float, tell: Callable[[str], None]) -> None:
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in ranks):
        failed = [rank for rank, process in enumerate(ranks) if process.poll() not in (None, 0)]
        if failed or time.monotonic() > deadline:
            shown = failed or [0]
            logs = "\n".join((workdir / f"rank-{rank}.log").read_text(errors="replace")[-3000:] for rank in shown)
            raise FrazilError(f"rank {shown[0]} {'failed' if failed else 'did not end in time'}:\n{logs}")
        if (progress := workdir / _PROGRESS).exists():
            tell(progress.read_text())
        time.sleep(0.1)
    if any(process.returncode for process in ranks):
        raise FrazilError((workdir / "rank-0.log").read_text(errors="replace")[-3000:])


@contextmanager
def joined(
    workdir: Path, rank: int, core: int, *, staged: bool = False
) -> Iterator[tuple[dict[str, Any], RankGroups, set[int]]]:
    """In a rank: its document, its groups (two conditioning ranks), and the cores that this machine's process may use.

    `staged`: with the groups for transfers between stages.
    """
    parent.die_with_parent()
    both = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    import torch
    import torch.distributed as dist

    from frazil_jobs.generation.groups import join_groups
    from frazil_jobs.generation.rank_grid import RankGrid
    from frazil_jobs.launching.cpu import use_cores

    document = json.loads((workdir / "settings.json").read_text())
    torch.set_grad_enabled(False)
    use_cores(1)
    wanted = document.get("device", "cpu")
    gpus = torch.cuda.device_count() if wanted in ("auto", "cuda") else 0
    if wanted == "cuda" and gpus < 2:
        raise BadConfiguration("two GPUs are needed", field="--device", remedy="--device cpu")
    device = torch.device("cuda", rank) if gpus >= 2 else torch.device("cpu")
    timeout = timedelta(seconds=_TIMEOUT_SECONDS)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{workdir}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=timeout,
    )
    yield document, join_groups(RankGrid(conditioning=2), timeout=timeout, device=device, staged=staged), both
    dist.barrier()
    dist.destroy_process_group()


def note_progress(workdir: Path, rank: int, text: str) -> None:
    """Rank 0's word to who waits in `measure`."""
    if rank == 0:
        write_atomically(workdir / _PROGRESS, text)


def leave_result(workdir: Path, rank: int, result: Callable[[], Any]) -> None:
    """Rank 0's answer to `measure`. Only there is `result` called: the other rank doesn't have all figures."""
    if rank == 0:
        (workdir / "result.json").write_text(json.dumps(result()))


class Clock:
    """Notes when the denoiser is entered and left, outermost of all hooks."""

    def __init__(self, denoiser: Any, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self.entered: list[float] = []
        self.left: list[float] = []
        denoiser.register_forward_pre_hook(lambda *_: self._note(self.entered))
        denoiser.register_forward_hook(lambda *_: self._note(self.left))

    def _note(self, times: list[float]) -> None:
        self._synchronize()
        times.append(time.perf_counter())

    def reset(self) -> None:
        """Before each call."""
        self.entered.clear()
        self.left.clear()

    @property
    def loop(self) -> float:
        """Seconds from the first entry to the last exit."""
        return self.left[-1] - self.entered[0]

    @property
    def forwards(self) -> list[float]:
        """Seconds of each call."""
        return [left - entered for entered, left in zip(self.entered, self.left, strict=True)]


class Audit:
    """Counts the collectives of this rank and the bytes that it sends by them, while the context lasts."""

    _NAMES = ("all_gather", "all_gather_into_tensor", "all_reduce", "broadcast", "all_to_all_single", "send", "isend")

    def __init__(self) -> None:
        self.count = 0
        self.sent = 0
        self._originals: dict[str, Any] = {}

    def __enter__(self) -> Self:
        import torch
        import torch.distributed as dist

        for name in self._NAMES:
            original = getattr(dist, name)
            self._originals[name] = original

            def counted(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
                tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
                self.count += 1
                self.sent += min(tensor.numel() * tensor.element_size() for tensor in tensors)
                return _original(*args, **kwargs)

            setattr(dist, name, counted)
        return self

    def __exit__(self, *_: object) -> None:
        import torch.distributed as dist

        for name, original in self._originals.items():
            setattr(dist, name, original)
