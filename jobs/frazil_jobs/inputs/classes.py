"""The classes that the installed diffusers has, known without importing it (that takes ten seconds and loads torch).

diffusers declares what it exports in one dictionary, `_import_structure`, in the source of its `__init__`; the names
are read from the syntax tree, in about 10 ms.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs.rows import nearest

_STRUCTURE = "_import_structure"


@dataclass(frozen=True)
class Classes:
    """Exported names of diffusers."""

    pipelines: frozenset[str]
    schedulers: frozenset[str]
    models: frozenset[str]
    all: frozenset[str]
    modules: frozenset[str]
    """Folders of `diffusers.pipelines`: a component of a model may name one of them as its library."""


@lru_cache(maxsize=1)
def installed() -> Classes | None:
    """What the installed diffusers exports; None where there is no diffusers, as in a slim fetch image."""
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None:
        return None
    return read_classes(Path(spec.origin))


def read_classes(source: Path) -> Classes:
    """What the diffusers whose `__init__.py` is `source` exports."""
    names: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        for submodule, values in _exports(node):
            names.setdefault(submodule, set()).update(values)
    folder = source.parent / "pipelines"
    modules = {entry.name for entry in (*folder.iterdir(), *(folder / "deprecated").glob("*/")) if entry.is_dir()}
    return Classes(
        pipelines=frozenset(name for name in names["pipelines"] if "Pipeline" in name and not name.endswith("Output")),
        schedulers=frozenset(name for name in names["schedulers"] if name.endswith("Scheduler")),
        models=frozenset(names["models"]),
        all=frozenset().union(*names.values()),
        modules=frozenset(modules),
    )


def _exports(node: ast.AST) -> list[tuple[str, list[str]]]:
    """The names that one statement adds: `_import_structure[…] = […]`, `.extend([…])`, `.append(…)` or the literal."""
    if isinstance(node, ast.Assign):
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Name) and target.id == _STRUCTURE and isinstance(value, ast.Dict):
            return [(_text(key), _texts(item)) for key, item in zip(value.keys, value.values, strict=True)]
        if isinstance(value, ast.List) and (submodule := _submodule(target)):
            return [(submodule, _texts(value))]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("extend", "append"):
        submodule = _submodule(node.func.value)
        if submodule:
            return [(submodule, [text for argument in node.args for text in _texts(argument)])]
    return []


def _submodule(node: ast.AST) -> str:
    is_structure = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == _STRUCTURE
    return _text(node.slice) if is_structure and isinstance(node, ast.Subscript) else ""


def _text(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _texts(node: ast.AST) -> list[str]:
    return [text for child in ast.walk(node) if (text := _text(child))]


def require_pipeline(name: str, *, field: str) -> None:
    """Raise BadConfiguration, with the nearest name, unless the installed diffusers has the pipeline `name`."""
    known = installed()
    if known is not None:
        _require(name, known.pipelines, kind="pipeline", field=field)


def require_scheduler(name: str, *, field: str = "spec.sampling.scheduler") -> None:
    """Raise BadConfiguration, with the nearest name, unless the installed diffusers has the scheduler `name`."""
    known = installed()
    if known is not None:
        _require(name, known.schedulers, kind="scheduler", field=field)


def _require(name: str, known: frozenset[str], *, kind: str, field: str) -> None:
    if name not in known:
        raise BadConfiguration(
            f"the installed diffusers has no {kind} {name!r}",
            field=field,
            remedy=nearest(name, sorted(known)) or f"name a {kind} class of diffusers",
        )
