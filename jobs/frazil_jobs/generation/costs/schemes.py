"""What each published way of sharing one image among GPUs, and each of ours, computes and sends: counted, not timed.

MACs are those of the rank with most to do, from the first step to the last, for both branches of guidance; messages and
waiting are free, so that `bound` (one GPU's MACs over these) is what no implementation of the scheme can exceed on GPUs that
are full at one picture. Bytes are all that crosses between GPUs in one step of the kind that the scheme is about, summed
over the ranks, each message counted once a receiver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import diffusers
from torch import nn

from frazil_jobs.generation.costs.counting import Counted, Layer
from frazil_jobs.generation.costs.models import Model
from frazil_jobs.generation.costs.modes import shares_of

STEPS: Final = 50
BYTES: Final = 2
"""Of a number that is sent: half precision."""
BRANCHES: Final = 2
WARM_UP: Final = 12
"""Whole steps before Guided forecasts, of 50: the sensitive ones (24 %)."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A denoiser in two stages, by the names of its modules. What is in neither runs on both."""

    inner: tuple[str, ...]
    """Stage 0; of a U-Net the middle of the nest."""
    outer: tuple[str, ...]
    crossing: tuple[str, ...]
    """Modules whose output the other stage needs."""
    wrapped: tuple[str, ...]
    """Modules whose outputs the released Hybridiff and AsyncDiff broadcast."""


UNET_CUT: Final = Cut(
    inner=(
        "down_blocks.2",
        "mid_block",
        *(f"up_blocks.0.{kind}.{index}" for index in (0, 1) for kind in ("resnets", "attentions")),
    ),
    outer=(
        *("conv_in", "down_blocks.0", "down_blocks.1", "up_blocks.0.resnets.2", "up_blocks.0.attentions.2"),
        *("up_blocks.0.upsamplers.0", "up_blocks.1", "up_blocks.2", "conv_norm_out", "conv_out"),
    ),
    crossing=("down_blocks.1.downsamplers.0", "up_blocks.0.attentions.1"),
    wrapped=(),
)
"""SDXL's published cut, inside and outside; each skip is used by the stage that makes it."""


def cut_of(counted: Counted) -> Cut:
    """The published cut: inside and outside of a U-Net of SDXL's topology, halves of a transformer's blocks."""
    if "mid_block" in counted.inside:
        return Cut(
            inner=UNET_CUT.inner,
            outer=UNET_CUT.outer,
            crossing=UNET_CUT.crossing,
            wrapped=(*UNET_CUT.inner, *UNET_CUT.outer),
        )
    blocks = blocks_of(counted)
    half = len(blocks) // 2
    return Cut(
        inner=blocks[:half],
        outer=blocks[half:],
        crossing=(blocks[half - 1],),
        wrapped=(blocks[half - 1],),
    )


def blocks_of(counted: Counted) -> tuple[str, ...]:
    """The blocks of a transformer, in the order in which they ran."""
    names = [
        layer.name for layer in counted.layers if layer.name.count(".") == 1 and layer.name.split(".")[1].isdigit()
    ]
    return tuple(name for name in dict.fromkeys(names) if "block" in name)


@dataclass(frozen=True, kw_only=True)
class Size:
    """One model at one size."""

    model: Model
    height: int
    width: int
    counted: Counted
    """One branch's forward for one picture."""
    decode: int | None
    """MACs of the decode of one picture."""

    @property
    def branch(self) -> int:
        """MACs of one branch's forward."""
        return self.counted.macs

    @property
    def latent_bytes(self) -> int:
        """Of one branch's prediction."""
        return BYTES * self.model.latent_elements(self.height, self.width)

    @property
    def transformer(self) -> bool:
        """Whether the denoiser is a chain of blocks over tokens."""
        return "mid_block" not in self.counted.inside

    @property
    def cut(self) -> Cut:
        """The published one."""
        return cut_of(self.counted)

    def share(self, names: Sequence[str]) -> float:
        """The part of a forward that these modules compute."""
        return self.counted.macs_of(names) / self.branch

    def bytes_of(self, names: Sequence[str]) -> int:
        """Of what these modules return."""
        return BYTES * self.counted.returned(names)


