"""Reads a job file. Every error names its field and the way out; all errors of a file are told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from frazil_jobs.api.base import API_VERSION
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.problems import Problem, problems_of, rule_problems, without_nulls
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.api.yamltext import check_plain, documents
from frazil_jobs.base.exits import BadConfiguration

Job = GenerationJob | TrainingJob
KINDS: dict[str, type[GenerationJob] | type[TrainingJob]] = {"GenerationJob": GenerationJob, "TrainingJob": TrainingJob}
_MAX_BYTES = 4 << 20
_EXAMPLES = "see examples/ for jobs that work"


def load_job(source: Path | str) -> Job:
    """The job in a YAML file (a Path) or text (a str). Raises BadConfiguration."""
    name = str(source) if isinstance(source, Path) else "the job"
    found = documents(_read(source) if isinstance(source, Path) else source, name=name)
    if len(found) != 1:
        raise BadConfiguration(
            f"{name} must hold one job; it holds {len(found)} documents",
            remedy="put each job into a file of its own" if found else _EXAMPLES,
        )
    return job_of(found[0], name=name)


def job_of(document: Any, *, name: str = "the job") -> Job:
    """The job that a parsed document says. Raises BadConfiguration.

    As strict as the API server: a number in quotes is no number, null is the same as not set.
    """
    if not isinstance(document, dict):
        raise BadConfiguration(f"{name} is no job: it is not a mapping", remedy=_EXAMPLES)
    check_plain(document, name=name)
    if document.get("apiVersion") != API_VERSION:
        raise BadConfiguration(
            f"is {document.get('apiVersion')!r}", field="apiVersion", remedy=f"write `apiVersion: {API_VERSION}`"
        )
    kind = KINDS.get(str(document.get("kind")))
    if kind is None:
        raise BadConfiguration(
            f"is {document.get('kind')!r}",
            field="kind",
            remedy=f"write {' or '.join(f'`kind: {kind}`' for kind in KINDS)}",
        )
    given = without_nulls(kind, document)
    try:
        job = kind.model_validate(given, strict=True)
    except ValidationError as error:
        raise _refusal(problems_of(kind, given, error), name) from None
    if broken := rule_problems(job):
        raise _refusal(broken, name)
    return job


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadConfiguration(
                f"{path} is larger than a job can be", remedy="put the prompts into a file of their own"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadConfiguration(f"{path} can't be read: {reason}", remedy="name a job file, such as job.yaml") from None


def _refusal(problems: list[Problem], name: str) -> BadConfiguration:
    """One error that tells all problems."""
    if len(problems) == 1:
        (only,) = problems
        return BadConfiguration(only.message, field=only.field, remedy=only.remedy)
    return BadConfiguration("\n  ".join([f"{name} has {len(problems)} problems:", *map(str, problems)]))
