"""Images without a registry: a pause image of a static C program, and a base made from Debian by debootstrap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from testcluster import pins
from testcluster.binaries import CannotBuild, cache, locked, say
from testcluster.environment import MOUNT
from testcluster.node import PAUSE

BASE = "frazil.test/base:2"
CHECKOUT = Path(__file__).resolve().parents[3]
_PAUSE_SOURCE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void reap(int s) { while (waitpid(-1, 0, WNOHANG) > 0); }
static void stop(int s) { _exit(0); }
int main(void) { signal(SIGCHLD, reap); signal(SIGTERM, stop); signal(SIGINT, stop); for (;;) pause(); }
"""
_BUILDAH = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}


def buildah(*arguments: str | Path, seconds: float = 1800) -> str:
    """Run buildah, rootful, without a daemon."""
    ended = subprocess.run(
        ["buildah", *map(str, arguments)],
        env={**os.environ, **_BUILDAH},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    if ended.returncode:
        raise CannotBuild(f"buildah {' '.join(map(str, arguments))} failed:\n{ended.stderr[-3000:]}")
    return ended.stdout.strip()


def archives() -> Path:
    """Where image archives are kept."""
    return cache() / "images"


def pause() -> Path:
    """The archive of the pause image."""
    target = archives() / "pause-1.tar"
    with locked(archives() / "lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory() as scratch:
                source, program = Path(scratch) / "pause.c", Path(scratch) / "pause"
                source.write_text(_PAUSE_SOURCE)
                subprocess.run(
                    ["cc", "-Os", "-static", "-o", program, source], check=True, capture_output=True, timeout=120
                )
                container = buildah("from", "scratch")
                buildah("copy", container, program, "/pause")
                buildah("config", "--entrypoint", '["/pause"]', "--user", "65535:65535", container)
                _archive(container, PAUSE, target)
    return target


def base() -> Path:
    """The archive of the base image: Debian with Python and certificates. Also in buildah's own storage, to build on."""
    target = archives() / f"{BASE.rpartition('/')[2].replace(':', '-')}.tar"
    with locked(archives() / "lock"):
        if not target.exists():
            say("making a base image from Debian (once)")
            rootfs = archives() / "rootfs"
            shutil.rmtree(rootfs, ignore_errors=True)
            _run(
                "debootstrap",
                "--variant=minbase",
                "--include=python3,python3-venv,ca-certificates",
                pins.DEBIAN,
                rootfs,
                mirror(),
            )
            shutil.rmtree(rootfs / "var/cache/apt", ignore_errors=True)
            container = buildah("from", "scratch")
            buildah("add", container, rootfs, "/")
            buildah(
                "config",
                "--env",
                "PATH=/usr/local/bin:/usr/bin:/bin",
                "--env",
                "LANG=C.UTF-8",
                "--env",
                f"LD_LIBRARY_PATH={MOUNT}/lib",
                container,
            )
            _archive(container, BASE, target)
            shutil.rmtree(rootfs, ignore_errors=True)
    return target


def built(part: str) -> Path:
    """Build images/<part> on that base, as a user would on another; its archive. Layers are kept between builds."""
    base()
    name = f"frazil.test/{part}:0.1.0"
    started = time.monotonic()
    # What the machine says about mirrors and certificates holds in the build too, and stays out of the image.
    configured = [path for path in ("/etc/pip.conf", "/etc/ssl/certs") if Path(path).exists()]
    volumes = [f"--volume={path}:{path}:ro" for path in configured]
    file = CHECKOUT / "images" / part / "Dockerfile"
    buildah(
        "build", "--layers", f"--build-arg=BASE={BASE}", *volumes, "--file", file, "--tag", name, CHECKOUT, seconds=3600
    )
    target = archives() / f"{part}.tar"
    fresh = target.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    buildah("push", name, f"docker-archive:{fresh}:{name}")
    fresh.replace(target)
    say(f"{name}: {target.stat().st_size / 1e6:.0f} MB in {time.monotonic() - started:.0f} s")
    return target


def inspected(part: str) -> dict[str, Any]:
    """The configuration of an image that was built."""
    return dict(json.loads(buildah("inspect", "--type", "image", f"frazil.test/{part}:0.1.0"))["OCIv1"]["config"])


def mirror() -> str:
    """Debian's mirror as this machine's apt has it."""
    query = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Identifier: Packages",
        "Origin: Debian",
        f"Codename: {pins.DEBIAN}",
    ]
    found = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout.split()
    if not found:  # a fresh machine has no lists yet
        _run("apt-get", "update", "-qq")
        found = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout.split()
    if not found:
        raise CannotBuild(f"apt knows no mirror of Debian {pins.DEBIAN}")
    return found[0]


def _archive(container: str, name: str, target: Path) -> None:
    buildah("commit", "--rm", container, name)
    fresh = target.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    buildah("push", name, f"docker-archive:{fresh}:{name}")
    fresh.replace(target)


def _run(*command: str | Path) -> None:
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=1800)
    if ended.returncode:
        raise CannotBuild(f"{command[0]} failed:\n{(ended.stdout + ended.stderr)[-3000:]}")
