"""Finalizing a job: recount its outputs from the store, write the gallery, and the manifest last.

Idempotent: asked again, it counts again and writes the same. What a job should have made follows from its spec and its
pinned prompts alone, so nothing that a pod says has to be believed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from frazil_jobs.api import naming
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.naming import MANIFEST_KEY
from frazil_jobs.api.parallelism import Parallelism
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.prompts import iter_rows
from frazil_jobs.inputs.rows import PromptsPin
from frazil_jobs.outputs.distance import DistanceCount
from frazil_jobs.outputs.gallery import GalleryWriter, Heading
from frazil_jobs.outputs.manifest import (
    ExpectedOutput,
    JobFacts,
    ManifestWriter,
    Output,
    TooLittleStored,
    recount,
)
from frazil_jobs.stores import ObjectStore

__all__ = ["FinalizeRequest", "Finalized", "TooLittleStored", "changes_of", "expected_outputs", "finalize"]

KEPT = "within the job's error budget; guidance is kept"


class Finalized(BaseModel):
    """What finalizing found."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    total: int
    stored: int
    bytes: int
    manifest: str
    """Key in the store."""
    gallery: str | None
    note: str = ""
    """Of an approximate mode: how far from exact its outputs are, or why they are exact after all."""


@dataclass(frozen=True, kw_only=True)
class FinalizeRequest:
    """A job as its finalizing needs it."""

    job: GenerationJob
    uid: str
    prefix: str
    """The job's own, within the store."""
    pin: PromptsPin
    base_dir: Path
    """Where a relative prompt file is."""

    @property
    def total(self) -> int:
        """Outputs that the job asks for."""
        return self.pin.count * self.job.spec.images_per_prompt


def expected_outputs(request: FinalizeRequest, access: Access) -> Iterator[ExpectedOutput]:
    """All that the job should have made, in order, from its prompts."""
    spec = request.job.spec
    for prompt_index, row in iter_rows(spec.prompts, request.pin, base_dir=request.base_dir, access=access):
        for image_index in range(spec.images_per_prompt):
            yield ExpectedOutput(
                key=naming.image_key(prompt_index, image_index, spec.output.format),
                prompt_index=prompt_index,
                image_index=image_index,
                prompt=row.prompt,
                negative_prompt=row.negative_prompt or spec.sampling.negative_prompt,
                seed=naming.seed_of(spec.sampling.seed, prompt_index, image_index, row_seed=row.seed),
                id=row.id,
                thumbnail=naming.thumbnail_key(prompt_index, image_index) if spec.output.gallery else None,
            )


def finalize(request: FinalizeRequest, store: ObjectStore, access: Access) -> Finalized:
    """Recount, then write gallery and manifest. Raises TryAgain when too little is stored, or the store is down."""
    spec = request.job.spec
    writer = ManifestWriter(store, _facts(request))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as rows:
        for row in recount(store, request.prefix, expected_outputs(request, access)):
            writer.count(row)
            if isinstance(row, Output):
                rows.write(row.model_dump_json(by_alias=True) + "\n")
        writer.check()
        gallery = None
        if spec.output.gallery:
            rows.seek(0)
            gallery = _write_gallery(request, store, rows, stored=writer.stored, changes=said(request, writer.measured))
        rows.seek(0)
        for line in rows:
            writer.add(Output.model_validate_json(line))
        writer.write(gallery=gallery)
    return Finalized(
        total=request.total,
        stored=writer.stored,
        bytes=writer.bytes,
        manifest=f"{request.prefix}/{MANIFEST_KEY}",
        gallery=None if gallery is None else f"{request.prefix}/{gallery}",
        note=note_of(spec.parallelism.mode, writer.measured),
    )


def changes_of(parallelism: Parallelism) -> str:
    """What a mode may change in an image, for people."""
    stages = f"{parallelism.pipeline} stages, whose activations are one step old"
    match parallelism.mode:
        case "Exact":
            return "nothing is changed: guidance branches are evaluated in full, on a rank each or one after the other"
        case "Hybrid":
            return "guidance is off inside the pipelined window, whose activations are one step old"
        case "Guided" if parallelism.pipeline == 1:
            return f"deep features are forecast between full steps, {KEPT}"
        case "Guided" if parallelism.conditioning > 1:
            return f"between full steps each branch is evaluated in {stages}, {KEPT}"
        case "Guided":
            return (
                f"between full steps the prompt's branch is evaluated in {stages}, and the other branch is that less the "
                f"branches' difference, carried from the full steps, {KEPT}"
            )


def _facts(request: FinalizeRequest) -> JobFacts:
    spec, meta = request.job.spec, request.job.metadata
    return JobFacts(
        name=meta.name,
        namespace=meta.namespace,
        uid=request.uid,
        prefix=request.prefix,
        mode=spec.parallelism.mode,
        changes=changes_of(spec.parallelism),
        prompts_sha256=request.pin.sha256,
        total=request.total,
        min_stored=-(-request.total * spec.success_policy.min_stored_percent // 100),
        spec=spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    )


def note_of(mode: str, measured: DistanceCount) -> str:
    """What came out of an approximate mode, for people; nothing for mode Exact."""
    parts = [measured.whole_because] if mode != "Exact" else []
    if mode != "Exact" and measured.distance is not None:
        parts.append(f"measured distance to Exact: {measured.distance}")
    return "; ".join(part for part in parts if part)


def said(request: FinalizeRequest, measured: DistanceCount) -> str:
    """What the mode may have changed, and by how much it did, for people."""
    parallelism = request.job.spec.parallelism
    note = note_of(parallelism.mode, measured)
    if measured.all_whole:
        return f"nothing is changed, for {note}"
    changes = changes_of(parallelism)
    return f"{changes}; {note}" if note else changes


def _write_gallery(request: FinalizeRequest, store: ObjectStore, rows: Any, *, stored: int, changes: str) -> str:
    spec = request.job.spec
    sampling = spec.sampling.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"extra", "batch_size"})
    settings = {**sampling, **spec.sampling.extra}
    writer: GalleryWriter | None = None
    for line in rows:
        output = Output.model_validate_json(line)
        if writer is None:
            heading = _heading(request, settings, output.facts, stored=stored, changes=changes)
            writer = GalleryWriter(store, request.prefix, heading)
        writer.add(output)
    if writer is None:
        heading = _heading(request, settings, {}, stored=stored, changes=changes)
        writer = GalleryWriter(store, request.prefix, heading)
    return writer.close()


def _heading(
    request: FinalizeRequest, settings: dict[str, Any], facts: dict[str, str], *, stored: int, changes: str
) -> Heading:
    shown = ("grid", "ranks", "threads", "device", "dtype", "torch", "diffusers")
    mode = request.job.spec.parallelism.mode
    return Heading(
        name=request.job.metadata.name,
        model=request.job.spec.model.uri,
        mode=mode,
        changes=changes,
        total=request.total,
        stored=stored,
        settings={name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()},
        facts={name: facts[name] for name in shown if name in facts},
    )
