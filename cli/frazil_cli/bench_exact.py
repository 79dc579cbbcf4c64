"""Measures the exact split of guidance on two ranks of this machine. `measure` starts them; each runs this module.

What is compared runs in the same two processes, in turn, in every round: the stock loop on rank 0 while rank 1 waits in
a blocking receive, the split loop on both, and the bare denoiser. The ratios are taken round by round, so that a slow
minute of the machine slows both sides; their medians are reported.
"""

from __future__ import annotations

import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frazil_cli import bench_ranks

if TYPE_CHECKING:
    import torch

    from frazil_jobs.generation.groups import RankGroups
    from frazil_jobs.generation.guidance import FolderConfigs

_FORWARDS = 5
"""Bare forwards a round; their median counts."""


@dataclass(frozen=True)
class Settings:
    """What to measure. `width` in channels, `batch` in pictures a call."""

    rounds: int
    steps: int
    width: int
    layers: int
    model: Path | None
    prompt: str
    batch: int
    device: str


def measure(settings: Settings) -> dict[str, Any]:
    """Start two ranks, wait for their figures, and return one object (the `--json` of `frazil bench exact`)."""
    document = {**asdict(settings), "model": str(settings.model) if settings.model else None}
    found: dict[str, Any] = bench_ranks.measure("frazil_cli.bench_exact", document)
    return found


# --- one rank -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Loop:
    """Seconds of one call: the whole, the loop (first denoiser entry to last exit), the denoiser's median."""

    whole: float
    loop: float
    forward: float
    latents: torch.Tensor


def _rank_main(workdir: Path, rank: int, core: int) -> None:
    with bench_ranks.joined(workdir, rank, core) as (document, groups, both_cores):
        settings = Settings(**document)
        bench = _Bench(settings, groups=groups, both_cores=both_cores)
        rows = [bench.round(number) for number in range(settings.rounds + 1)][1:]
        bench_ranks.leave_result(workdir, rank, lambda: bench.result(rows))


