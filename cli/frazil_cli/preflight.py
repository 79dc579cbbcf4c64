"""Whether results can be stored, asked before anything is loaded: by storing what was asked for, `job.json`."""

from __future__ import annotations

import json

from frazil_cli.prepare import Prepared
from frazil_cli.preparetraining import PreparedTraining
from frazil_jobs.stores import ObjectStore, StoreConfig, open_store

JOB_KEY = "job.json"
"""Below the job's prefix. `frazil fetch` reads from it how many outputs there will be."""
_JSON = "application/json"
_LIMIT_BYTES = 4 << 20


def check_store(config: StoreConfig, prepared: Prepared | PreparedTraining) -> None:
    """Store the job as it was asked for. Raises StoreDenied (78), StoreUnreachable (75)."""
    document = {**prepared.job.model_dump(mode="json", by_alias=True, exclude_none=True), "uid": prepared.uid}
    if isinstance(prepared, Prepared):
        document["prompts"] = {"sha256": prepared.pin.sha256, "count": prepared.pin.count}
        document["outputs"] = prepared.images
    data = json.dumps(document, indent=1, sort_keys=True).encode()
    open_store(config).put_bytes(f"{prepared.prefix}/{JOB_KEY}", data, content_type=_JSON)


def expected_outputs(store: ObjectStore, prefix: str) -> int | None:
    """How many outputs the job below `prefix` will have; None when nobody wrote it down."""
    try:
        document = json.loads(store.get_bytes(f"{prefix}/{JOB_KEY}", limit=_LIMIT_BYTES))
        return int(document["outputs"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
