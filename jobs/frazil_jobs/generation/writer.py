"""What the leader does with the outputs of a batch: encode them and put them into the spool, beside the next batch.

One thread, one batch behind the pipeline: the GPU doesn't wait for a png, and no more than two batches are held in memory. A
decode that was put off (`decode/deferred.py`) is made here. An output that isn't a number fails its shard and nothing else.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil_jobs.base.exits import BadInput, FrazilError
from frazil_jobs.base.log import get_logger
from frazil_jobs.generation import media
from frazil_jobs.generation.batches import Batch, Item
from frazil_jobs.generation.compare import psnr
from frazil_jobs.generation.decode.deferred import DeferredOutput, resolved
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
    _pending: deque[Future[None]] = field(default_factory=deque)

    def submit(
        self,
        batch: Batch,
        output: NDArray[Any] | DeferredOutput,
        *,
        facts: Mapping[str, str] | None = None,
        exact: NDArray[Any] | DeferredOutput | None = None,
    ) -> None:
        """Take over the outputs of `batch`, whose first dimension is the item, made or not.

        `facts`: of this batch, for the manifest. `exact`: the same outputs in mode Exact, to state the distance.
        """
        self._pending.append(self._pool.submit(self._write, batch, output, dict(facts or {}), exact))

    def ready(self, seconds: float, *, left: int = 1) -> bool:
        """Wait at most `seconds`; True when at most `left` batches are still to be written. Raises what writing raised."""
        until = time.monotonic() + seconds
        while len(self._pending) > left:
            try:
                self._pending[0].result(timeout=max(0.0, until - time.monotonic()))
            except NotYet:
                if not self._pending[0].done():
                    return False
                raise
            self._pending.popleft()
        if self._pending and self._pending[0].done():
            self._pending.popleft().result()
        return True

    def finish(self) -> None:
        """Wait until everything is in the spool."""
        while not self.ready(60.0, left=0):
            log.warning("waiting for room in the spool")

    def _write(
        self,
        batch: Batch,
        output: NDArray[Any] | DeferredOutput,
        facts: Mapping[str, str],
        exact: NDArray[Any] | DeferredOutput | None,
    ) -> None:
        arrays = resolved(output)
        if len(arrays) != len(batch.items):
            raise FrazilError(f"the pipeline made {len(arrays)} outputs of {len(batch.items)}")
        own = [dict(facts) for _ in batch.items]
        if exact is not None:
            for fact, one, other in zip(own, arrays, resolved(exact), strict=True):
                fact[DISTANCE_FACT] = decibels(psnr(one, other, sound=self.form.kind is Kind.SOUND))
        count = 0
        for item, array, known in zip(batch.items, arrays, own, strict=True):
            missing = set(item.keys) - self.stored
            if not missing:
                continue  # the batch was made again whole, for the sake of another
            try:
                self._write_one(batch, item, array, missing, known)
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