class _Bench:
    """One rank's pipeline and what it times in a round."""

    def __init__(self, settings: Settings, *, groups: RankGroups, both_cores: set[int]) -> None:
        import torch

        self.settings = settings
        self.groups = groups
        self.both_cores = both_cores
        self.rank, self.device = groups.rank, groups.device
        self.synchronize: Callable[[], None] = torch.cuda.synchronize if self.device.type == "cuda" else _nothing
        built = _built_in(settings) if settings.model is None else _from_folder(settings)
        self.pipe, self.arguments, self.configs, self.name = built
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.to(self.device)
        self.denoiser = getattr(self.pipe, "transformer", None) or self.pipe.unet
        self.branch, self.calls_per_step = self._first_branch()
        self.clock = bench_ranks.Clock(self.denoiser, self.synchronize)
        self.bytes_per_step = 0
        self.collectives_per_step = 0
        self.difference = 0.0

    def _first_branch(self) -> tuple[dict[str, Any], int]:
        """The denoiser's arguments for one branch of the first step, and how often the stock loop calls it a step."""
        from frazil_jobs.generation.arguments import Rows, conditions_in, cut, latent_of, named

        seen: list[dict[str, Any]] = []

        def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(named(module, args, kwargs))

        handle = self.denoiser.register_forward_pre_hook(note, with_kwargs=True)
        try:
            self.pipe(**{**self.arguments, "num_inference_steps": 2}, output_type="latent")
        finally:
            handle.remove()
        batch = self.settings.batch
        conditions = conditions_in(latent_of(seen[0], self.denoiser), batch=batch, module=self.denoiser)
        rows = Rows(start=0, batch=batch, total=conditions * batch)
        return cut(self.denoiser, seen[0], rows), 2 if conditions == 1 else 1

    def call(self, *, decode: bool = False) -> _Loop:
        """One call of the pipeline, from the same seeds each time."""
        import torch

        self.clock.reset()
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(self.settings.batch)]
        started = time.perf_counter()
        output = self.pipe(**self.arguments, generator=generators, output_type="pil" if decode else "latent")
        self.synchronize()
        ended = time.perf_counter()
        forwards = [left - entered for entered, left in zip(self.clock.entered, self.clock.left, strict=True)]
        return _Loop(
            whole=ended - started,
            loop=self.clock.left[-1] - self.clock.entered[0],
            forward=statistics.median(forwards),
            latents=torch.empty(0) if decode else output[0],
        )

    def round(self, number: int) -> dict[str, float]:
        """Every side once, in an order that turns from round to round."""
        import torch.distributed as dist

        sides: list[Callable[[], dict[str, float]]] = [self._stock, self._split, self._bare, self._two_threads]
        figures: dict[str, float] = {}
        for position in range(len(sides)):
            dist.barrier()
            figures |= sides[(position + number) % len(sides)]()
        return figures

    def _stock(self) -> dict[str, float]:
        """Rank 0 alone calls the stock pipeline; rank 1 waits in the next barrier."""
        if self.rank == 1:
            return {}
        timed = self.call()
        self.reference = timed.latents
        return {
            "stock_loop": timed.loop,
            "batch2": timed.forward * self.calls_per_step,
            "stock_whole": self.call(decode=True).whole,
        }

    def _split(self) -> dict[str, float]:
        """Both ranks call the pipeline, each evaluating its own branch; only the leader decodes."""
        from frazil_jobs.generation.branches import split_branches

        with split_branches(self.pipe, self.groups, self.configs) as split, bench_ranks.Audit() as audit:
            with split.call(self.arguments, batch_size=self.settings.batch):
                timed = self.call()
            steps = len(self.clock.entered)
            self.collectives_per_step, self.bytes_per_step = audit.count // steps, audit.sent // steps
            with split.call(self.arguments, batch_size=self.settings.batch):
                whole = self.call(decode=self.rank == 0).whole
        if self.rank == 0:
            distance = (timed.latents - self.reference).abs().max() / self.reference.abs().max()
            self.difference = max(self.difference, float(distance))
        return {"split_loop": timed.loop, "split_whole": whole}

    def _bare(self) -> dict[str, float]:
        """The denoiser alone: batch 1 on rank 0 with the other core idle, then a branch on both cores at once."""
        import torch
        import torch.distributed as dist

        alone = self._forward_seconds() if self.rank == 0 else 0.0
        dist.barrier()
        seconds = torch.tensor([self._forward_seconds()], dtype=torch.float64, device=self.device)
        dist.all_reduce(seconds, op=dist.ReduceOp.MAX)  # a split step waits for the slower of the two
        return {"branch_alone": alone, "branch_busy": float(seconds)}

    def _forward_seconds(self) -> float:
        seconds = []
        for _ in range(_FORWARDS):
            self.synchronize()
            started = time.perf_counter()
            self.denoiser(**self.branch)
            self.synchronize()
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    def _two_threads(self) -> dict[str, float]:
        """The honest other use of two cores: the stock loop on one rank with two threads. CPU only."""
        import torch

        if self.rank == 1 or self.device.type != "cpu":
            return {}
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.both_cores)
        torch.set_num_threads(2)
        try:
            return {"two_threads_loop": self.call().loop}
        finally:
            torch.set_num_threads(1)
            os.sched_setaffinity(0, mine)

    def result(self, rows: list[dict[str, float]]) -> dict[str, Any]:
        """One object from all rounds: medians of the ratios, round by round, with their spread."""
        rows_of = {
            "speedup": [row["stock_loop"] / row["split_loop"] for row in rows],
            "speedup_end_to_end": [row["stock_whole"] / row["split_whole"] for row in rows],
            "batch2_over_batch1": [row["batch2"] / row["branch_alone"] for row in rows],
            "bound": [row["batch2"] / row["branch_busy"] for row in rows],
        }
        rows_of["ratio_to_bound"] = [
            speedup / bound for speedup, bound in zip(rows_of["speedup"], rows_of["bound"], strict=True)
        ]
        if "two_threads_loop" in rows[0]:
            rows_of["speedup_two_threads"] = [row["stock_loop"] / row["two_threads_loop"] for row in rows]
        medians = {name: statistics.median(values) for name, values in rows_of.items()}
        branch_ms = 1000 * statistics.median(row["branch_busy"] for row in rows)
        return {
            **medians,
            "branch_ms": branch_ms,
            "bytes_per_step": self.bytes_per_step,
            "collectives_per_step": self.collectives_per_step,
            "max_relative_difference": self.difference,
            "denoiser": self.name,
            "device": str(self.device.type),
            "steps": self.settings.steps,
            "batch": self.settings.batch,
            "rounds": len(rows),
            "reading": _reading(branch_ms, medians),
            "spread": {name: [medians[name], min(values), max(values)] for name, values in rows_of.items()},
        }


