"""A denoiser in stages: how it is cut, that the parts make the whole, and what crosses their borders at real sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import tiny_pipelines
import torch
from branch_cases import Case, build, call_of
from hypothesis import given
from hypothesis import strategies as some

from frazil_jobs.generation.modes.denoiser import Denoiser
from frazil_jobs.generation.modes.forecast import Kept, StaleTensor
from frazil_jobs.generation.stages.costs import boundary_bytes, parameter_costs, unit_costs
from frazil_jobs.generation.stages.cut import Stages, cut
from frazil_jobs.generation.stages.units import Anatomy, Uncuttable, Unit, anatomy_of

MEGABYTE = 1_000_000


def chain(length: int) -> Anatomy:
    return Anatomy(units=tuple(Unit(str(index), torch.nn.Identity()) for index in range(length)))


def arguments_of(name: str) -> tuple[Any, dict[str, Any]]:
    """The denoiser of a tiny pipeline and the arguments of its first call."""
    pipe = build(Case(pipeline=name))
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    found: list[Any] = []
    handle = denoiser.register_forward_pre_hook(lambda _m, a, k: found.append((a, k)), with_kwargs=True)
    pipe(**{**call_of(Case(pipeline=name)), "num_inference_steps": 1})
    handle.remove()
    args, kwargs = found[0]
    names = {"sdxl": ("sample", "timestep")}.get(name, ("hidden_states",))
    return denoiser, {**dict(zip(names, args, strict=False)), **kwargs}


@given(some.lists(some.integers(0, 9), min_size=2, max_size=8), some.integers(2, 4))
def test_the_largest_stage_of_a_chain_is_as_small_as_brute_force_can_make_it(costs: list[int], count: int) -> None:
    if count > len(costs):
        with pytest.raises(Uncuttable):
            cut(chain(len(costs)), costs, count)
        return
    stages = cut(chain(len(costs)), costs, count)
    assert sorted(set(stages.owners)) == list(range(count))
    assert list(stages.owners) == sorted(stages.owners)
    largest = max(sum(costs[unit] for unit in stages.own(stage)) for stage in range(count))
    choices = itertools.combinations(range(1, len(costs)), count - 1)
    assert largest == min(
        max(sum(costs[start:end]) for start, end in itertools.pairwise((0, *starts, len(costs)))) for starts in choices
    )


def test_a_u_net_is_cut_so_that_each_stage_uses_its_own_skips() -> None:
    anatomy = anatomy_of(tiny_pipelines.sdxl_unet())
    names = [unit.name for unit in anatomy.units]
    published = next(
        nest for nest in anatomy.nests if names[nest.start] == "down_blocks.1.resnets.0" and "mid_block" in names
    )
    assert names[published.stop - 1] == "up_blocks.0.attentions.1"
    for nest in anatomy.nests:
        inside = [name.split(".") for name in names[nest.start : nest.stop]]
        down = sum(parts[0] == "down_blocks" and parts[2] in ("resnets", "downsamplers") for parts in inside)
        up = sum(parts[0] == "up_blocks" and parts[2] == "resnets" for parts in inside)
        assert down == up > 0
    with pytest.raises(Uncuttable, match="inner and an outer"):
        cut(anatomy, parameter_costs(anatomy), 3)


@pytest.mark.parametrize(
    ("name", "count"), [("sdxl", 2), ("sd3", 2), ("sd3", 3), ("pixart", 2), ("flux", 2), ("flux", 4)]
)
def test_stages_that_get_boundaries_of_the_same_latent_make_the_whole(name: str, count: int) -> None:
    """No stale tensor: run each stage on boundaries that a whole evaluation of the same arguments left."""
    torch.manual_seed(0)
    module, arguments = arguments_of(name)
    denoiser = Denoiser(module, 1, count)

    def call() -> Any:
        return module(**arguments)[0]

    with torch.no_grad():
        expected = call()
        cuts = denoiser.fit(arguments)
        assert torch.equal(denoiser.whole("b", 0, call), expected)
        whole = denoiser.boundaries_of("b")
        made: dict[Any, Any] = {}
        staged = [denoiser.staged("b", stage, 1, whole, call, made.__setitem__) for stage in range(count)]
        outputs = [output for output, _ in staged]
        assert [age for _, age in staged] == [int(bool(cuts.stages and cuts.stages.into(at))) for at in range(count)]
        assert torch.equal(outputs[-1], expected)
        assert not any(torch.equal(output, expected) for output in outputs[:-1])
        assert cuts.stages is not None
        for boundary in cuts.stages.boundaries:
            assert made[boundary].step == 1
            assert all(map(torch.equal, made[boundary].tensors, whole[boundary].tensors))
        stale = {boundary: Kept(kept.step - 1, kept.tensors) for boundary, kept in whole.items()}
        with pytest.raises(StaleTensor):
            denoiser.staged("b", count - 1, 1, stale, call, made.__setitem__)
        denoiser.close()
        assert torch.equal(call(), expected)


@pytest.mark.parametrize(("name", "count"), [("sdxl", 2), ("sd3", 2), ("sd3-four", 3), ("sd3-four", 4)])
def test_the_staleness_of_a_prediction_is_known_before_the_cut(name: str, count: int) -> None:
    module, arguments = arguments_of(name)
    denoiser = Denoiser(module, 1, count)
    known = denoiser.staleness
    stages = denoiser.fit(arguments).stages
    assert stages is not None
    assert known == stages.staleness


def test_units_that_are_left_out_return_the_size_of_the_image_in_hand() -> None:
    """Two images: one evaluates both branches whole, a larger one the other branch alone before it is staged."""
    module, small = arguments_of("sd3")
    denoiser = Denoiser(module, 1, 2)
    large = {**small, "hidden_states": torch.cat([small["hidden_states"]] * 2, dim=-1)}

    def whole(branch: str, arguments: dict[str, Any]) -> None:
        denoiser.fit(arguments)
        denoiser.whole(branch, 0, lambda: module(**arguments))

    def shapes(branch: str) -> list[torch.Size]:
        return [tensor.shape for tensor in denoiser.units.like(0, branch)]

    with torch.no_grad():
        whole("prompt", small)
        before = shapes("prompt")
        denoiser.forget()
        whole("other", large)
    assert shapes("prompt") == shapes("other") != before


@pytest.mark.parametrize("name", ["sdxl", "sd3", "pixart", "flux"])
def test_a_core_whose_features_are_known_can_be_left_out(name: str) -> None:
    """Forecast of order 0 at the same latent: what the core made is what it would make (a residual adds up to rounding)."""
    module, arguments = arguments_of(name)
    denoiser = Denoiser(module, 0, 1)

    def call() -> Any:
        return module(**arguments)[0]

    with torch.no_grad():
        denoiser.fit(arguments)
        expected = denoiser.whole("b", 0, call)
        outputs: list[Any] = []
        ran = _submodules_that_run(denoiser, lambda: outputs.append(denoiser.reused("b", 1, call)))
    ((output, age),) = outputs
    units = denoiser.units.anatomy.units
    assert denoiser.cuts is not None
    assert ran == {unit.name for position, unit in enumerate(units) if position not in denoiser.cuts.core}
    assert age == 1
    assert (output - expected).abs().max() <= 1e-5 * expected.abs().max()


def _submodules_that_run(denoiser: Denoiser, action: Callable[[], None]) -> set[str]:
    """Names of the units of which some layer with weights is called."""
    ran: set[str] = set()
    handles = []
    for unit in denoiser.units.anatomy.units:
        leaf = next(layer for layer in unit.module.modules() if layer._parameters and not list(layer.children()))
        handles += [
            layer.register_forward_hook(lambda *_, name=unit.name: ran.add(name))
            for layer in unit.module.modules()
            if not list(layer.children()) and (layer is not unit.module or leaf is layer)
        ]
    action()
    for handle in handles:
        handle.remove()
    return ran


def test_the_cost_of_units_is_counted_on_tensors_without_memory() -> None:
    module, arguments = arguments_of("sd3")
    anatomy = anatomy_of(module)
    costs = unit_costs(module, anatomy, arguments)
    assert len(costs) == 3
    assert costs[0] == costs[1] > costs[2] > 0  # the last block makes no text


SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
}
"""The published configuration."""


def test_sdxl_at_1024_sends_less_than_4_megabytes_a_step_and_its_inner_stage_costs_what_was_counted() -> None:
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**SDXL).half()
        arguments = {
            "sample": torch.empty(1, 4, 128, 128, dtype=torch.half),
            "timestep": torch.tensor(1.0),
            "encoder_hidden_states": torch.empty(1, 77, 2048, dtype=torch.half),
            "added_cond_kwargs": {
                "text_embeds": torch.empty(1, 1280, dtype=torch.half),
                "time_ids": torch.empty(1, 6, dtype=torch.half),
            },
        }
    anatomy = anatomy_of(unet)
    costs = unit_costs(unet, anatomy, arguments)
    stages = cut(anatomy, costs, 2)
    assert sum(costs) == pytest.approx(3.38e12, rel=0.01)
    assert stages.share(costs) == pytest.approx(0.563, abs=0.003)
    assert anatomy.units[stages.boundaries[-1].after].name == "up_blocks.0.attentions.1"
    sent = boundary_bytes(unet, stages, arguments)
    assert sent == (640 * 64 * 64 // 4 + 1280 * 32 * 32) * 2
    assert sent <= 4 * MEGABYTE


def test_sd3_at_1024_sends_less_than_14_megabytes_a_step_through_two_equal_stages() -> None:
    with torch.device("meta"):
        transformer = diffusers.SD3Transformer2DModel(
            sample_size=128, num_layers=24, num_attention_heads=24, attention_head_dim=64, joint_attention_dim=4096,
            caption_projection_dim=1536, pooled_projection_dim=2048, pos_embed_max_size=192,
        ).half()  # fmt: skip
        arguments = {
            "hidden_states": torch.empty(1, 16, 128, 128, dtype=torch.half),
            "encoder_hidden_states": torch.empty(1, 333, 4096, dtype=torch.half),
            "pooled_projections": torch.empty(1, 2048, dtype=torch.half),
            "timestep": torch.empty(1),
        }
    anatomy = anatomy_of(transformer)
    costs = unit_costs(transformer, anatomy, arguments)
    stages = cut(anatomy, costs, 2)
    assert stages.share(costs) == pytest.approx(0.5, abs=0.01)
    assert boundary_bytes(transformer, stages, arguments) == (4096 + 333) * 1536 * 2 <= 14 * MEGABYTE


def test_what_cannot_be_cut_says_why() -> None:
    with pytest.raises(Uncuttable, match="too few"):
        anatomy_of(tiny_pipelines.build("ltx").transformer)
    assert Stages(owners=(0, 0, 1, 1), count=2).staleness == 1
    assert Stages(owners=(1, 0, 0, 1), count=2).staleness == 2
