"""Where a local run keeps what isn't finished: one folder a job and place of its results, found again by the next run.

    <work dir>/<name>-<uid8>-<place>/
        lock            held by the run that works here
        job.yaml        what this run was asked for
        redis/          of the embedded server; only this user can read it
        replica-0/spool one a replica; gone when all of it is stored
        logs/           of the last run, one file a process

What is in a spool is never deleted before the store has it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from frazil_jobs.base.exits import BadConfiguration, TryAgain

WORK_VARIABLE = "FRAZIL_WORK_DIR"


@dataclass(frozen=True)
class Workspace:
    """The folder of one job and store."""

    root: Path

    @property
    def redis(self) -> Path:
        """Of the embedded server."""
        return self.root / "redis"

    def spool(self, replica: int) -> Path:
        """Of one replica."""
        return self.root / f"replica-{replica}" / "spool"

    def log(self, component: str) -> Path:
        """Of one process."""
        return self.root / "logs" / f"{component}.log"

    def spools(self) -> list[Path]:
        """Those that are there, whatever run left them."""
        return sorted(self.root.glob("replica-*/spool"))

    def remove_spool(self, spool: Path) -> None:
        """Once all of it is stored."""
        shutil.rmtree(spool.parent, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder. Raises TryAgain when another run of the same job is at work."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = (self.root / "lock").open("a+")
        except OSError as error:
            raise BadConfiguration(
                f"can't write to {self.root}: {error.strerror}",
                field="--work-dir",
                remedy="name a folder that you can write to",
            ) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                raise TryAgain(
                    f"this job is being run already, by process {handle.read().strip() or '?'}",
                    remedy=f"wait until it ends, or stop it; it works in {self.root}",
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield


def workspace(
    *,
    name: str,
    uid: str,
    store: str,
    prefix: str,
    work_dir: Path | None,
    environment: Mapping[str, str] = os.environ,
) -> Workspace:
    """The folder of a job's runs into one prefix of one store: the same place, the same folder, from any directory.

    Namespace and output.prefix change no picture, so that the uid doesn't tell them apart; the place does.
    """
    where = hashlib.sha256(f"{store}\0{prefix}".encode()).hexdigest()[:8]
    return Workspace((work_dir or default_root(environment)).absolute() / f"{name}-{uid[:8]}-{where}")


def default_root(environment: Mapping[str, str]) -> Path:
    """Below the person's own cache folder, beside the models."""
    if chosen := environment.get(WORK_VARIABLE):
        return Path(chosen)
    cache = environment.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "frazil" / "runs"