def _diffusers() -> Any:
    """The package, whose classes carry no types."""
    return importlib.import_module("diffusers")


def _nothing() -> None:
    """What there is to wait for on a CPU."""


_Built = tuple[Any, dict[str, Any], "FolderConfigs", str]


def _built_in(settings: Settings) -> _Built:
    """A PixArt-class denoiser of random weights over 256 tokens, with a small decoder; text embeddings are given."""
    import torch

    from frazil_jobs.generation.guidance import FolderConfigs

    diffusers = _diffusers()
    torch.manual_seed(0)
    denoiser = diffusers.PixArtTransformer2DModel(
        sample_size=32,
        num_layers=settings.layers,
        patch_size=2,
        num_attention_heads=settings.width // 64,
        attention_head_dim=64,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=settings.width,
        caption_channels=64,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=False,
    ).eval()
    decoder = diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
    ).eval()
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False
    )
    pipe = diffusers.PixArtSigmaPipeline(
        tokenizer=None, text_encoder=None, vae=decoder, transformer=denoiser, scheduler=scheduler
    )
    text = torch.randn(2, settings.batch, 16, 64)
    mask = torch.ones(settings.batch, 16, dtype=torch.long)
    arguments = {
        "prompt_embeds": text[0],
        "prompt_attention_mask": mask,
        "negative_prompt": None,
        "negative_prompt_embeds": text[1],
        "negative_prompt_attention_mask": mask,
        "num_inference_steps": settings.steps,
        "guidance_scale": 4.5,
        "height": 64,
        "width": 64,
        "use_resolution_binning": False,
    }
    name = f"PixArt class, {settings.layers} blocks of {settings.width} channels, 256 tokens, random weights"
    return pipe, arguments, FolderConfigs(), name


def _from_folder(settings: Settings) -> _Built:
    """A person's own pipeline folder, in float32, with its own text encoders."""
    import inspect

    import torch

    from frazil_jobs.generation.guidance import FolderConfigs

    folder = Path(str(settings.model))
    pipe = _diffusers().DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    known = inspect.signature(type(pipe).__call__).parameters
    quirks = {"use_resolution_binning": False, "clean_caption": False}
    arguments = {
        "prompt": [settings.prompt] * settings.batch,
        "num_inference_steps": settings.steps,
        **{name: value for name, value in quirks.items() if name in known},
    }
    return pipe, arguments, FolderConfigs.read(folder), f"{type(pipe).__name__} of {folder}"


def _reading(branch_ms: float, medians: dict[str, float]) -> str:
    if branch_ms < 50:
        return f"a branch takes only {branch_ms:.0f} ms: messages weigh in; use a larger --width or --batch"
    if medians["batch2_over_batch1"] < 1.6:
        return "batch 2 is cheap here: this device is not full at batch 1, so a split has little to win"
    return "the split can win at most what batch 2 costs over batch 1"


if __name__ == "__main__":
    _rank_main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
