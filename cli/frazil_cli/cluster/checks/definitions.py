"""Whether the cluster knows Frazil's jobs, and knows them as this command does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from frazil_cli.cluster.observed import Finding, Observed, Unknown, condition, name_of
from frazil_jobs.api import crd as generator
from frazil_jobs.api.base import VERSION
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob

KINDS: Final = ("GenerationJob", "TrainingJob")
_SHOWN: Final = 3
_COMPARED: Final = ("type", "enum", "pattern", "minimum", "maximum", "maxLength", "maxItems", "default")


def there(observed: Observed) -> Finding:
    """No CRD."""
    missing = [kind for kind in KINDS if kind not in observed.served]
    if missing:
        details = []
        if not isinstance(observed.definitions, Unknown):
            details = [
                f"{name_of(one)}: {established.get('message', 'not established')}"
                for one in observed.definitions
                if (established := condition(one, "Established")).get("status") != "True"
            ]
        return Finding(
            "definitions",
            "wrong",
            f"the cluster does not serve {' and '.join(missing)}",
            "install the chart: helm install frazil charts/ -n frazil-system --create-namespace",
            tuple(details),
        )
    return Finding("definitions", "ok", f"{' and '.join(KINDS)} are served")


def current(observed: Observed) -> Finding:
    """An old CRD: a field that it doesn't have is dropped or refused."""
    if isinstance(observed.definitions, Unknown):
        return Finding("version", "unknown", observed.definitions.why)
    found = {one["spec"]["names"]["kind"]: one for one in observed.definitions}
    if not set(KINDS) <= set(found):
        return Finding("version", "unknown", "there is nothing to compare")
    missing, changed, extra = [], [], []
    for model in (GenerationJob, TrainingJob):
        kind = model.__name__
        ours, theirs = shape(generator.crd(model)), shape(found[kind])
        missing += [f"{kind}.{path}" for path in ours if path not in theirs]
        extra += [f"{kind}.{path}" for path in theirs if path not in ours]
        changed += [f"{kind}.{path}" for path in ours if path in theirs and ours[path] != theirs[path]]
    if missing or changed:
        said = [f"lack {_some(missing)}"] * bool(missing) + [f"differ in {_some(changed)}"] * bool(changed)
        return Finding(
            "version",
            "wrong",
            f"the definitions on the cluster {' and '.join(said)}",
            "upgrade the release: helm upgrade frazil charts/ (they are part of the chart)"
            if not extra
            else "the release and this command are of different versions: upgrade the older one",
        )
    if extra:
        return Finding("version", "ok", f"the definitions are newer than this command: they also have {_some(extra)}")
    return Finding("version", "ok", "the definitions are those of this version")


def shape(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Path of each field: all that decides whether a value is taken. Descriptions don't."""
    version = next((one for one in definition["spec"]["versions"] if one["name"] == VERSION), None)
    return dict(_fields(version["schema"]["openAPIV3Schema"], "")) if version else {}


def _fields(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    rules = sorted(str(rule["rule"]) for rule in schema.get("x-kubernetes-validations") or ())
    yield path, ({name: schema[name] for name in _COMPARED if name in schema}, rules)
    for name, inner in (schema.get("properties") or {}).items():
        if path or name not in ("apiVersion", "kind", "metadata"):
            yield from _fields(inner, f"{path}.{name}" if path else name)
    if isinstance(schema.get("items"), Mapping):
        yield from _fields(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from _fields(schema["additionalProperties"], f"{path}.*")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
