"""The report of a TrainingJob: one self-contained page with the curves of the run, drawn as SVG.

It asks nothing of any server and runs no script: the content security policy allows none. What people typed is data: the
template escapes all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.outputs.charts import Chart, Curve, chart

_ENVIRONMENT: Final = Environment(
    loader=PackageLoader("frazil_jobs.outputs", "pages"),
    autoescape=select_autoescape(default_for_string=True, default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(job: TrainingJob, history: Mapping[str, Any], *, steps: int, schedule: str = "") -> str:
    """The page. `history` is that of `frazil_jobs.training.history`, as JSON; `schedule` a drawing of our own, as SVG."""
    points, measures = history["points"], history["measures"]
    last = points[-1] if points else None
    values = {
        "job": job,
        "steps": steps,
        "facts": _facts(job, last, measures),
        "settings": _settings(job),
        "charts": _charts(points, measures),
        "measures": measures[-_LISTED:],
        "plans": [{"step": plan.get("step"), "reason": plan.get("reason", "")} for plan in history["plans"]],
        "attempts": _attempts(points),
        "stages": sorted(history["group_sums"], key=int),
        "groups": _groups(history),
        "schedule": Markup(schedule),  # noqa: S704  made by frazil_jobs.training.planning.drawing, which escapes
    }
    return _ENVIRONMENT.get_template("training.html").render(values)


_LISTED: Final = 12


def _facts(job: TrainingJob, last: Mapping[str, Any] | None, measures: list[Mapping[str, Any]]) -> dict[str, str]:
    facts = {}
    if last is not None:
        facts["loss"] = f"{last['loss']:.4g}"
    if measures:
        best = min(measures, key=lambda one: one["loss"])
        facts["validation loss"] = f"{measures[-1]['loss']:.4g}"
        facts["best validation loss"] = f"{best['loss']:.4g} at step {best['step']}"
        if measures[-1]["accuracy"] is not None:
            facts["accuracy"] = f"{100 * measures[-1]['accuracy']:.1f} %"
    if last is not None:
        facts["throughput"] = f"{last['throughput']:.3g} samples/s"
        if job.spec.freezing.method != "None":
            facts["freeze ratio"] = f"{last['freeze_ratio']:.2f}"
    return facts


def _settings(job: TrainingJob) -> dict[str, str]:
    spec = job.spec
    grid = f"{spec.parallelism.pipeline} in the pipeline × {spec.parallelism.data}"
    return {
        "task": spec.task,
        "model": spec.model.uri,
        "initial weights": spec.initial_weights,
        "data set": spec.dataset.uri,
        "batch": f"{spec.batch_size} samples, {spec.parallelism.microbatches} microbatches",
        "ranks": grid,
        "schedule": f"{spec.parallelism.schedule}, {spec.parallelism.partition}",
        "freezing": spec.freezing.method
        if spec.freezing.method != "Timely"
        else f"Timely, {spec.freezing.selection}, at most {spec.freezing.max_freeze_ratio}",
        "optimizer": f"{spec.optimizer.name}, {spec.optimizer.learning_rate}, {spec.optimizer.schedule}",
        "precision": spec.precision,
        "seed": str(spec.seed),
    }


def _charts(points: list[Mapping[str, Any]], measures: list[Mapping[str, Any]]) -> list[Chart]:
    found = [
        chart(
            "Loss",
            [
                Curve("training", [(one["step"], one["loss"]) for one in points], smooth=True),
                Curve("validation", [(one["step"], one["loss"]) for one in measures], marks=True),
            ],
        )
    ]
    if any(one["accuracy"] is not None for one in measures):
        curve = Curve("validation", [(one["step"], one["accuracy"]) for one in measures], marks=True)
        found.append(chart("Accuracy", [curve], least=0.0, most=1.0))
    found.append(chart("Throughput, samples/s", [Curve("", _of(points, "throughput"))], least=0.0))
    stages = max((len(one["freeze_ratios"]) for one in points), default=0)
    if any(one["freeze_ratio"] for one in points):
        curves = [
            Curve(
                f"stage {stage}",
                [(one["step"], one["freeze_ratios"][stage]) for one in points if stage < len(one["freeze_ratios"])],
            )
            for stage in range(stages)
        ]
        found.append(chart("Freeze ratio, by stage", [*curves, Curve("mean", _of(points, "freeze_ratio"))], least=0.0))
    if any(one["predicted_seconds"] for one in points):
        found.append(
            chart(
                "Pipeline batch, seconds",
                [
                    Curve("measured", _of(points, "measured_seconds")),
                    Curve("predicted", _of(points, "predicted_seconds")),
                ],
                least=0.0,
            )
        )
    found.append(chart("Learning rate", [Curve("", _of(points, "learning_rate"))], least=0.0))
    found.append(chart("Gradient norm", [Curve("", _of(points, "gradient_norm"), smooth=True)], least=0.0))
    return [one for one in found if one.curves]


def _of(points: list[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(one["step"], one[name]) for one in points if one[name] is not None]


def _groups(history: Mapping[str, Any]) -> dict[str, list[str]]:
    """Tensor group to its mean freeze ratio in each stage, as text; "" where the stage has no such tensor."""
    sums = {stage: history["group_sums"][stage] for stage in sorted(history["group_sums"], key=int)}
    return {
        group: [f"{of[group] / history['looks']:.2f}" if group in of else "" for of in sums.values()]
        for group in dict.fromkeys(group for of in sums.values() for group in of)
    }


def _attempts(points: list[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Attempt and the first step that it made, where there were several."""
    firsts: dict[int, int] = {}
    for one in points:
        firsts.setdefault(one["attempt"], one["step"] if firsts else 1)  # of many points the first may be left out
    return sorted(firsts.items()) if len(firsts) > 1 else []
