"""The batches of a shard: which images one call of the pipeline makes. A function of the job and the shard alone.

The bytes of an image can depend on what shares its batch (kernels round differently for other sizes), so neither the
number of ranks nor what is stored already may change a batch: a batch with any image missing is made again *whole*, and
only what is missing is stored. An image's seed and noise depend on the image alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from frazil_jobs.api import naming
from frazil_jobs.api.generationjob import GenerationJobSpec
from frazil_jobs.inputs.rows import PromptRow
from frazil_jobs.inputs.task import Shard


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image (or video, or sound) to be made."""

    prompt_index: int
    """In the whole job."""
    image_index: int
    seed: int
    key: str
    """Below the job's prefix."""
    thumbnail: str | None
    """The key of its thumbnail, in a job with a gallery."""
    row: PromptRow

    @property
    def keys(self) -> tuple[str, ...]:
        """All that has to be stored of it."""
        return (self.key,) if self.thumbnail is None else (self.thumbnail, self.key)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one call of the pipeline makes. All items share every argument but prompt, negative prompt and noise."""

    shard: int
    number: int
    """Within the shard, from 0."""
    items: tuple[Item, ...]

    def missing(self, stored: frozenset[str]) -> list[Item]:
        """The items of which something isn't in `stored`."""
        return [item for item in self.items if not stored.issuperset(item.keys)]


def items_of(spec: GenerationJobSpec, shard: Shard) -> list[Item]:
    """Every image of a shard, in order: row by row, then image by image."""
    return [
        Item(
            prompt_index=prompt_index,
            image_index=image_index,
            seed=naming.seed_of(spec.sampling.seed, prompt_index, image_index, row_seed=row.seed),
            key=naming.image_key(prompt_index, image_index, spec.output.format),
            thumbnail=naming.thumbnail_key(prompt_index, image_index) if spec.output.gallery else None,
            row=row,
        )
        for prompt_index, row in enumerate(shard.rows, start=shard.first)
        for image_index in range(spec.images_per_prompt)
    ]


def batches_of(spec: GenerationJobSpec, shard: Shard, *, batch_size: int) -> list[Batch]:
    """The batches of a shard, in the order in which they are made.

    Rows that share their further arguments and pictures are grouped, wherever they stand in the shard, and each group
    is cut into batches of `batch_size`. A batch never reaches over the end of a shard.
    """
    groups: dict[str, list[Item]] = {}
    for item in items_of(spec, shard):
        groups.setdefault(shared_arguments(item.row), []).append(item)
    cuts = [
        group[start : start + batch_size] for group in groups.values() for start in range(0, len(group), batch_size)
    ]
    cuts.sort(key=lambda cut: (cut[0].prompt_index, cut[0].image_index))
    return [Batch(shard=shard.index, number=number, items=tuple(cut)) for number, cut in enumerate(cuts)]


def shared_arguments(row: PromptRow) -> str:
    """What rows must have in common to share a call: pictures, extra arguments, and whether there's a negative prompt.

    (A pipeline may treat an absent negative prompt otherwise than an empty one, for a whole call only.)
    """
    shared: dict[str, Any] = {"images": row.images, "extra": row.extra, "negative": row.negative_prompt is not None}
    return json.dumps(shared, sort_keys=True)


def unfinished(batches: Iterable[Batch], stored: frozenset[str]) -> list[Batch]:
    """The batches with at least one image missing."""
    return [batch for batch in batches if batch.missing(stored)]
