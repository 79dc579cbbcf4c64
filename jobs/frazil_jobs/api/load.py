"""Reads a job file. Every error names its field and the way out; all errors of a file are told at once."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from frazil_jobs.api.base import API_VERSION, ApiModel
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.rules import violations
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration

Job = GenerationJob | TrainingJob
KINDS: dict[str, type[GenerationJob] | type[TrainingJob]] = {"GenerationJob": GenerationJob, "TrainingJob": TrainingJob}
_MAX_BYTES = 4 << 20
_EXAMPLES = "see examples/ for jobs that work"


def load_job(source: Path | str) -> Job:
    """The job in a YAML file (a Path) or text (a str). Raises BadConfiguration."""
    name = str(source) if isinstance(source, Path) else "the job"
    text = _read(source) if isinstance(source, Path) else source
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadConfiguration(f"{name} is not YAML: {_one_line(error)}", remedy=_EXAMPLES) from None
    if len(documents) != 1:
        raise BadConfiguration(
            f"{name} must hold one job; it holds {len(documents)} documents",
            remedy="put each job into a file of its own",
        )
    return job_of(documents[0], name=name)


def job_of(document: Any, *, name: str = "the job") -> Job:
    """The job that a parsed document says. Raises BadConfiguration."""
    if not isinstance(document, dict):
        raise BadConfiguration(f"{name} is no job: it is not a mapping", remedy=_EXAMPLES)
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
    try:
        job = kind.model_validate(document)
    except ValidationError as error:
        raise _several([_problem(kind, one) for one in error.errors(include_url=False)], name) from None
    except RecursionError:
        raise BadConfiguration(f"{name} is nested too deep") from None
    if broken := violations(job):
        raise _several([str(violation) for violation in broken], name)
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


def _several(lines: list[str], name: str) -> BadConfiguration:
    """One error that tells all problems."""
    lines = list(dict.fromkeys(lines))
    if len(lines) == 1:
        field, _, message = lines[0].partition(": ")
        return BadConfiguration(message, field=field)
    return BadConfiguration("\n  ".join([f"{name} has {len(lines)} problems:", *lines]))


def _problem(kind: type[ApiModel], error: Any) -> str:
    """One error of pydantic's, for people."""
    location = [
        part for part in error["loc"] if not (isinstance(part, str) and part.startswith(("constrained-", "function-")))
    ]
    path = _path(location)
    given = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            known = _fields_at(kind, location[:-1])
            close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(sorted(known))}"
            return f"{path}: unknown field; {hint}"
        case "missing":
            return f"{path}: is required"
        case "string_type" if isinstance(given, int | float) and not isinstance(given, bool):
            return f'{path}: must be text; write it in quotes: "{given}"'
        case "string_pattern_mismatch":
            return f"{path}: {given!r} does not match {error['ctx']['pattern']}"
        case "literal_error":
            close = difflib.get_close_matches(str(given), _choices(error), n=1, cutoff=0.6)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            return f"{path}: {given!r} must be {error['ctx']['expected']}{hint}"
        case _:
            return f"{path}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _choices(error: Any) -> list[str]:
    return [part.strip(" '") for part in str(error["ctx"]["expected"]).replace(" or ", ",").split(",")]


def _path(location: list[Any]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text or "the job"


def _fields_at(kind: type[BaseModel], location: list[Any]) -> list[str]:
    """The names of the fields of the object at `location`."""
    model: type[BaseModel] = kind
    for part in location:
        if isinstance(part, int):
            continue
        info = next((info for name, info in model.model_fields.items() if part in (info.alias, name)), None)
        inner = None if info is None else _model_in(info.annotation)
        if inner is None:
            return []
        model = inner
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
