"""The newest committed checkpoint of a TrainingJob in the store, and how it comes into a pod."""

from __future__ import annotations

from pathlib import Path

from frazil_jobs.inputs.training_task import FOLDER, MARKER, Checkpoint, newest
from frazil_jobs.stores import ObjectStore


def find(store: ObjectStore, prefix: str) -> Checkpoint | None:
    """The newest committed checkpoint of the job at `prefix`."""
    return newest(info.key.removeprefix(f"{prefix}/") for info in store.list(f"{prefix}/{FOLDER}/"))


def bring(store: ObjectStore, prefix: str, checkpoint: Checkpoint, target: Path) -> None:
    """Download a checkpoint's files into a folder."""
    base = f"{prefix}/{checkpoint.folder}/"
    for info in store.list(base):
        name = info.key.removeprefix(base)
        if name != MARKER:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            store.get_file(info.key, target / name)
