"""What a run says before and after: a few lines for people, one object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from frazil_cli.display import count, duration, rate_text
from frazil_cli.prepare import DEFAULT_STORE, Prepared
from frazil_jobs.api import naming
from frazil_jobs.stores import StoreConfig

if TYPE_CHECKING:
    from frazil_cli.components import AnyPrepared
    from frazil_cli.generationrun import Result


def opening(prepared: Prepared, store: StoreConfig) -> Sequence[str]:
    """What will run, in two or three lines."""
    layout = prepared.layout
    spec = prepared.job.spec
    device = "on GPUs" if layout.device == "cuda" else "on the CPU"
    replicas = f" × {layout.replicas} replicas" if layout.replicas > 1 else ""
    threads = f" of {count(layout.threads, 'thread')}" if layout.device == "cpu" else ""
    return [
        f"{prepared.job.metadata.name}: {count(prepared.images, 'image')} of {count(prepared.pin.count, 'prompt')}, "
        f"{spec.parallelism.mode}, {count(layout.ranks, 'rank')}{threads}{replicas} {device}",
        f"into {place(store, prepared.prefix)}",
        *layout.notes,
    ]


def place(store: StoreConfig, prefix: str) -> str:
    """A prefix of a store, as a person would open it."""
    if store.is_folder:
        return relative(store.folder / prefix)
    return f"s3://{'/'.join(part for part in (store.bucket, store.prefix, prefix) if part)}"


def relative(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def as_object(prepared: Prepared, store: StoreConfig, result: Result) -> dict[str, Any]:
    """The object of `frazil run --json`."""
    layout = prepared.layout
    base = place(store, prepared.prefix)
    rate = result.generated / result.generating_seconds if result.generating_seconds else 0.0
    return {
        "name": prepared.job.metadata.name,
        "uid": prepared.uid,
        "store": store.where,
        "prefix": prepared.prefix,
        "results": base,
        "manifest": f"{base}/{naming.MANIFEST_KEY}",
        "gallery": f"{base}/{naming.GALLERY_KEY}" if prepared.job.spec.output.gallery else None,
        "images": result.images,
        "generated": result.generated,
        "alreadyStored": result.images - result.generated,
        "seconds": round(result.seconds, 3),
        "generatingSeconds": round(result.generating_seconds, 3),
        "imagesPerSecond": round(rate, 4),
        "mode": prepared.job.spec.parallelism.mode,
        "device": layout.device,
        "ranks": layout.ranks,
        "replicas": layout.replicas,
        "threads": layout.threads,
        "next": next_command(prepared, store),
    }


def next_command(prepared: AnyPrepared, store: StoreConfig) -> str:
    """How to take the results elsewhere."""
    where = relative(store.folder) if store.is_folder else store.uri
    folder = prepared.job.spec.output.prefix
    parts = ["frazil fetch", f"{folder}/{prepared.job.metadata.name}" if folder else prepared.job.metadata.name]
    if prepared.job.metadata.namespace != "default":
        parts += ["--namespace", prepared.job.metadata.namespace]
    if where != DEFAULT_STORE:
        parts += ["--store", where]
    if store.endpoint and not store.is_folder:
        parts += ["--endpoint", store.endpoint]
    return " ".join([*parts, "--to", "DIR"])


def print_result(found: dict[str, Any]) -> None:
    """The end of a run, for people, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    made = f"{found['generated']} made now" if found["alreadyStored"] else "all made now"
    if not found["generated"]:
        made = "all stored before"
    pace = f", {rate_text(found['imagesPerSecond'])}" if found["generated"] else ""
    console.print(
        Text.assemble(
            ("✓ ", "bold green"),
            (count(found["images"], "image"), "bold"),
            f" ({made}) in {duration(found['seconds'])}{pace}",
        )
    )
    for label, value in (("gallery", found["gallery"]), ("manifest", found["manifest"]), ("next", found["next"])):
        if value:
            console.print(Text.assemble((f"  {label:<9}", "dim"), value))
