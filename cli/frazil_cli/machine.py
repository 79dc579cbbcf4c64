"""What this machine has, found without importing torch, and what a run makes of it: `layout` is the decision.

GPUs are counted by what the driver shows, narrowed by CUDA_VISIBLE_DEVICES; cores by affinity and the cgroup's quota.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from frazil_jobs.base.exits import BadConfiguration

Device = Literal["cpu", "cuda"]

VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
_TOOL_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Machine:
    """The devices that a run may use. `gpus` are the names that CUDA_VISIBLE_DEVICES takes (indices or UUIDs)."""

    cores: int
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Degrees:
    """Ranks of one replica, by what they split: guidance branches, stages, sequence parts."""

    conditioning: int
    pipeline: int = 1
    sequence: int = 1

    @property
    def ranks(self) -> int:
        """All degrees multiplied."""
        return self.conditioning * self.pipeline * self.sequence

    def __str__(self) -> str:
        return f"conditioning {self.conditioning} × pipeline {self.pipeline} × sequence {self.sequence}"


@dataclass(frozen=True)
class Layout:
    """How a job is laid out on one machine."""

    device: Device
    degrees: Degrees
    replicas: int
    threads: int
    """Threads of one rank."""
    notes: tuple[str, ...] = ()
    """What was decided for a reason that a person may want to know."""

    @property
    def ranks(self) -> int:
        """Ranks of one replica."""
        return self.degrees.ranks

    def gpus_of(self, replica: int, machine: Machine) -> tuple[str, ...]:
        """The GPUs of one replica, one a rank; none on CPU."""
        if self.device == "cpu":
            return ()
        first = replica * self.ranks
        return machine.gpus[first : first + self.ranks]


def layout(
    wanted: Degrees,
    *,
    machine: Machine,
    shards: int,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    ranks: int | None = None,
    replicas: int | None = None,
    threads: int | None = None,
) -> Layout:
    """The best layout of a job that asks for the `wanted` degrees and has `shards` shards, on `machine`.

    One rank a GPU, or a core: more devices become replicas (on CPU: threads), fewer shrink the grid, which changes no
    image of the Exact mode beyond the last bits. `ranks`, `replicas` and `threads` are a person's own choice.
    """
    chosen: Device = device if device != "auto" else ("cuda" if machine.gpus else "cpu")
    if chosen == "cuda" and not machine.gpus:
        raise BadConfiguration(
            "no CUDA device was found", field="--device", remedy="check `nvidia-smi`, or use --device cpu"
        )
    devices = len(machine.gpus) if chosen == "cuda" else machine.cores
    degrees, notes = _degrees(wanted, ranks=ranks, devices=devices, device=chosen)
    fitting = max(1, devices // degrees.ranks) if chosen == "cuda" else 1
    count = replicas if replicas is not None else min(fitting, shards)
    if count > shards:
        notes.append(f"{shards} shards keep {shards} replicas busy: not {count}")
        count = shards
    if chosen == "cuda" and count * degrees.ranks > devices:
        raise BadConfiguration(
            f"{count} replicas of {degrees.ranks} ranks need {count * degrees.ranks} GPUs; there are {devices}",
            field="--replicas" if replicas is not None else "--ranks",
            remedy=f"at most {devices // degrees.ranks} replicas of {degrees.ranks} ranks, or --device cpu",
        )
    each = threads or max(1, machine.cores // (degrees.ranks * count))
    return Layout(device=chosen, degrees=degrees, replicas=count, threads=each, notes=tuple(notes))


def _degrees(wanted: Degrees, *, ranks: int | None, devices: int, device: Device) -> tuple[Degrees, list[str]]:
    word = "GPU" if device == "cuda" else "core"
    if ranks is not None:
        if ranks == wanted.ranks:
            return wanted, []
        if ranks == 1:
            return Degrees(1), []
        if ranks == wanted.conditioning:
            return Degrees(wanted.conditioning), []
        raise BadConfiguration(
            f"the degrees of the job ({wanted}) multiply to {wanted.ranks}, not to {ranks} ranks",
            field="--ranks",
            remedy=f"use --ranks {wanted.ranks} or --ranks 1, or change spec.parallelism; more devices become replicas",
        )
    if wanted.ranks <= devices:
        return wanted, []
    fitting = _largest_that_fits(wanted, devices)
    plural = "" if devices == 1 else "s"
    note = f"the job asks for {wanted.ranks} ranks ({wanted}); {devices} {word}{plural} here: {fitting.ranks}"
    return fitting, [note]


def _largest_that_fits(wanted: Degrees, devices: int) -> Degrees:
    """Guidance branches first (one small message a step), then the largest divisor of the sequence degree."""
    conditioning = wanted.conditioning if wanted.conditioning <= devices else 1
    parts = [part for part in range(1, wanted.sequence + 1) if wanted.sequence % part == 0]
    sequence = max(part for part in parts if part * conditioning <= devices or part == 1)
    return Degrees(conditioning, 1, sequence)


def this_machine(environment: Mapping[str, str] = os.environ) -> Machine:
    """The cores and GPUs that this process may use."""
    return Machine(cores=cores(), gpus=_gpus(environment))


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may run on: its affinity, and the quota of its cgroup (version 2, then 1)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _quota(cgroup)
    return max(1, min(allowed, int(quota))) if quota is not None else allowed


def _quota(cgroup: Path) -> float | None:
    try:
        if (both := cgroup / "cpu.max").exists():
            limit, period = both.read_text().split()
        else:
            limit = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        return None if limit in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the usable GPUs; none when torch here was built without CUDA."""
    if not _torch_has_cuda():
        return ()
    listed = environment.get(VISIBLE_VARIABLE)
    if listed is not None:
        return visible(listed, found=_driver_gpus())
    return tuple(str(index) for index in range(_driver_gpus()))


def visible(listed: str, *, found: int) -> tuple[str, ...]:
    """What CUDA makes of its variable: names up to the first that is invalid; none without a driver."""
    if not found:
        return ()
    names: list[str] = []
    for name in (part.strip() for part in listed.split(",")):
        number = int(name) if name.lstrip("-").isdigit() else None
        if not name or (number is not None and not 0 <= number < found):
            break
        names.append(name)
    return tuple(names)


def _driver_gpus() -> int:
    if tool := shutil.which("nvidia-smi"):
        try:
            listing = subprocess.run(
                [tool, "-L"], capture_output=True, text=True, timeout=_TOOL_TIMEOUT_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return 0
        return len(re.findall(r"^GPU \d+:", listing.stdout, flags=re.MULTILINE))
    return sum(1 for node in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", node.name))


def _torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA, read from its version file: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return False
    return re.search(r"^cuda\b[^=]*=\s*['\"]", text, flags=re.MULTILINE) is not None
