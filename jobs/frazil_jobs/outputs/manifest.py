"""The manifest: what a job made, recounted from the store. It's written last, and its presence is the commit of a job.

`finalize` reads nothing but the store and what the job should have made. It can be repeated at any time, by anyone, and
leaves the same objects. A job of many outputs has its rows in parts (`manifest-00001.jsonl`), each named in the manifest
with its sha256, so that neither writing nor reading it takes more memory than a part.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from frazil_jobs.api.naming import MANIFEST_KEY, MANIFEST_SCHEMA
from frazil_jobs.base.exits import TryAgain
from frazil_jobs.outputs.distance import Distance, DistanceCount
from frazil_jobs.outputs.training_manifest import TrainingManifest
from frazil_jobs.stores import ObjectInfo, ObjectStore

_HEAD: Final = 256
"""Bytes that tell the kind: a manifest of many pictures is not parsed twice."""
ROWS_A_PART: Final = 10_000
THREADS: Final = 16
"""Questions to the store at once."""
_NAMED_MISSING: Final = 5
_LISTED_MISSING: Final = 100


class _Document(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class ExpectedOutput(_Document):
    """One output that the job should have made, and what a person wants to know of it."""

    key: str
    """Below the job's prefix."""
    prompt_index: int
    image_index: int
    prompt: str
    negative_prompt: str | None = None
    seed: int
    id: str | None = None
    """The name that the prompt file gives the row."""
    thumbnail: str | None = None
    """Key of its thumbnail, when a gallery is wanted."""


class Output(ExpectedOutput):
    """One output as the store has it."""

    sha256: str
    size: int
    """Bytes."""
    content_type: str
    facts: dict[str, str] = Field(default_factory=dict)
    """What the compute process noted: ranks, threads, device, versions."""


class Part(_Document):
    """One file of rows."""

    key: str
    rows: int
    sha256: str


class Manifest(_Document):
    """What a job made."""

    manifest: str = MANIFEST_SCHEMA
    name: str
    namespace: str
    uid: str
    prefix: str
    mode: str
    changes: str
    """What the mode may change in the outputs, for people."""
    distance: Distance | None = None
    """The measured distance of an approximate mode's outputs to exact ones; left out where nothing was compared."""
    whole_because: str | None = None
    """Why outputs of an approximate mode are exact after all, where some are."""
    prompts_sha256: str
    total: int
    """Outputs that the job asks for."""
    stored: int
    bytes: int
    missing: list[str] = Field(default_factory=list)
    """Keys that aren't there; the first hundred. Empty unless the success policy allows it."""
    created_at: str
    """Of the newest output's finalizing; not part of what is compared."""
    spec: dict[str, Any]
    gallery: str | None = None
    outputs: list[Output] = Field(default_factory=list)
    """The rows, when there are no parts."""
    parts: list[Part] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """What the manifest says of the job itself."""

    name: str
    namespace: str
    uid: str
    prefix: str
    """The job's own, within the store."""
    mode: str
    changes: str
    prompts_sha256: str
    total: int
    min_stored: int
    """Fewest outputs that make the job a success."""
    spec: Mapping[str, Any] = field(default_factory=dict)


def recount(store: ObjectStore, prefix: str, expected: Iterable[ExpectedOutput]) -> Iterator[Output | ExpectedOutput]:
    """Each expected output as the store has it, in order; one that isn't there comes back as it was.

    Asks for `THREADS` objects at a time and holds no more than a few hundred.
    """

    def look(one: ExpectedOutput) -> Output | ExpectedOutput:
        info = store.stat(f"{prefix}/{one.key}")
        return one if info is None or info.sha256 is None else _output(one, info, info.sha256)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="recount") as pool:
        for batch in _batched(expected, 256):
            yield from pool.map(look, batch)


def _output(expected: ExpectedOutput, info: ObjectInfo, sha256: str) -> Output:
    return Output(
        **expected.model_dump(),
        sha256=sha256,
        size=info.size,
        content_type=info.content_type or "application/octet-stream",
        facts=dict(info.metadata),
    )


def _batched(values: Iterable[ExpectedOutput], size: int) -> Iterator[tuple[ExpectedOutput, ...]]:
    iterator = iter(values)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch


