"""The test environment as a folder that pods can mount: the interpreter, its packages and this checkout's own code.

Files are hard links where that is possible, so that it costs seconds and no room. It can be moved: Python finds its library
beside the interpreter.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

LIBRARY = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
ROOMS = ("jobs/frazil_jobs", "operator/frazil_operator", "cli/frazil_cli")
MOUNT = "/opt/frazil"


def make(target: Path, *, checkout: Path, programs: Sequence[Path] = ()) -> Path:
    """Make or refresh the folder; only our own code is copied again."""
    base = Path(sys.base_prefix).resolve()
    packages = target / LIBRARY / "site-packages"
    stamp = target / ".made-from"
    said = _stamp(checkout)
    if not stamp.exists() or stamp.read_text() != said:
        target.mkdir(parents=True, exist_ok=True)
        for old in target.iterdir():  # not the folder itself: pods that run have it mounted
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        (target / "bin").mkdir()
        _copy(Path(sys.executable).resolve(), target / PYTHON)
        _copy(base / LIBRARY, target / LIBRARY)
        for shared in base.glob("lib/libpython*"):
            _copy(shared, target / "lib" / shared.name)
        shutil.rmtree(packages, ignore_errors=True)
        _copy(Path(sysconfig.get_paths()["purelib"]), packages)
        for editable in packages.glob("*frazil*.pth"):
            editable.unlink()
        for program in programs:
            _copy(program, target / "bin" / program.name)
        stamp.write_text(said)
    for room in ROOMS:
        place = packages / Path(room).name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(checkout / room, place, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def _stamp(checkout: Path) -> str:
    """Changes when packages do."""
    stamps = sorted(path.name for path in Path(sys.prefix).glob(".frazil-*"))
    return f"{sys.executable} {sys.version} {stamps} {checkout}"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    linked = subprocess.run(["cp", "-al", source, target], capture_output=True, text=True, timeout=600)
    if linked.returncode:
        subprocess.run(["rm", "-rf", target], check=True, timeout=600)
        subprocess.run(["cp", "-a", source, target], check=True, capture_output=True, timeout=1800)
