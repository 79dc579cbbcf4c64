"""Which results a person means: a job's name, a prefix below a store, or an address."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from frazil_cli.preflight import expected_outputs
from frazil_jobs.api import naming
from frazil_jobs.base.exits import BadConfiguration, TryAgain
from frazil_jobs.outputs.manifest import Manifest, read_any_manifest
from frazil_jobs.outputs.training_manifest import TrainingManifest
from frazil_jobs.stores import ObjectStore, StoreConfig

_HEX = "0123456789abcdef"
_UID = re.compile(r"[0-9a-f]{8}")


class NoSuchJob(BadConfiguration):
    """The store has no results of that name."""


@dataclass(frozen=True)
class Found:
    """The results that are meant. `manifest` is None while the job is at work."""

    prefix: str
    manifest: Manifest | TrainingManifest | None
    others: tuple[str, ...] = ()
    """Other jobs of the same name."""


def split_address(what: str) -> tuple[str | None, str]:
    """The store's root and the prefix of an address (`s3://bucket/root/namespace/name-uid`, or a folder of results);
    None and `what` for a name or a prefix. Raises BadConfiguration."""
    if "://" not in what:
        folder = Path(what).expanduser()
        if "/" not in what.strip("/") or not (folder / naming.MANIFEST_KEY).is_file():
            return None, what
        what = folder.absolute().as_uri()
    scheme, _, rest = what.partition("://")
    parts = rest.rstrip("/").split("/")
    if len(parts) < 3:
        raise BadConfiguration(
            f"{what} names no results", remedy="name s3://bucket/namespace/name-uid, with what is before it"
        )
    return f"{scheme}://{'/'.join(parts[:-2])}", "/".join(parts[-2:])


def locate(store: ObjectStore, config: StoreConfig, what: str, *, namespace: str) -> Found:
    """The results of the job that `what` names. Raises NoSuchJob when there are none, TryAgain when it's unsure."""
    prefix = what.strip("/")
    if "/" in prefix:
        manifest = manifest_at(store, prefix)
        if manifest is not None or next(iter(store.list(f"{prefix}/")), None) is not None:
            return Found(prefix, manifest)
    stem = f"{namespace}/{prefix}-"
    prefixes = [f"{stem}{uid}" for uid in sorted(uids(store, config, stem))]
    if not prefixes:
        raise NoSuchJob(
            f"there is no job {what!r} of the namespace {namespace!r} in {store.where}",
            remedy="check the name, --namespace and --store; a job with spec.output.prefix is called PREFIX/NAME",
        )
    found = [
        Found(prefix, manifest_at(store, prefix), tuple(other for other in prefixes if other != prefix))
        for prefix in prefixes
    ]
    finished = [one for one in found if one.manifest is not None]
    if finished:
        return max(finished, key=lambda one: one.manifest.created_at if one.manifest else "")
    if len(found) > 1:
        raise TryAgain(
            f"{len(found)} jobs are called {what!r} and none is finished: {', '.join(prefixes)}",
            remedy="name one of these prefixes",
        )
    return found[0]


def manifest_at(store: ObjectStore, prefix: str) -> Manifest | TrainingManifest | None:
    """The manifest of a prefix, if the job is done."""
    try:
        return read_any_manifest(store, prefix)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BadConfiguration(
            f"the manifest of {prefix} was not written by this version of Frazil: {str(error).splitlines()[0]}",
            remedy="fetch with the version that wrote it",
        ) from None


def uids(store: ObjectStore, config: StoreConfig, stem: str) -> set[str]:
    """The short uids of all jobs whose prefix is `stem` and a uid."""
    if config.is_folder:
        folder = config.folder / stem.rpartition("/")[0]
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        name = stem.rpartition("/")[2]
        return {rest for found in names if found.startswith(name) and _UID.fullmatch(rest := found.removeprefix(name))}
    return set(_search(store, stem, ""))


def _search(store: ObjectStore, stem: str, known: str) -> Iterator[str]:
    """Uids that begin with `known`, by the first object of each: a job may have a million, and S3 lists no folders.

    Where the first object tells one uid, the others differ from it in some digit: each such beginning is searched.
    """
    first = next(iter(store.list(f"{stem}{known}")), None)
    if first is None:
        return
    part = first.key.removeprefix(stem).partition("/")[0]
    if _UID.fullmatch(part):
        yield part
        for place in range(len(known), len(part)):
            for digit in _HEX:
                if digit != part[place]:
                    yield from _search(store, stem, part[:place] + digit)
    elif len(known) < 8:
        for digit in _HEX:
            yield from _search(store, stem, known + digit)


def how_far(store: ObjectStore, prefix: str) -> str:
    """`12 of 200 outputs are stored`, from the store alone."""
    total = expected_outputs(store, prefix)
    stored = sum(1 for _ in outputs_below(store, prefix))
    return f"{stored} of {total} outputs are stored" if total is not None else f"{stored} outputs are stored so far"


def outputs_below(store: ObjectStore, prefix: str) -> Iterator[str]:
    """Keys of outputs below a prefix, relative to it."""
    for folder in ("images", "videos", "sounds"):
        for info in store.list(f"{prefix}/{folder}/"):
            yield info.key.removeprefix(f"{prefix}/")


def say_others(found: Found) -> Sequence[str]:
    """A line when a name meant several."""
    if not found.others:
        return ()
    return (f"{found.prefix} is the newest of {1 + len(found.others)}; the others: {', '.join(found.others)}",)