class TooLittleStored(TryAgain):
    """The store holds fewer outputs of a job than its success policy asks."""

    def __init__(self, message: str, *, stored: int, total: int) -> None:
        super().__init__(message, remedy="run the job again: only what is missing is made")
        self.stored = stored
        self.total = total


class ManifestWriter:
    """Counts rows, then takes the stored ones, writes full parts as they come, and the manifest at the end."""

    def __init__(self, store: ObjectStore, facts: JobFacts) -> None:
        self._store = store
        self._facts = facts
        self._rows: list[Output] = []
        self._parts: list[Part] = []
        self._missing: list[str] = []
        self.measured = DistanceCount()
        self.stored = 0
        self.missing = 0
        self.bytes = 0

    def count(self, row: Output | ExpectedOutput) -> None:
        """Count a row, stored or not."""
        if isinstance(row, Output):
            self.stored += 1
            self.bytes += row.size
            self.measured.add(row.facts)
            return
        self.missing += 1
        if len(self._missing) < _LISTED_MISSING:
            self._missing.append(row.key)

    def add(self, row: Output) -> None:
        """The next stored row, in order."""
        self._rows.append(row)
        if len(self._rows) > ROWS_A_PART:
            self._write_part(self._rows[:ROWS_A_PART])
            self._rows = self._rows[ROWS_A_PART:]

    def check(self) -> None:
        """Raise TooLittleStored."""
        if self.stored < self._facts.min_stored:
            first = ", ".join(self._missing[:_NAMED_MISSING])
            raise TooLittleStored(
                f"{self.missing} of {self._facts.total} outputs are not stored, among them {first}",
                stored=self.stored,
                total=self._facts.total,
            )

    def write(self, *, gallery: str | None) -> Manifest:
        """Write what is left, and the manifest last. Returns it."""
        facts = self._facts
        if self._parts and self._rows:
            self._write_part(self._rows)
            self._rows = []
        manifest = Manifest(
            name=facts.name,
            namespace=facts.namespace,
            uid=facts.uid,
            prefix=facts.prefix,
            mode=facts.mode,
            changes=facts.changes,
            distance=self.measured.distance,
            whole_because=self.measured.whole_because or None,
            prompts_sha256=facts.prompts_sha256,
            total=facts.total,
            stored=self.stored,
            bytes=self.bytes,
            missing=self._missing,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            spec=dict(facts.spec),
            gallery=gallery,
            outputs=self._rows,
            parts=self._parts,
        )
        text = manifest.model_dump_json(by_alias=True, indent=1, exclude_none=True)
        self._store.put_bytes(f"{facts.prefix}/{MANIFEST_KEY}", text.encode(), content_type="application/json")
        return manifest

    def _write_part(self, rows: list[Output]) -> None:
        lines = [json.dumps(row.model_dump(by_alias=True, exclude_none=True), ensure_ascii=False) for row in rows]
        data = ("\n".join(lines) + "\n").encode()
        key = f"manifest-{len(self._parts) + 1:05d}.jsonl"
        self._store.put_bytes(f"{self._facts.prefix}/{key}", data, content_type="application/jsonl")
        self._parts.append(Part(key=key, rows=len(rows), sha256=hashlib.sha256(data).hexdigest()))


def read_manifest(store: ObjectStore, prefix: str) -> Manifest:
    """The manifest of a job. Raises FileNotFoundError before its commit."""
    return Manifest.model_validate_json(store.get_bytes(f"{prefix}/{MANIFEST_KEY}"))


def read_any_manifest(store: ObjectStore, prefix: str) -> Manifest | TrainingManifest:
    """The manifest of a job of either kind. Raises FileNotFoundError before its commit."""
    data = store.get_bytes(f"{prefix}/{MANIFEST_KEY}")
    is_training = b'"TrainingJob"' in data[:_HEAD] and json.loads(data).get("kind") == "TrainingJob"
    return TrainingManifest.model_validate_json(data) if is_training else Manifest.model_validate_json(data)


def read_outputs(store: ObjectStore, manifest: Manifest) -> Iterator[Output]:
    """All rows of a manifest, part by part."""
    yield from manifest.outputs
    for part in manifest.parts:
        data = store.get_bytes(f"{manifest.prefix}/{part.key}")
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise TryAgain(f"{part.key} is not the part that the manifest names")
        for line in data.splitlines():
            yield Output.model_validate_json(line)
