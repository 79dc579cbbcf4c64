"""What the README shows is what the command says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
JOB = "examples/shapes/job.yaml"


def shown(command: str) -> list[str]:
    """The lines that the README shows below a command."""
    _, found, after = (ROOT / "README.md").read_text().partition(f"$ {command}\n")
    assert found, command
    return [line.rstrip() for line in after.partition("```")[0].splitlines()]


def said(*arguments: str) -> list[str]:
    """What the command says, called where the README calls it."""
    program = Path(sys.executable).with_name("frazil")
    done = subprocess.run(
        [program, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [line.rstrip() for line in done.stdout.splitlines()]


def without_row(lines: list[str], label: str) -> list[str]:
    """A table without one of its rows."""
    kept, inside = [], False
    for line in lines:
        inside = line.startswith(label) or (inside and line.startswith(" "))
        if not inside:
            kept.append(line)
    return kept


def test_the_plan_that_the_readme_shows_is_the_plan_of_the_example():
    plan = said("plan", JOB, "--quick", "--ranks", "2", "--threads", "1", "--device", "cpu")
    # How guidance is evaluated and what modes cost needs diffusers, which takes ten seconds; test_plan.py has it.
    shown_rows = without_row(without_row(shown(f"frazil plan {JOB}"), "modes"), "guidance")
    assert shown_rows == without_row(plan, "guidance")


def test_the_run_that_the_readme_shows_goes_where_the_plan_says():
    prefix = json.loads("\n".join(said("plan", JOB, "--quick", "--json")))["outputs"]["prefix"]
    run = shown(f"frazil run {JOB}")
    assert run[1] == f"into frazil-results/{prefix}"
    assert run[-3:] == [
        f"  gallery  frazil-results/{prefix}/index.html",
        f"  manifest frazil-results/{prefix}/manifest.json",
        "  next     frazil fetch shapes --to DIR",
    ]
