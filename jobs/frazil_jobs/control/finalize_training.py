"""Finalizing a TrainingJob: every file that its manifest names is looked up in the store.

How many files of weights a training makes does not follow from its spec, so the manifest is its leader's, written when all
that it names was acknowledged. What it says is believed only as far as the store holds it. Changes nothing, so it can be
asked again at any time.
"""

from __future__ import annotations

from typing import Final

from frazil_jobs.api.naming import GALLERY_KEY, MANIFEST_KEY
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.keys import check_key
from frazil_jobs.control.finalize import Finalized
from frazil_jobs.outputs.manifest import TooLittleStored
from frazil_jobs.outputs.training_manifest import StoredFile, TrainingManifest
from frazil_jobs.stores import ObjectStore

_MANIFEST_BYTES: Final = 16 << 20
"""A pod wrote it: it may not fill this process's memory."""


def finalize_training(job: TrainingJob, uid: str, prefix: str, store: ObjectStore) -> Finalized:
    """Recount the results of a training that is done. Raises TooLittleStored, or StoreUnreachable."""
    try:
        manifest = TrainingManifest.model_validate_json(
            store.get_bytes(f"{prefix}/{MANIFEST_KEY}", limit=_MANIFEST_BYTES)
        )
        for file in manifest.outputs:
            check_key(file.key)
    except FileNotFoundError:
        raise _lost("the manifest is not stored") from None
    except ValueError as error:
        raise _lost(f"the manifest makes no sense: {str(error).splitlines()[0]}") from None
    if (manifest.uid, manifest.prefix) != (uid, prefix) or manifest.steps < job.spec.steps:
        raise _lost(f"the manifest is of {manifest.steps} steps of {manifest.prefix}")
    keys = [file.key for file in manifest.outputs]
    missing = [file.key for file in manifest.outputs if not _stored(store, prefix, file)]
    if not keys:
        raise _lost("the manifest names no file")
    if missing:
        raise TooLittleStored(f"{missing[0]} is not stored", stored=len(keys) - len(missing), total=len(keys))
    return Finalized(
        total=len(keys),
        stored=len(keys),
        bytes=sum(file.size for file in manifest.outputs),
        manifest=f"{prefix}/{MANIFEST_KEY}",
        gallery=f"{prefix}/{GALLERY_KEY}" if GALLERY_KEY in keys else None,
    )


def _stored(store: ObjectStore, prefix: str, file: StoredFile) -> bool:
    found = store.stat(f"{prefix}/{file.key}")
    return found is not None and (found.size, found.sha256) == (file.size, file.sha256)


def _lost(message: str) -> TooLittleStored:
    return TooLittleStored(message, stored=0, total=1)
