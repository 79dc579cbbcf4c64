"""What a run of a TrainingJob says before and after: a few lines for people, one object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from frazil_cli.display import duration
from frazil_cli.preparetraining import PreparedTraining
from frazil_cli.report import next_command, place
from frazil_jobs.api import naming
from frazil_jobs.stores import StoreConfig

if TYPE_CHECKING:
    from frazil_cli.trainingrun import TrainingResult


def opening(prepared: PreparedTraining, store: StoreConfig) -> Sequence[str]:
    """What will run, in two or three lines."""
    spec, layout = prepared.job.spec, prepared.layout
    grid = f"{spec.parallelism.pipeline} pipeline ranks" if spec.parallelism.pipeline > 1 else "1 rank"
    copies = f" × {spec.parallelism.data} replicas" if spec.parallelism.data > 1 else ""
    where = "on GPUs" if layout.device == "cuda" else f"on the CPU, {layout.threads} threads each"
    freezing = "" if spec.freezing.method == "None" else f", freezing {spec.freezing.method}"
    return [
        f"{prepared.job.metadata.name}: {spec.task}, {spec.steps} steps of {spec.batch_size} samples, "
        f"{grid}{copies} {where}, {spec.parallelism.schedule}{freezing}",
        f"into {place(store, prepared.prefix)}",
        *layout.notes,
    ]


def as_object(prepared: PreparedTraining, store: StoreConfig, result: TrainingResult) -> dict[str, Any]:
    """The object of `frazil run --json`."""
    base = place(store, prepared.prefix)
    progress, spec = result.progress, prepared.job.spec
    frozen = progress.freeze_ratio if progress and spec.freezing.method != "None" else None
    return {
        "name": prepared.job.metadata.name,
        "uid": prepared.uid,
        "store": store.where,
        "prefix": prepared.prefix,
        "results": base,
        "model": f"{base}/model",
        "manifest": f"{base}/{naming.MANIFEST_KEY}",
        "report": f"{base}/{naming.GALLERY_KEY}" if spec.output.report else None,
        "steps": result.steps,
        "stepsBefore": result.before,
        "attempt": result.attempt,
        "loss": progress.loss if progress else None,
        "validationLoss": progress.validation_loss if progress else None,
        "accuracy": progress.accuracy if progress else None,
        "samplesPerSecond": progress.throughput if progress else None,
        "freezeRatio": frozen,
        "seconds": round(result.seconds, 3),
        "device": prepared.layout.device,
        "ranks": prepared.layout.ranks,
        "threads": prepared.layout.threads,
        "next": next_command(prepared, store),
    }


def print_result(found: dict[str, Any]) -> None:
    """The end of a run, for people, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    made = found["steps"] - found["stepsBefore"]
    how = "all made before" if not made else f"{made} made now" if found["stepsBefore"] else "all made now"
    facts = [f"loss {found['loss']:.4g}"] if found["loss"] is not None else []
    if found["validationLoss"] is not None:
        facts.append(f"validation {found['validationLoss']:.4g}")
    if found["accuracy"] is not None:
        facts.append(f"accuracy {100 * found['accuracy']:.1f} %")
    console.print(
        Text.assemble(
            ("✓ ", "bold green"),
            (f"{found['steps']} steps", "bold"),
            f" ({how}) in {duration(found['seconds'])}" + "".join(f", {fact}" for fact in facts),
        )
    )
    for label in ("model", "report", "manifest", "next"):
        if found[label]:
            console.print(Text.assemble((f"  {label:<9}", "dim"), found[label]))
