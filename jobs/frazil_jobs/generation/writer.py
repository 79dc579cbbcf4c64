"""What the leader does with the outputs of a batch: encode them and put them into the spool, beside the next batch.

One thread, one batch at a time: the GPU doesn't wait for a png, and no more than one batch is held in memory. An output
that isn't a number fails its shard and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil_jobs.base.exits import BadInput
from frazil_jobs.base.log import get_logger
from frazil_jobs.generation import media
from frazil_jobs.generation.batches import Batch, Item
from frazil_jobs.generation.compare import psnr
from frazil_jobs.generation.media import Encoded, Kind
from frazil_jobs.outputs.distance import DISTANCE_FACT, decibels
from frazil_jobs.outputs.spool import Spool

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Form:
    """How outputs are encoded, and what is said of all of them."""

    kind: Kind
    format: str
    frames_per_second: int
    sampling_rate: int
    settings: Mapping[str, Any]
    """Written into the file, for people."""
    facts: Mapping[str, str]
    """Written into the manifest."""


@dataclass(kw_only=True)
class Writer:
    """Encodes and spools, one batch behind the pipeline."""

    spool: Spool
    form: Form
    stored: frozenset[str]
    on_spooled: Callable[[Batch, int], None]
    """Called with the batch and the number of outputs that are in the spool now."""
    stop: Callable[[], bool]
    """Whether to wait for room in a full spool no longer."""
    failures: dict[int, list[str]] = field(default_factory=dict)
    """Shard to what is wrong with outputs of it."""
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="writer"))
    _pending: Future[None] | None = None

    def submit(
        self,
        batch: Batch,
        arrays: NDArray[Any],
        *,
        facts: Mapping[str, str] | None = None,
        exact: NDArray[Any] | None = None,
    ) -> None:
        """Take over the outputs of `batch`, whose first dimension is the item. Waits for the batch before it.

        `facts`: of this batch, for the manifest. `exact`: the same outputs in mode Exact, to state the distance.
        """
        self.finish()
        own = [dict(facts or {}) for _ in batch.items]
        if exact is not None:
            for fact, one, other in zip(own, arrays, exact, strict=True):
                fact[DISTANCE_FACT] = decibels(psnr(one, other, sound=self.form.kind is Kind.SOUND))
        self._pending = self._pool.submit(self._write, batch, arrays, own)

    def ready(self, seconds: float) -> bool:
        """Wait at most `seconds`; True when nothing is left to write. Raises what the writing raised."""
        if self._pending is None:
            return True
        try:
            self._pending.result(timeout=seconds)
        except NotYet:
            if not self._pending.done():
                return False
            raise
        self._pending = None
        return True

    def finish(self) -> None:
        """Wait until everything is in the spool."""
        while not self.ready(60.0):
            log.warning("waiting for room in the spool")

    def _write(self, batch: Batch, arrays: NDArray[Any], facts: list[dict[str, str]]) -> None:
        count = 0
        for item, array, own in zip(batch.items, arrays, facts, strict=True):
            missing = set(item.keys) - self.stored
            if not missing:
                continue  # the batch was made again whole, for the sake of another
            try:
                self._write_one(batch, item, array, missing, own)
                count += 1
            except BadInput as error:
                self.failures.setdefault(batch.shard, []).append(str(error))
                log.error("output left out", prompt=item.prompt_index, image=item.image_index, reason=str(error))
        self.on_spooled(batch, count)

    def _write_one(
        self, batch: Batch, item: Item, array: NDArray[Any], missing: set[str], own: Mapping[str, str]
    ) -> None:
        form = self.form
        media.require_finite(array, what=f"prompt {item.prompt_index}, image {item.image_index}")
        if item.thumbnail in missing:
            self._spool(item.thumbnail, media.thumbnail(array, kind=form.kind), {"kind": "thumbnail"})
        if item.key in missing:
            encoded = media.encode(
                array,
                kind=form.kind,
                format=form.format,
                text=text_of(item, form.settings),
                frames_per_second=form.frames_per_second,
                sampling_rate=form.sampling_rate,
            )
            self._spool(item.key, encoded, {**facts_of(batch, item, array, encoded, form), **own})

    def _spool(self, key: str, encoded: Encoded, facts: Mapping[str, str]) -> None:
        self.spool.add(key, encoded.data, content_type=encoded.content_type, metadata=facts, stop=self.stop)


def text_of(item: Item, settings: Mapping[str, Any]) -> dict[str, str]:
    """What a file says of itself."""
    own = {"images": item.row.images, "extra": item.row.extra}
    document = {**settings, **{name: value for name, value in own.items() if value}}
    text = {"prompt": item.row.prompt, "seed": str(item.seed), "settings": json.dumps(document, sort_keys=True)}
    if item.row.negative_prompt is not None:
        text["negative_prompt"] = item.row.negative_prompt
    return text


def facts_of(batch: Batch, item: Item, array: NDArray[Any], encoded: Encoded, form: Form) -> dict[str, str]:
    """What the manifest says of one output; all text."""
    return {
        "kind": str(form.kind),
        "prompt_index": str(item.prompt_index),
        "image_index": str(item.image_index),
        "seed": str(item.seed),
        "shard": str(batch.shard),
        "batch": str(batch.number),
        "batch_size": str(len(batch.items)),
        **encoded.facts,
        **({"blank": "true"} if media.is_blank(np.asarray(array)) else {}),
        **form.facts,
    }
