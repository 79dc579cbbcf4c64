"""Reads a job file. Every error names its field and the way out; all errors of a file are told at once."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from frazil_jobs.api.base import API_VERSION
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.base.exits import BadConfiguration

KINDS: dict[str, type[BaseModel]] = {"GenerationJob": GenerationJob}


def load_job(source: Path | str) -> GenerationJob:
    """The job in a YAML file (a Path) or text (a str). Raises BadConfiguration."""
    name = str(source) if isinstance(source, Path) else "the job"
    try:
        text = source.read_text() if isinstance(source, Path) else source
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{name} can't be read: {error}", remedy="name a job file, such as job.yaml") from None
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise BadConfiguration(f"{name} is not YAML: {error}") from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise BadConfiguration(f"{name} must hold one job, not {len(documents)} documents")
    return job_of(documents[0])


def job_of(document: dict[str, Any]) -> GenerationJob:
    """The job that a parsed document says. Raises BadConfiguration."""
    if document.get("apiVersion") != API_VERSION:
        raise BadConfiguration(f"must be {API_VERSION}", field="apiVersion")
    if document.get("kind") not in KINDS:
        raise BadConfiguration(f"must be one of {', '.join(KINDS)}", field="kind")
    try:
        return GenerationJob.model_validate(document)
    except ValidationError as error:
        lines = [_line(problem) for problem in error.errors(include_url=False)]
        raise BadConfiguration("\n".join(lines)) from None


def _line(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    return f"{path}: {problem['msg']}"


__all__ = ["difflib", "job_of", "load_job"]