def measured_size(model: Model, height: int, width: int) -> Size:
    """Count a model at a size in pixels. Raises CannotCount."""
    decode = model.decoded(height, width)
    return Size(
        model=model,
        height=height,
        width=width,
        counted=model.counted(height, width),
        decode=decode.macs if decode else None,
    )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scheme at one size."""

    scheme: str
    setting: str
    gpus: int
    macs: float
    """Of the busiest rank, all steps of one image."""
    bytes_per_step: float
    guidance: str
    exact: bool
    source: str
    note: str = ""
    bytes_per_image: float = field(default=0.0)


Scheme = Callable[[Size], Iterator[Row]]


def rows_of(size: Size) -> list[Row]:
    """Every scheme that fits the model, in the order of `SCHEMES`."""
    return [row for scheme in SCHEMES for row in scheme(size)]


def one_gpu(size: Size) -> Iterator[Row]:
    """The stock pipeline."""
    yield Row(
        scheme="one GPU",
        setting="stock",
        gpus=1,
        macs=BRANCHES * STEPS * size.branch,
        bytes_per_step=0,
        guidance="kept",
        exact=True,
        source="diffusers",
    )


def exact(size: Size) -> Iterator[Row]:
    """Condition split (ours; DistriFusion's and xDiT's default on two GPUs); with sequence parts for transformers."""
    yield Row(
        scheme="Exact",
        setting="conditioning 2",
        gpus=2,
        macs=STEPS * size.branch,
        bytes_per_step=BRANCHES * size.latent_bytes,
        bytes_per_image=STEPS * BRANCHES * size.latent_bytes,
        guidance="kept",
        exact=True,
        source="ours; the same as DistriFusion's and xDiT's split of guidance",
    )
    if has_sequence_plan(size.model):
        sent = BRANCHES * (_ulysses_bytes(size, 2) + 2 * size.latent_bytes)
        yield Row(
            scheme="Exact",
            setting="conditioning 2 × sequence 2",
            gpus=4,
            macs=STEPS * size.branch / 2,
            bytes_per_step=sent,
            bytes_per_image=STEPS * sent,
            guidance="kept",
            exact=True,
            source="ours with diffusers' context parallelism",
        )


def hybrid(size: Size) -> Iterator[Row]:
    """The published window, boundary tensors only: guidance is off in it."""
    cut = size.cut
    share = max(size.share(cut.inner), size.share(cut.outer)) + _shared(size)
    sent = size.bytes_of(cut.crossing) + size.latent_bytes
    for window in (5, 10, 20):
        yield Row(
            scheme="Hybrid",
            setting=f"k = {window}",
            gpus=2,
            macs=(STEPS - window * (1 - share)) * size.branch,
            bytes_per_step=sent,
            bytes_per_image=window * sent + (STEPS - window) * BRANCHES * size.latent_bytes,
            guidance=f"off in {window} of {STEPS} steps",
            exact=False,
            source="Hybridiff (arXiv 2602.21760) as the paper means it, ours",
        )


def guided(size: Size) -> Iterator[Row]:
    """Each rank its own branch; from step WARM_UP on every r-th step is whole, in the others the core is forecast."""
    share = shares_of(size.model.denoiser(), size.counted).reused
    for every in (2, 3, 4, 5):
        reusing = sum((step - WARM_UP) % every != 0 for step in range(WARM_UP, STEPS))
        forwards = STEPS - reusing * (1 - share)
        for gpus, scheme in ((2, "Guided"), (1, "the same reuse on one GPU")):
            sent = BRANCHES * size.latent_bytes if gpus == 2 else 0
            yield Row(
                scheme=scheme,
                setting=f"r = {every}",
                gpus=gpus,
                macs=(BRANCHES // gpus) * forwards * size.branch,
                bytes_per_step=sent,
                bytes_per_image=STEPS * sent,
                guidance="kept",
                exact=False,
                source="ours",
                note=f"{reusing} of {STEPS} steps forecast",
            )


def guided_stages(size: Size) -> Iterator[Row]:
    """Two stages a branch on four GPUs, guidance kept: boundaries one step old, every fourth step whole."""
    share = max(size.share(size.cut.inner), size.share(size.cut.outer)) + _shared(size)
    staged = sum((step - WARM_UP) % 4 != 0 for step in range(WARM_UP, STEPS))
    sent = BRANCHES * (size.bytes_of(size.cut.crossing) + 3 * size.latent_bytes)
    yield Row(
        scheme="Guided",
        setting="conditioning 2 × pipeline 2",
        gpus=4,
        macs=(STEPS - staged * (1 - share)) * size.branch,
        bytes_per_step=sent,
        bytes_per_image=staged * sent + (STEPS - staged) * 4 * size.latent_bytes,
        guidance="kept",
        exact=False,
        source="ours",
        note=f"{staged} of {STEPS} steps in stages",
    )


def hybridiff_released(size: Size) -> Iterator[Row]:
    """The released code: a first window step at full price, every module's output broadcast (SDXL)."""
    if size.transformer:
        return  # its boundary is never transferred: what would be counted isn't the scheme
    cut = size.cut
    share = max(size.share(cut.inner), size.share(cut.outer)) + _shared(size)
    sent = size.bytes_of(cut.wrapped) + size.latent_bytes
    yield Row(
        scheme="Hybridiff, released",
        setting="k = 5",
        gpus=2,
        macs=(STEPS - 4 * (1 - share)) * size.branch,
        bytes_per_step=sent,
        bytes_per_image=4 * sent + (STEPS - 4) * 3 * size.latent_bytes,
        guidance=f"off in 5 of {STEPS} steps",
        exact=False,
        source="its code: the first step of the window is whole",
    )


