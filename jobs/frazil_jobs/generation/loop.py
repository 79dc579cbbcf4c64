"""The shard loop: every unfinished batch of every shard, one call of the pipeline each, until done or asked to stop.

Every rank of the replica runs this loop over the same batches. The leader (rank 0) writes and reports. Decoding is shared by
all ranks, or else the leader's beside the next batch, while the others stop at the latent. A prompt that can't be used costs
its own images: the loop goes on, and the shards that lack images are named at the end (exit code 65), since trying them
again can't help.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from frazil_jobs.base.exits import BadConfiguration, BadInput, FrazilError, TryAgain
from frazil_jobs.base.log import get_logger
from frazil_jobs.generation.batches import Batch
from frazil_jobs.generation.branches import BranchSplit
from frazil_jobs.generation.calls import CallPlan
from frazil_jobs.generation.decode.deferred import Deferral
from frazil_jobs.generation.decode.split import DecodeSplit
from frazil_jobs.generation.media import Kind
from frazil_jobs.generation.report import Report
from frazil_jobs.generation.steps import StepWatch
from frazil_jobs.generation.writer import Writer
from frazil_jobs.inputs.rows import PromptRow
from frazil_jobs.inputs.task import picture_path
from frazil_jobs.launching.stopping import StopFlag, agree_to_go_on

OUTPUT_OF: Final[Mapping[Kind, str]] = {Kind.PICTURE: "images", Kind.VIDEO: "frames", Kind.SOUND: "audios"}
"""The field of a pipeline's answer that holds what it made."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Leader:
    """What only rank 0 has."""

    writer: Writer
    report: Report


