"""Builds the cluster's programs from their Go modules, once: later runs find them in the cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testcluster import pins

STRIPPED = "-s -w"
PROGRAMS = ("helm", "kubernetes", "coredns", "minio", "kwok")


class CannotBuild(Exception):
    """Something that the build needs is not on this machine."""


def cache() -> Path:
    """Where everything slow is kept, outside of any checkout."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "frazil" / "cluster"


def folder() -> Path:
    """The programs of the present pins."""
    return cache() / pins.key() / "bin"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(*names: str) -> Path:
    """Make the named programs (of PROGRAMS; by default all), those that are missing; their folder."""
    wanted = names or PROGRAMS
    target = folder()
    missing = [name for name in wanted if not (target / name).exists()]
    if not missing:
        return target
    with locked(target.parent / "lock"):
        target.mkdir(parents=True, exist_ok=True)
        for name in missing:
            if not (target / name).exists():
                _build(name, target)
    return target


def go() -> str | None:
    """Go, on the PATH or where its own installer puts it."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def _build(name: str, target: Path) -> None:
    program = go()
    if program is None:
        raise CannotBuild("there is no `go` here: the cluster's programs are built from Go modules (Go 1.26)")
    started = time.monotonic()
    say(f"building {name} (once; it is kept in {cache()})")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        env = {**os.environ, "CGO_ENABLED": "0", "GOBIN": scratch, "GOFLAGS": "-buildvcs=false"}
        if name == "kubernetes":
            major, minor = pins.KUBERNETES.removeprefix("v").split(".")[:2]
            version = "k8s.io/component-base/version"
            values = {"gitVersion": pins.KUBERNETES, "gitMajor": major, "gitMinor": minor}
            flags = " ".join([STRIPPED, *(f"-X {version}.{key}={value}" for key, value in values.items())])
            command = [program, "build", "-trimpath", "-ldflags", flags, "-o", f"{scratch}/kubernetes", "."]
            _run(command, env=env, cwd=pins.GO_MODULE)
        else:
            _run([program, "install", "-trimpath", "-ldflags", STRIPPED, pins.TOOLS[name]], env=env, cwd=Path(scratch))
        if name == "kubernetes":
            for part in pins.KUBERNETES_PARTS:
                link = target / part
                link.unlink(missing_ok=True)
                link.symlink_to("kubernetes")
        (Path(scratch) / name).replace(target / name)
    say(f"{name} is built ({time.monotonic() - started:.0f} s)")


def _run(command: list[str], *, env: dict[str, str], cwd: Path) -> None:
    ended = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=3600)
    if ended.returncode:
        raise CannotBuild(f"{' '.join(command)} failed:\n{ended.stderr[-3000:]}")


def require_debian_packages() -> None:
    """Install what is missing of Debian's packages. Raises CannotBuild where that can't be."""
    missing = [
        package
        for program, package in pins.DEBIAN_PACKAGES.items()
        if shutil.which(program) is None and not Path(program).is_absolute()
    ]
    missing += [
        package
        for program, package in pins.DEBIAN_PACKAGES.items()
        if Path(program).is_absolute() and not Path(program).exists()
    ]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotBuild(f"please install: {' '.join(missing)}")
    say(f"installing Debian packages: {' '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-qq"], env=env, cwd=Path("/"))
    _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=env, cwd=Path("/"))


def say(words: str) -> None:
    """Progress, for people."""
    print(f"[cluster] {words}", file=sys.stderr, flush=True)
