"""The newest committed checkpoint of a TrainingJob in the store, and how it comes into a pod."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from frazil_jobs.api.checkpoints import FOLDER, MARKER, Checkpoint, newest
from frazil_jobs.base.exits import TryAgain
from frazil_jobs.base.files import sha256_of
from frazil_jobs.stores import ObjectStore

_MARKER_BYTES: Final = 64 << 20


def find(store: ObjectStore, prefix: str) -> Checkpoint | None:
    """The newest committed checkpoint of the job at `prefix`."""
    return newest(info.key.removeprefix(f"{prefix}/") for info in store.list(f"{prefix}/{FOLDER}/"))


def bring(store: ObjectStore, prefix: str, checkpoint: Checkpoint, target: Path) -> None:
    """Download a checkpoint's files and its marker into a folder, and compare them with what that says.

    Raises TryAgain when a file is missing or is another: `find` may by then give a newer one.
    """
    base = f"{prefix}/{checkpoint.folder}/"
    wanted = {str(name): str(digest) for name, digest in _marker(store, base).get("files", {}).items()}
    for info in store.list(base):
        name = info.key.removeprefix(base)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        store.get_file(info.key, target / name)
    for name, digest in wanted.items():
        if not (target / name).is_file() or sha256_of(target / name) != digest:
            raise TryAgain(f"{base}{name} is not what the checkpoint's marker says", remedy="is the store whole?")


def _marker(store: ObjectStore, base: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.get_bytes(f"{base}{MARKER}", limit=_MARKER_BYTES))
    return found
