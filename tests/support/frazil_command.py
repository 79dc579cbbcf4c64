"""Real runs of the `frazil` command on a tiny pipeline, and eyes on its processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from job_cases import changed

from frazil_jobs.stores import StoreConfig, open_store

PROMPTS = [
    f"{size} {colour} {shape}"
    for size in ("a small", "a large")
    for colour in ("red", "blue")
    for shape in ("ring", "star")
]
STEPS = 40
"""Enough that a run on two ranks takes some seconds, in which things can be killed."""
WORKER = "frazil_jobs.generation.worker"
UPLOAD = "frazil_jobs.outputs.upload"
REDIS = "redis-server"


def job_of(model: Path | str, **changes: object) -> dict:
    """A job of 8 prompts and 16 images, as a document. Dotted keywords ("spec.sampling.steps") change parts of it."""
    document: dict = {
        "apiVersion": "frazil.dev/v1alpha1",
        "kind": "GenerationJob",
        "metadata": {"name": "tiny"},
        "spec": {
            "model": {"uri": str(model)},
            "prompts": {"inline": list(PROMPTS), "perShard": 3},
            "imagesPerPrompt": 2,
            "sampling": {
                "steps": STEPS,
                "guidanceScale": "4.5",
                "batchSize": 2,
                "extra": {"use_resolution_binning": False},
            },
        },
    }
    return changed(document, changes)


@dataclass
class Frazil:
    """The command, in a folder of its own: where it's called, what it works in, what it stores into."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    files: dict[int, tuple[Path, Path]] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def write_job(self, document: dict, name: str = "job.yaml") -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(document))
        return path

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        # The folder is in the environment of everything that is started: `mine` finds it there. What is said goes
        # into files, so that a test can look at it while the command runs.
        env = {**os.environ, "FRAZIL_WORK_DIR": str(self.folder / "work"), "COLUMNS": "120", **self.env}
        self.calls += 1
        out_file, err_file = (self.folder / f"said-{self.calls}.{name}" for name in ("out", "err"))
        with out_file.open("w") as out, err_file.open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "frazil_cli.main", *map(str, arguments)],
                cwd=self.folder,
                env=env,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        self.files[process.pid] = (out_file, err_file)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        """What a command has said on stderr so far."""
        return self.files[process.pid][1].read_text()

    def __call__(self, *arguments: str | Path, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        return self.ended(self.start(*arguments), timeout=timeout)

    def ended(self, process: subprocess.Popen[str], *, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        try:
            process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"it didn't end within {timeout} s\n{self.said(process)}\n{self.logs()}") from None
        out, err = (file.read_text() for file in self.files[process.pid])
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("work/*/logs/*.log")
        )

    def mine(self, program: str = "") -> list[int]:
        """Processes that run `program` (a part of their command line) for this folder.

        They're known by their command line, environment, or working directory (Redis writes over the other two).
        """
        marker = os.fsencode(self.folder)
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                line = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                where = os.fsencode((entry / "cwd").readlink())
                ours = any(marker in text for text in (line, where, (entry / "environ").read_bytes()))
                if state != "Z" and ours and program.encode() in line:
                    found.append(int(entry.name))
            except OSError:
                continue
        return sorted(found)

    def stored(self, config: StoreConfig | None = None) -> dict[str, str]:
        """Images in the store: their last part of the key and sha256."""
        opened = open_store(config or StoreConfig(uri=self.store.as_uri()))
        keys = [info.key for info in opened.list("") if "/images/" in info.key]
        assert len(keys) == len(set(keys))
        return {key.rpartition("/")[2]: hashlib.sha256(opened.get_bytes(key)).hexdigest() for key in keys}

    def wait_for_images(self, count: int, process: subprocess.Popen[str], config: StoreConfig | None = None) -> None:
        """Until so many images are stored and the run is at work."""

        def enough() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"it ended with {process.returncode}\n{self.said(process)}\n{self.logs()}")
            return len(self.stored(config)) >= count

        wait_until(enough, f"{count} images")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: what it printed with --json, and the images."""

    result: dict
    images: dict[str, str]
    frazil: Frazil
