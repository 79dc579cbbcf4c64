"""What the Dockerfiles install: pinned, hashed, a part of the whole, and all that the image's programs import."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGES = CHECKOUT / "images"
LOCKS = {str(path.relative_to(IMAGES)): path for path in sorted(IMAGES.rglob("*.lock"))}
PARTS = ("operator", "worker", "jobs")
PROGRAMS = {
    "operator": ("frazil_operator",),
    "worker": ("frazil_jobs.control", "frazil_jobs.inputs", "frazil_jobs.outputs"),
    "jobs": ("frazil_jobs.generation", "frazil_jobs.training"),
}
"""Packages of which the pods of an image run programs."""
IMPORT_ALL = """
import importlib, importlib.metadata, pkgutil, re, sys

def normal(name):
    return re.sub("[-_.]+", "-", name).lower()

there = set(sys.argv[1].split(","))
for name, makers in importlib.metadata.packages_distributions().items():
    if not {normal(maker) for maker in makers} & there:
        sys.modules.setdefault(name, None)  # as if it weren't installed

for package in sys.argv[2:]:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith(".__main__"):  # it begins to work
            importlib.import_module(module.name)
"""


def pins(path: Path) -> set[str]:
    """name==version of each package."""
    return set(re.findall(r"^[A-Za-z0-9]\S*==\S+", path.read_text(), re.MULTILINE))


def installs(part: str) -> list[list[str]]:
    """The words of each `pip install` of a Dockerfile."""
    text = (IMAGES / part / "Dockerfile").read_text().replace("\\\n", " ")
    return [shlex.split(words) for words in re.findall(r"-m pip install ([^&\n]+)", text)]


@pytest.mark.parametrize("path", LOCKS.values(), ids=LOCKS)
def test_the_pins_are_those_of_the_whole(path):
    found = pins(path)
    assert found
    assert found <= pins(CHECKOUT / "requirements.lock")


@pytest.mark.parametrize("part", PARTS)
def test_whatever_comes_from_elsewhere_is_pinned_and_hashed(part):
    elsewhere = [words for words in installs(part) if not words[-1].startswith("/build/wheels/")]
    assert len(elsewhere) == 2
    for words in elsewhere:
        assert "--require-hashes" in words
        assert [word for word in words if not word.startswith("-")][-1].endswith(".lock")


@pytest.mark.parametrize("part", ["operator", "worker", pytest.param("jobs", marks=pytest.mark.slow)])
def test_an_image_holds_all_that_its_programs_import(part):
    there = {re.sub("[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins(IMAGES / part / "requirements.lock")}
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(sorted(there | {"frazil"})), *PROGRAMS[part]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