def asyncdiff(size: Size) -> Iterator[Row]:
    """Two stages, both branches batched, one step of warm-up (as in its README)."""
    cut = size.cut
    share = max(size.share(cut.inner), size.share(cut.outer)) + _shared(size)
    sent = BRANCHES * (size.bytes_of(cut.wrapped) + size.latent_bytes)
    yield Row(
        scheme="AsyncDiff",
        setting="N = 2, stride 1",
        gpus=2,
        macs=BRANCHES * (1 + (STEPS - 1) * share) * size.branch,
        bytes_per_step=sent,
        bytes_per_image=(STEPS - 1) * sent,
        guidance="kept",
        exact=False,
        source="AsyncDiff's code: every module's output is broadcast (U-Net), the boundary (transformer)",
    )


def distrifusion(size: Size) -> Iterator[Row]:
    """Patches of rows; keys, values, kernels' edges and group norms' sums of the step before. U-Nets only."""
    if size.transformer:
        return
    for gpus in (2, 4, 8):
        branches = 1 if gpus == 2 else BRANCHES  # its split of guidance is off on two GPUs, else there are no patches
        patches = gpus // branches
        fixed = _row_independent(size.counted)
        macs = fixed + (size.branch - fixed) / patches
        results = gpus * (gpus - 1) * size.latent_bytes * (BRANCHES // branches) // patches
        sent = BRANCHES * _patch_bytes(size.counted, patches) + results
        yield Row(
            scheme="DistriFusion",
            setting=f"{patches} patches" + (" of both branches" if branches == 1 else " a branch"),
            gpus=gpus,
            macs=(BRANCHES // branches) * STEPS * macs,
            bytes_per_step=sent,
            bytes_per_image=STEPS * sent,
            guidance="kept",
            exact=False,
            source="DistriFusion's code; stale after 5 synchronous steps that cost and send as much",
        )


def ulysses(size: Size) -> Iterator[Row]:
    """Sequence parallelism, as xDiT does it: over both branches on two GPUs, a branch each pair on four."""
    if not size.transformer:
        return
    for gpus, scheme, setting in (
        (2, "xDiT Ulysses", "2 parts of both branches"),
        (4, "xDiT CFG × Ulysses", "2 parts a branch"),
    ):
        sent = BRANCHES * (_ulysses_bytes(size, 2) + size.latent_bytes)
        yield Row(
            scheme=scheme,
            setting=setting,
            gpus=gpus,
            macs=BRANCHES * STEPS * size.branch / gpus,
            bytes_per_step=sent,
            bytes_per_image=STEPS * sent,
            guidance="kept",
            exact=True,
            source="xDiT; four all-to-alls a layer",
        )


def pipefusion(size: Size) -> Iterator[Row]:
    """Stages × patches, keys and values of other patches one step old, one step of warm-up in sequence."""
    if not size.transformer:
        return
    crossing = size.bytes_of(size.cut.crossing)
    for gpus, branches in ((2, 1), (4, BRANCHES)):
        stages = gpus // branches
        boundary = BRANCHES * (stages - 1) * crossing + BRANCHES * size.latent_bytes
        sent = boundary + (BRANCHES * size.latent_bytes if branches > 1 else 0)
        yield Row(
            scheme="PipeFusion" if branches == 1 else "xDiT CFG × PipeFusion",
            setting=f"{stages} stages" + (" of both branches" if branches == 1 else " a branch"),
            gpus=gpus,
            macs=(BRANCHES // branches) * (1 + (STEPS - 1) / stages) * size.branch,
            bytes_per_step=sent,
            bytes_per_image=STEPS * sent,
            guidance="kept",
            exact=False,
            source="PipeFusion in xDiT; bubbles at the first step are not counted",
        )


SCHEMES: Final[tuple[Scheme, ...]] = (
    *(one_gpu, exact, hybrid, guided, guided_stages),
    *(hybridiff_released, asyncdiff, distrifusion, ulysses, pipefusion),
)


def has_sequence_plan(model: Model) -> bool:
    """Whether diffusers can share this denoiser's tokens among ranks."""
    return getattr(getattr(diffusers, model.kind, None), "_cp_plan", None) is not None


def _shared(size: Size) -> float:
    """What both stages compute: embeddings of time and sizes, text and patches where they aren't in a stage."""
    return max(0.0, 1.0 - size.share(size.cut.inner) - size.share(size.cut.outer))


def _row_independent(counted: Counted) -> int:
    """MACs that don't fall with the rows of a patch: embeddings of time and sizes, keys and values of the text."""
    endings = ("time_embedding", "add_embedding", "time_emb_proj", "attn2.to_k", "attn2.to_v")
    return sum(macs for name, macs in counted.inside.items() if name.endswith(endings))


def _patch_bytes(counted: Counted, patches: int) -> int:
    """What the patches of one branch send in a step, all receivers together."""
    others = patches - 1
    keys_and_values = norms = edges = 0
    for layer in counted.layers:
        if layer.name.endswith(("attn1.to_k", "attn1.to_v")):
            keys_and_values += layer.elements * others
        elif isinstance(layer.module, nn.GroupNorm):
            norms += 2 * layer.module.num_groups * patches * others
        elif isinstance(layer.module, nn.Conv2d) and layer.module.kernel_size[0] > 1:
            edges += 2 * others * _row_elements(layer)
    return BYTES * (keys_and_values + norms + edges)


def _row_elements(layer: Layer) -> int:
    """Numbers in one row of what a kernel is given."""
    _, channels, _, width = layer.inputs[0]
    return int(channels * width)


def _ulysses_bytes(size: Size, parts: int) -> int:
    """Queries, keys, values and results of one branch, to heads and back: (parts - 1) / parts of each crosses."""
    endings = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
    inputs = sum(layer.elements for layer in size.counted.layers if layer.name.endswith(endings))
    results = inputs // 3
    return BYTES * (inputs + results) * (parts - 1) // parts
