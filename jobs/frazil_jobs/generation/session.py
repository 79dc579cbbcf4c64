"""What one rank does from start to end: decide, meet the others, load, generate.

The order is the point: all that can be wrong with a job is found before the ranks meet, and the ranks meet before any of
them reads weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import diffusers
import torch
import torch.distributed as dist
import transformers

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.base.log import get_logger
from frazil_jobs.generation.branches import split_branches
from frazil_jobs.generation.compare import compared_prompts
from frazil_jobs.generation.decode.deferred import defer_decode
from frazil_jobs.generation.decode.split import split_decode
from frazil_jobs.generation.groups import RankGroups, join_groups, one_rank
from frazil_jobs.generation.guidance import FolderConfigs
from frazil_jobs.generation.load import dtype_of, load_pipeline
from frazil_jobs.generation.loop import Leader, Loop, bad_shards, joined
from frazil_jobs.generation.media import Kind
from frazil_jobs.generation.prepare import Prepared, fingerprint, prepare
from frazil_jobs.generation.report import Report
from frazil_jobs.generation.sequence import split_sequence
from frazil_jobs.generation.text import TextShare
from frazil_jobs.generation.writer import Form, Writer
from frazil_jobs.inputs.task import Task
from frazil_jobs.launching.cpu import use_cores
from frazil_jobs.launching.meeting import device_of, meet
from frazil_jobs.launching.settings import RankSettings
from frazil_jobs.launching.stopping import StopFlag
from frazil_jobs.outputs.spool import Spool

log = get_logger(__name__)


def run_rank(rank: RankSettings, flag: StopFlag) -> None:
    """Run one rank. Raises what the process ends with."""
    use_cores(rank.threads)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    task = Task.read(rank.spool)
    device = device_of(rank)
    prepared = prepare(task, ranks=rank.world)
    if rank.rank >= prepared.grid.world:
        log.info("this rank isn't needed", reason=prepared.guidance.reason)
        return
    spool = Spool(rank.spool, rank.spool_bytes) if rank.spool_bytes else Spool(rank.spool)
    stored = frozenset(task.stored) | spooled(spool)
    report = report_of(task, prepared, spool, stored) if rank.rank == 0 else None
    if prepared.mode.whole_because and report is not None:
        log.warning("all steps are whole", mode=prepared.mode.asked, reason=prepared.mode.whole_because)
    batches = prepared.unfinished(stored)
    failures = prepared.refused
    if batches:
        with meeting(prepared, rank, device, task) as groups:
            loop = make_loop(task, prepared, rank, flag, groups, spool, stored, report)
            failures = joined(failures, loop.run(batches))
    else:
        log.info("nothing to make: everything is stored")
    if failures and report is not None:
        raise bad_shards(failures, shards=len(task.shards))


def spooled(spool: Spool) -> frozenset[str]:
    """Keys that an earlier start left in the spool, without those that the uploader refused: they are made again."""
    refused = {refusal.id for refusal in spool.refused()}
    return frozenset(entry.key for entry in spool.entries() if entry.id not in refused)


def report_of(task: Task, prepared: Prepared, spool: Spool, stored: frozenset[str]) -> Report:
    """The progress of all shards, those without work too."""
    totals = {shard.index: len(shard.rows) * task.job.spec.images_per_prompt for shard in task.shards}
    return Report.of(spool.root, totals, prepared.batches, stored, failed=set(prepared.refused))


@contextmanager
def meeting(prepared: Prepared, rank: RankSettings, device: torch.device, task: Task) -> Iterator[RankGroups]:
    """The replica's process groups, for as long as the context lasts. No collective waits longer than the job allows.

    Raises BadConfiguration when the ranks don't hold the same task or software.
    """
    world = prepared.acting.world
    if world == 1:
        yield one_rank(device)
        return
    timeout = timedelta(seconds=task.job.spec.parallelism.timeout_seconds)
    meet(rank, device, world=world, timeout=timeout)
    groups = join_groups(prepared.acting, timeout=timeout, device=device, staged=prepared.mode.stages > 1)
    _compare(fingerprint(task), groups)
    yield groups
    dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone


def _compare(mine: str, groups: RankGroups) -> None:
    every: list[str] = [""] * groups.grid.world
    dist.all_gather_object(every, mine, group=groups.replica)
    different = [rank for rank, other in enumerate(every) if other != every[0]]
    if different:
        raise BadConfiguration(
            f"rank {', '.join(map(str, different))} has another task, or other versions of torch, diffusers or "
            "transformers, than rank 0",
            remedy="start all ranks from one image and one task",
        )


def make_loop(
    task: Task,
    prepared: Prepared,
    rank: RankSettings,
    flag: StopFlag,
    groups: RankGroups,
    spool: Spool,
    stored: frozenset[str],
    report: Report | None,
) -> Loop:
    """Load the weights, split the branches, and join it all up."""
    spec = task.job.spec
    pipe = load_pipeline(
        prepared.folder,
        prepared.pipeline,
        spec.model,
        device=groups.device,
        scheduler=prepared.scheduler,
        loras=task.loras,
    )
    split_sequence(pipe, groups)
    split = split_branches(pipe, groups, FolderConfigs.read(task.model), mode=prepared.mode)
    decode = split_decode(pipe, groups, wanted=rank.decode == "auto")
    text = TextShare(pipe, groups)
    log.info("beside the loop", decode=decode.said, text=text.reason or "each rank encodes its own branch")
    leader = None
    if report is not None:
        writer = Writer(
            spool=spool,
            form=form_of(task, prepared, rank, groups, pipe, decode=decode.said),
            stored=stored,
            on_spooled=report.spooled,
            stop=flag.asked,
        )
        leader = Leader(writer=writer, report=report)
    return Loop(
        pipe=pipe,
        call=prepared.call,
        spool=rank.spool,
        flag=flag,
        group=groups.replica,
        split=split,
        decode=decode,
        deferral=defer_decode(pipe, in_turn=decode.takes_all)
        if leader is not None and decodes_beside(rank, groups)
        else None,
        leader=leader,
        scheduler_replaced=prepared.scheduler is not None,
        compared=compared_prompts(task.prompts.count, wanted=spec.parallelism.compare_with_exact),
    )


def decodes_beside(rank: RankSettings, groups: RankGroups) -> bool:
    """Whether a decode may run beside the next batch: on a GPU, or where another thread finds a core at times.

    (One rank with a thread on each core has none to spare: two teams of threads would wait for each other.)
    """
    return groups.device.type == "cuda" or rank.threads == 1 or rank.local_ranks > 1


def form_of(task: Task, prepared: Prepared, rank: RankSettings, groups: RankGroups, pipe: Any, *, decode: str) -> Form:
    """How outputs are encoded, and what the manifest says of each."""
    spec, grid = task.job.spec, prepared.grid
    dtype = str(dtype_of(spec.model, groups.device)).removeprefix("torch.")
    return Form(
        kind=prepared.call.kind,
        format=spec.output.format,
        frames_per_second=prepared.call.frames_per_second,
        sampling_rate=sampling_rate_of(pipe) if prepared.call.kind is Kind.SOUND else 0,
        settings={
            "model": spec.model.uri,
            **({"revision": spec.model.revision} if spec.model.revision else {}),
            "pipeline": prepared.call.pipeline,
            "scheduler": type(pipe.scheduler).__name__ if getattr(pipe, "scheduler", None) else None,
            "dtype": dtype,
            **prepared.call.common,
            **({"loras": {lora.name: lora.scale for lora in task.loras}} if task.loras else {}),
        },
        facts={
            "mode": prepared.mode.runs,
            **({"all_whole_because": prepared.mode.whole_because} if prepared.mode.whole_because else {}),
            "ranks": str(grid.world),
            "grid": "x".join(str(degree) for degree in (grid.conditioning, grid.pipeline, grid.sequence)),
            "threads": str(rank.threads),
            "device": torch.cuda.get_device_name(groups.device) if groups.device.type == "cuda" else "cpu",
            "dtype": dtype,
            "decode": decode,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        },
    )


def sampling_rate_of(pipe: Any) -> int:
    """Samples a second of the sound that a pipeline makes, from the component that makes it."""
    for name in ("vocoder", "vae"):
        rate = getattr(getattr(getattr(pipe, name, None), "config", None), "sampling_rate", None)
        if rate is not None:
            return int(rate)
    raise BadConfiguration(f"{type(pipe).__name__} doesn't say its sampling rate", field="spec.model.uri")
