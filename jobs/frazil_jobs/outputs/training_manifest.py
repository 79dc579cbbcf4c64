"""The manifest of a TrainingJob: the files of the trained model and how it was trained. The leader writes it last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from frazil_jobs.api.naming import MANIFEST_SCHEMA
from frazil_jobs.api.trainingjob import TrainingJob


class _Document(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class StoredFile(_Document):
    """One file of the results."""

    key: str
    """Below the job's prefix."""
    sha256: str
    size: int
    """Bytes."""
    content_type: str


class TrainingManifest(_Document):
    """What a TrainingJob made."""

    manifest: str = MANIFEST_SCHEMA
    kind: str = "TrainingJob"
    name: str
    namespace: str
    uid: str
    prefix: str
    steps: int
    """Optimizer steps that were done."""
    loss: float | None = None
    """Of the last step."""
    validation_loss: float | None = None
    """Of the last evaluation."""
    accuracy: float | None = None
    checkpoint: str | None = None
    """The newest one, below the prefix."""
    created_at: str
    spec: dict[str, Any]
    outputs: list[StoredFile]
    """The exported folder (below model/) and the report."""

    @property
    def stored(self) -> int:
        """Files of the results."""
        return len(self.outputs)

    def text(self) -> str:
        """As it's stored."""
        return self.model_dump_json(by_alias=True, indent=1, exclude_none=True)

    @classmethod
    def of(
        cls,
        job: TrainingJob,
        uid: str,
        prefix: str,
        *,
        steps: int,
        outputs: Sequence[StoredFile],
        history: Mapping[str, Any],
        checkpoint: str | None,
    ) -> TrainingManifest:
        """The manifest of a run whose history (`frazil_jobs.training.history`, as JSON) is given."""
        points, measures = history["points"], history["measures"]
        return cls(
            name=job.metadata.name,
            namespace=job.metadata.namespace,
            uid=uid,
            prefix=prefix,
            steps=steps,
            loss=points[-1]["loss"] if points else None,
            validation_loss=measures[-1]["loss"] if measures else None,
            accuracy=measures[-1]["accuracy"] if measures else None,
            checkpoint=checkpoint,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            spec=job.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
            outputs=list(outputs),
        )
