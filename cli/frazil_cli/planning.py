"""What `frazil plan` finds out: one object, and every problem with the job, before a device is taken.

The fields of the object are documented in `plan.command`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frazil_cli import modelfacts
from frazil_cli.machine import Degrees, Layout, Machine, this_machine
from frazil_cli.prepare import Wishes, check_names, environment_for, layout_for, load_generation_job, local_model
from frazil_cli.report import relative
from frazil_jobs.api import naming
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.base.exits import FrazilError
from frazil_jobs.generation.rank_grid import RankGrid
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.folder import ModelFolder
from frazil_jobs.inputs.prompts import inspect_prompts, iter_rows
from frazil_jobs.inputs.rows import PromptsPin
from frazil_jobs.stores import StoreConfig

if TYPE_CHECKING:
    from frazil_cli.modelfacts import Checked
    from frazil_jobs.generation.guidance import Guidance
    from frazil_jobs.generation.modes.asked import AskedMode

BRANCHES = ("prompt", "negative prompt")
"""What each branch of guidance sees. (One-call pipelines stack the negative first: the order within is the pipeline's.)"""
_ROWS_LOOKED_AT = 10_000
EXACT = {
    True: "nothing: each branch is evaluated as it would be alone, bit for bit; against the pipeline's own batched call the "
    "last bits can differ (1e-5 relative in float32)",
    False: "nothing: one rank runs the pipeline as it is",
}
MEASURED = "t(both branches in one batch) / t(one branch), of this denoiser on this device"
"""What stands for 2 in the bound of a split of guidance, where a device isn't full at one picture."""
SEQUENCE = "; sequence parts agree to 1e-5 relative in float32"
APPROXIMATE = {
    "Hybrid": "guidance is off in a window of {window} % of the steps, and activations are one step old there",
    "Guided": "guidance is kept; {how} between full steps, to keep {budget} dB PSNR to Exact",
}
HOW = {False: "deep features are forecast", True: "stages work on activations of the steps before"}
"""What mode Guided does without stages and with them."""


@dataclass
class Plan:
    """The object, and what is wrong."""

    document: dict[str, Any] = field(default_factory=dict)
    problems: list[FrazilError] = field(default_factory=list)
    job: GenerationJob | None = None
    pin: PromptsPin | None = None

    def attempt(self, call: Callable[[], Any]) -> Any:
        """What `call` returns; None, and one more problem, when it raises."""
        try:
            return call()
        except FrazilError as error:
            self.problems.append(error)
            return None


def make_plan(
    file: Path, *, store: StoreConfig | None, wishes: Wishes, quick: bool, machine: Machine | None = None
) -> Plan:
    """Plan a job. Raises FrazilError only for a file that holds no job."""
    job = load_generation_job(file)
    plan = Plan(job=job)
    found = machine or this_machine()
    access = Access.from_env(environment_for(store))
    base_dir = file.absolute().parent
    plan.attempt(lambda: check_names(job))
    pin = plan.pin = plan.attempt(lambda: inspect_prompts(job.spec.prompts, base_dir=base_dir, access=access))
    layout = plan.attempt(lambda: layout_for(job, machine=found, shards=pin.shards if pin else 1, wishes=wishes))
    model = plan.attempt(lambda: local_model(job, base_dir=base_dir, access=access))
    guidance = mode = modes = None
    if model is not None and not quick:
        negatives = pin is not None and _any_negative(job, pin, base_dir, access)
        degrees = layout.degrees if layout else _asked(job)
        checked = modelfacts.check(
            _with_degrees(job, degrees),
            folder=model.path,
            pipeline=model.pipeline,
            ranks=degrees.ranks,
            negative_prompts=negatives,
        )
        guidance, mode = checked.guidance, checked.mode
        modes = _modes(job, layout, model, checked)
        known = {str(problem) for problem in plan.problems}
        plan.problems += [problem for problem in checked.problems if str(problem) not in known]
    plan.document = {
        "name": job.metadata.name,
        "namespace": job.metadata.namespace,
        "kind": job.kind,
        "mode": job.spec.parallelism.mode,
        "outputs": _outputs(job, pin, model),
        "model": {
            "uri": job.spec.model.uri,
            "pipeline": model.pipeline if model else job.spec.model.pipeline,
            "bytes": model.size if model else None,
            "dtype": dtype(job, layout),
        },
        "guidance": {"style": guidance.style, "branches": guidance.conditions, "reason": guidance.reason}
        if guidance
        else None,
        "here": _here(layout) if layout else None,
        "cluster": _cluster(job, pin),
        "speedUp": _speed_up(job, guidance, mode, model, modes),
        "modes": modes,
        "message": _message(job, layout, guidance, model),
        "changes": changes(job, layout.degrees if layout else _asked(job), mode),
    }
    return plan


def document_of(plan: Plan) -> dict[str, Any]:
    """The whole object: what was found out, and every problem."""
    problems = [
        {"field": problem.field, "message": problem.message, "remedy": problem.remedy, "exitCode": problem.exit_code}
        for problem in plan.problems
    ]
    return {**plan.document, "problems": problems}


def _any_negative(job: GenerationJob, pin: PromptsPin, base_dir: Path, access: Access) -> bool:
    rows = iter_rows(job.spec.prompts, pin, base_dir=base_dir, access=access)
    return any(row.negative_prompt is not None for _, row in islice(rows, _ROWS_LOOKED_AT))


def _asked(job: GenerationJob) -> Degrees:
    asked = job.spec.parallelism
    return Degrees(asked.conditioning, asked.pipeline, asked.sequence)


def _with_degrees(job: GenerationJob, degrees: Degrees) -> GenerationJob:
    parallelism = job.spec.parallelism.model_copy(
        update={"conditioning": degrees.conditioning, "pipeline": degrees.pipeline, "sequence": degrees.sequence}
    )
    return job.model_copy(update={"spec": job.spec.model_copy(update={"parallelism": parallelism})})


def _outputs(job: GenerationJob, pin: PromptsPin | None, model: ModelFolder | None) -> dict[str, Any] | None:
    if pin is None:
        return None
    uid = naming.local_uid(job, pin.sha256, model_fingerprint=model.fingerprint if model else None)
    each = job.spec.images_per_prompt
    output_format = job.spec.output.format
    return {
        "count": pin.count * each,
        "prompts": pin.count,
        "perPrompt": each,
        "format": output_format,
        "shards": pin.shards,
        "perShard": pin.per_shard,
        "promptsSha256": pin.sha256,
        "uid": uid,
        "prefix": naming.job_prefix(job, uid),
        "firstKey": naming.image_key(0, 0, output_format),
        "lastKey": naming.image_key(pin.count - 1, each - 1, output_format),
        "firstSeed": job.spec.sampling.seed,
    }


def _here(layout: Layout) -> dict[str, Any]:
    degrees = layout.degrees
    grid = RankGrid(conditioning=degrees.conditioning, pipeline=degrees.pipeline, sequence=degrees.sequence)
    return {
        "device": layout.device,
        "ranks": layout.ranks,
        "replicas": layout.replicas,
        "threads": layout.threads,
        "degrees": {"conditioning": degrees.conditioning, "pipeline": degrees.pipeline, "sequence": degrees.sequence},
        "grid": [{"rank": rank, **grid.place_of(rank)._asdict()} for rank in range(grid.world)],
        "notes": list(layout.notes),
    }


def _cluster(job: GenerationJob, pin: PromptsPin | None) -> dict[str, Any]:
    """What the operator will make of it, in words; `--cluster` shows the objects."""
    workers = job.spec.workers
    replicas = min(workers.replicas, pin.shards) if pin else workers.replicas
    objects = ["v1 ConfigMap (the job as it was taken)"]
    if workers.nodes_per_replica > 1:
        objects += [
            "v1 Service (headless)",
            "batch/v1 Jobs (indexed, one index a node; one a shard, as many as replicas)",
        ]
        if job.spec.scheduling.gang != "None":
            objects.append("a PodGroup a Job, of the gang scheduler that the cluster serves")
    else:
        objects.append("batch/v1 Job (indexed, one index a shard)")
    return {
        "replicas": replicas,
        "podsAtOnce": replicas * workers.nodes_per_replica,
        "gpusAtOnce": replicas * workers.nodes_per_replica * workers.gpus_per_node,
        "indices": pin.shards if pin else None,
        "objects": objects,
    }


def _speed_up(
    job: GenerationJob,
    guidance: Guidance | None,
    mode: AskedMode | None,
    model: ModelFolder | None,
    modes: dict[str, Any] | None,
) -> dict[str, Any]:
    """The bound is the job's own row of `modes`; where nothing is counted, that of a job whose steps are all whole."""
    asked = job.spec.parallelism
    command = "frazil bench exact" + (f" --model {relative(model.path)}" if model else "")
    own = [row["bound"] for row in modes["rows"] if row["own"]] if modes else []
    bound: float | None = None
    if own:
        bound = own[0]
    elif asked.mode == "Exact" or (mode is not None and mode.runs == "Exact"):
        branches = guidance.conditions if guidance else asked.conditioning
        bound = branches / -(-branches // asked.conditioning) * asked.sequence
    return {"bound": bound, "measuredBound": MEASURED if asked.conditioning == 2 else None, "measure": command}


def _modes(job: GenerationJob, layout: Layout | None, model: ModelFolder, checked: Checked) -> dict[str, Any] | None:
    """What every mode would cost and change on the job's grid, counted; the job's own is one of them."""
    if checked.guidance is None or checked.guidance.conditions != 2 or checked.call is None:
        return None
    spec = job.spec
    found = modelfacts.mode_costs(job, folder=model.path, checked=checked)
    if isinstance(found, str):
        return {"rows": [], "notCounted": found}
    each = modelfacts.BYTES[dtype(job, layout)] * spec.sampling.batch_size
    rows = [
        {
            "mode": asked.mode,
            "own": asked == spec.parallelism,
            "gpus": cost.gpus,
            "degrees": asked.model_dump(include={"conditioning", "pipeline", "sequence"}),
            "bound": cost.bound,
            "approximatedSteps": cost.approximated,
            "bytesPerStep": None if cost.elements_per_step is None else cost.elements_per_step * each,
            "changes": cost.changes,
        }
        for asked, cost in found
    ]
    return {"rows": rows, "notCounted": None}


def _message(
    job: GenerationJob, layout: Layout | None, guidance: Any, model: ModelFolder | None
) -> dict[str, Any] | None:
    degrees = layout.degrees if layout else _asked(job)
    if degrees.conditioning < 2 or (guidance is not None and not guidance.guided):
        return None
    elements = modelfacts.prediction_elements(model.path, job.spec.sampling) if model else None
    each = modelfacts.BYTES[dtype(job, layout)]
    size = elements * each * job.spec.sampling.batch_size if elements else None
    return {
        "bytesPerStep": size,
        "perStep": 1,
        "steps": job.spec.sampling.steps,
        "what": "one all-gather of the predicted noise, sent by each rank",
    }


def dtype(job: GenerationJob, layout: Layout | None) -> str:
    """The number type of the weights here; Auto resolved."""
    if job.spec.model.dtype != "Auto":
        return str(job.spec.model.dtype)
    return "bfloat16" if layout is not None and layout.device == "cuda" else "float32"


def changes(job: GenerationJob, degrees: Degrees, mode: AskedMode | None = None) -> str:
    """What may change in the images. `mode`: as it will run, where the model's files were looked at."""
    asked = job.spec.parallelism
    if mode is not None and mode.whole_because:
        return f"nothing, though mode {mode.asked} is asked for: every step is whole, because {mode.whole_because}"
    if asked.mode == "Exact":
        return EXACT[degrees.ranks > 1] + (SEQUENCE if degrees.sequence > 1 else "")
    switching = asked.switching
    said = APPROXIMATE[asked.mode].format(
        window=switching.window_percent, budget=switching.budget, how=HOW[asked.pipeline > 1]
    )
    compared = asked.compare_with_exact
    how = f"; {compared} of the job's own prompts are made exactly as well, to state the distance" if compared else ""
    return said + how