@dataclass(kw_only=True)
class Loop:
    """One rank's run over the batches."""

    pipe: Any
    call: CallPlan
    spool: Path
    flag: StopFlag
    group: Any | None
    """A process group of the replica that takes CPU tensors; None for one rank."""
    leader: Leader | None
    split: BranchSplit
    decode: DecodeSplit | None = None
    """The decode shared by all ranks, where it can be."""
    deferral: Deferral | None = None
    """Puts the leader's decode off, beside the next batch."""
    scheduler_replaced: bool = False
    compared: frozenset[int] = frozenset()
    """Prompts whose batches an approximate mode makes exactly as well, to measure its distance."""
    failures: dict[int, list[str]] = field(default_factory=dict)
    """Shard to what is wrong with prompts of it; the same on every rank."""
    watch: StepWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = StepWatch(self.pipe, self._on_step)

    def run(self, batches: Sequence[Batch]) -> dict[int, list[str]]:
        """Make `batches`. Returns, on the leader, what is wrong with prompts and outputs, by shard.

        Raises TryAgain when it was asked to stop before the last one. On the leader everything made is then in the spool.
        """
        for number, batch in enumerate(batches):
            if not agree_to_go_on(self.flag, ready=self._ready, group=self.group):
                self._finish()
                raise TryAgain(f"stopped in order, {len(batches) - number} of {len(batches)} batches are left")
            if self.leader is not None:
                self.leader.report.begin(batch)
            try:
                arrays = self.make(batch)
                facts = {} if self.split.course is None else self.split.course.facts
                exact = self.make(batch, exact=True) if self._compares(batch) else None
            except BadInput as error:
                self._leave_out(batch, error)
                continue
            if self.leader is not None:
                self.leader.writer.submit(batch, arrays, facts=facts, exact=exact)
        self._finish()
        return self.failures if self.leader is None else joined(self.failures, self.leader.writer.failures)

    def _compares(self, batch: Batch) -> bool:
        """Whether the batch just made is made once more, exactly. A function of the batch, so that all ranks do it."""
        approximate = self.split.course is not None and not self.split.course.reason
        return approximate and any(item.image_index == 0 and item.prompt_index in self.compared for item in batch.items)

    def make(self, batch: Batch, *, exact: bool = False) -> Any:
        """One call of the pipeline: on the leader arrays with the item as first dimension, made or to be made.

        `exact`: in mode Exact, whatever the job's.
        """
        pictures = self._pictures(batch.items[0].row, where=f"prompt {batch.items[0].prompt_index}")
        arguments = self.call.arguments(batch.items, pictures=pictures)
        if "output_type" in self.call.parameters:
            arguments["output_type"] = self._output_type()
        # One generator an image, on the CPU: its noise is the same on every device, in every batch.
        arguments["generator"] = [torch.Generator("cpu").manual_seed(item.seed) for item in batch.items]
        self.watch.reset()
        try:
            with self.split.call(arguments, batch_size=len(batch.items), exact=exact), self._deferring():
                answer = self.pipe(**arguments)
        except Exception as error:
            raise self._meaning(error, batch) from error
        if self.leader is None:
            return None
        return getattr(answer, OUTPUT_OF[self.call.kind])

    def _output_type(self) -> str:
        """Arrays on the leader. The others decode with it where decoding is shared, and stop at the latent elsewhere."""
        if self.leader is not None:
            return "np"
        return "pt" if self.decode is not None and self.decode.shared else "latent"

    def _deferring(self) -> AbstractContextManager[None]:
        return nullcontext() if self.deferral is None else self.deferral.active()

    def _pictures(self, row: PromptRow, *, where: str) -> dict[str, Image.Image]:
        """The row's pictures, upright, in RGB. Raises BadInput."""
        found = {}
        for name, file in row.images.items():
            try:
                with Image.open(picture_path(self.spool, file)) as picture:
                    found[name] = ImageOps.exif_transpose(picture).convert("RGB")
            except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise BadInput(f"its picture can't be read: {error}", field=f"{where}, images.{name}") from None
        return found

    def _meaning(self, error: Exception, batch: Batch) -> Exception:
        """What an error of the pipeline's call says about the job, or the error itself.

        Until the denoiser was called nothing depends on the rank and nothing was sent, so that every rank comes to the
        same conclusion.
        """
        if isinstance(error, FrazilError):
            return error
        if isinstance(error, torch.OutOfMemoryError):
            return FrazilError(
                f"the GPU has too little memory for a batch of {len(batch.items)}: {_first_line(error)}",
                field="spec.sampling.batchSize",
                remedy="use smaller batches, smaller images, bfloat16, or a larger GPU",
            )
        functions = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        in_scheduler = "retrieve_timesteps" in functions or any("diffusers/schedulers/" in file for file in files)
        if self.scheduler_replaced and in_scheduler and not self.watch.begun:
            return BadConfiguration(
                f"{type(self.pipe.scheduler).__name__} can't be used with {self.call.pipeline}: {_first_line(error)}",
                field="spec.sampling.scheduler",
                remedy="leave it out to use the model's own",
            )
        if isinstance(error, ValueError | TypeError) and not self.watch.begun:
            row = batch.items[0].row
            message = f"{self.call.pipeline} refuses the call: {_first_line(error)}"
            if row.extra or row.images:
                return BadInput(message, field=f"prompt {batch.items[0].prompt_index}")
            return BadConfiguration(message, field="spec.sampling")
        return error

    def _leave_out(self, batch: Batch, error: BadInput) -> None:
        if self.leader is not None:
            self.leader.report.left_out(batch)
        self.failures.setdefault(batch.shard, []).append(str(error))
        log.error("prompt left out", shard=batch.shard, batch=batch.number, reason=str(error))

    def _ready(self, seconds: float) -> bool:
        return self.leader is None or self.leader.writer.ready(seconds)

    def _finish(self) -> None:
        if self.leader is not None:
            self.leader.writer.finish()

    def _on_step(self, step: int, steps: int) -> None:
        if self.leader is not None:
            self.leader.report.step(step, steps)


def joined(*failures: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
    """Reasons by shard, each once."""
    reasons: dict[int, list[str]] = {}
    for found in failures:
        for shard, texts in found.items():
            known = reasons.setdefault(shard, [])
            known.extend(text for text in dict.fromkeys(texts) if text not in known)
    return reasons


def bad_shards(reasons: Mapping[int, Sequence[str]], *, shards: int) -> BadInput:
    """What to raise at the end when images of some shards could not be made."""
    lines = [f"shard {shard}: {text}" for shard in sorted(reasons) for text in reasons[shard]]
    return BadInput("; ".join([f"{len(reasons)} of {shards} shards lack images, all others are made", *lines]))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
