"""Real ranks in the approximate modes equal the one-process simulator bit for bit at every step, and send what they say."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from branch_cases import Case, build, call_of
from mode_work import Mode, as_simulated, simulated
from rank_work import configs_of
from ranks import RankPool
from sequential import branches_one_by_one

from frazil_jobs.generation.modes.forecast import StaleTensor
from frazil_jobs.generation.modes.guided import ReusePolicy
from frazil_jobs.generation.modes.policy import Kind
from frazil_jobs.generation.simulate import simulate
from frazil_jobs.generation.stages.costs import unit_costs
from frazil_jobs.generation.stages.cut import cut
from frazil_jobs.generation.stages.units import anatomy_of

SIZES: dict[str, list[dict[str, int]]] = {
    "sdxl": [{"height": 32, "width": 32}, {"height": 48, "width": 32}],
    "sd3": [{"height": 16, "width": 16}, {"height": 24, "width": 16}],
    "pixart": [{"height": 8, "width": 8}, {"height": 16, "width": 8}],
    "flux": [{"height": 8, "width": 8}, {"height": 8, "width": 16}],
}
LOOSE = {"budget": "6", "refresh_every": 3}
"""A budget that tiny random networks, whose predictions jump, can keep with some steps approximated."""
STEPS = 10
SLOW = pytest.mark.slow
FEW = 5
EVERY_PLACE = [(2, 1), (3, 1), (4, 1), (3, 2), (2, 3), (2, 2)]
"""First step and length, of 5 steps: windows of one step at every step that the field allows (a slope takes two), some that
last until the end, one in the middle."""


def window(first: int, length: int, *, steps: int = FEW) -> dict[str, Any]:
    """A switch that opens at a certain step."""
    assert 100 % steps == 0
    each = 100 // steps
    return {
        "slope_threshold": "0",
        "slope_window_percent": 2 * each,
        "window_percent": length * each,
        "cap_percent": first * each,
    }


def others(*pipelines: str) -> list[Any]:
    """Pipelines that only the whole run of the tests looks at."""
    return [pytest.param(pipeline, marks=SLOW) for pipeline in pipelines]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def images(pipeline: str, *, steps: int = STEPS) -> list[Case]:
    """Two images in a row, of other sizes, batches and seeds."""
    return [
        Case(pipeline=pipeline, steps=steps, batch=2 - index, seed=index, arguments=size)
        for index, size in enumerate(SIZES[pipeline])
    ]


@functools.cache
def _compared(
    pipeline: str, key: str, ranks: int, steps: int
) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    mode = _MODES[key]
    cases = images(pipeline, steps=steps)
    return simulated(cases, mode), RankPool.of(ranks).run("mode_work:on_ranks", cases=cases, mode=mode)


_MODES: dict[str, Mode] = {}


def compared(
    pipeline: str, mode: Mode, *, steps: int = STEPS
) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Two images simulated, and as each rank made them."""
    _MODES[repr(mode)] = mode
    return _compared(pipeline, repr(mode), mode.grid[0] * mode.grid[1], steps)


def assert_same(pipeline: str, mode: Mode, *, steps: int = STEPS) -> list[dict[str, Any]]:
    expected, ranks = compared(pipeline, mode, steps=steps)
    assert as_simulated(ranks, expected), str(mode)
    return expected


@pytest.mark.parametrize(
    ("pipeline", "first", "length"),
    [
        *(("sd3", *place) for place in EVERY_PLACE),
        *((pipeline, 3, 2) for pipeline in ("sdxl", "pixart")),
        *(
            pytest.param(name, *place, marks=SLOW)
            for name in ("sdxl", "pixart")
            for place in EVERY_PLACE
            if place != (3, 2)
        ),
    ],
)
def test_hybrid_equals_its_simulator_wherever_the_window_is(pipeline: str, first: int, length: int) -> None:
    mode = Mode(asked="Hybrid", stages=2, switching=window(first, length))
    for image in assert_same(pipeline, mode, steps=FEW):
        assert image["kinds"] == "w" * first + "s" * length + "w" * (FEW - first - length)
        assert image["ages"] == [int(kind == "s") for kind in image["kinds"]]
        assert image["facts"]["steps_without_guidance"] == str(length)


@pytest.mark.parametrize("pipeline", ["sd3", *others("sdxl", "pixart")])
def test_the_slope_opens_the_window_of_hybrid_too(pipeline: str) -> None:
    found = assert_same(
        pipeline, Mode(asked="Hybrid", stages=2, switching={"slope_threshold": "10", "cap_percent": 80})
    )
    assert all("s" in image["kinds"][:8] for image in found)


@pytest.mark.parametrize(
    ("pipeline", "order"),
    [
        *(("sd3", order) for order in (0, 1, 2)),
        *((pipeline, 1) for pipeline in ("sdxl", "pixart", "flux")),
        *(pytest.param(name, order, marks=SLOW) for name in ("sdxl", "pixart", "flux") for order in (0, 2)),
    ],
)
def test_guided_reuse_equals_its_simulator(pipeline: str, order: int) -> None:
    mode = Mode(switching={**LOOSE, "predictor_order": order})
    for image in assert_same(pipeline, mode):
        assert image["kinds"].startswith("w" * (order + 2))
        assert "r" in image["kinds"]
        assert max(image["ages"]) <= 2
        assert all((kind == "r") == (age > 0) for kind, age in zip(image["kinds"], image["ages"], strict=True))


@pytest.mark.parametrize("pipeline", ["sdxl", *others("sd3", "pixart")])
def test_guided_stages_of_one_condition_carry_the_branches_difference_as_simulated(pipeline: str) -> None:
    for image in assert_same(pipeline, Mode(stages=2, switching={"budget": "0", "refresh_every": 4})):
        assert "s" in image["kinds"]
        assert "ssss" not in image["kinds"]


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["sd3", "sdxl", "pixart", "flux"])
def test_four_ranks_two_by_two_equal_the_simulator_with_guidance_intact(pipeline: str) -> None:
    mode = Mode(grid=(2, 2), stages=2, live=True, switching={"budget": "0", "refresh_every": 4})
    for image in assert_same(pipeline, mode):
        assert "s" in image["kinds"]
        staged = [step for step, kind in enumerate(image["kinds"]) if kind == "s"]
        for step in staged:
            one, other = image["predictions"][step]
            assert (one - other).abs().max() > 0.01 * one.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["Hybrid", "Guided"])
def test_four_stages_in_one_line_equal_the_simulator(asked: str) -> None:
    switching = {"budget": "0", "refresh_every": 4, "slope_threshold": "0", "cap_percent": 30, "window_percent": 40}
    mode = Mode(asked=asked, grid=(2, 2), stages=4, switching=switching)
    case = [Case(pipeline="sd3-four", steps=STEPS, batch=2), Case(pipeline="sd3-four", steps=STEPS, seed=4)]
    expected = simulated(case, mode)
    assert as_simulated(RankPool.of(4).run("mode_work:on_ranks", cases=case, mode=mode), expected)
    assert "s" in expected[0]["kinds"]


@pytest.mark.slow
def test_eight_ranks_two_by_four_equal_the_simulator() -> None:
    mode = Mode(grid=(2, 4), stages=4, live=True, switching={"budget": "0", "refresh_every": 4})
    case = [Case(pipeline="sd3-four", steps=STEPS, batch=2)]
    expected = simulated(case, mode)
    assert as_simulated(RankPool.of(8).run("mode_work:on_ranks", cases=case, mode=mode), expected)
    assert "s" in expected[0]["kinds"]


@pytest.mark.parametrize(
    ("pipeline", "arguments"),
    [
        ("sdxl", {"guidance_rescale": 0.7, "negative_prompt": ["blue", "a hat"]}),
        ("sd3", {"negative_prompt": ["blue", "a hat"]}),
    ],
)
def test_hybrid_goes_with_rescaled_guidance_and_negative_prompts(pipeline: str, arguments: dict[str, Any]) -> None:
    mode = Mode(asked="Hybrid", stages=2, switching=window(2, 3, steps=STEPS))
    cases = [
        Case(pipeline=pipeline, steps=STEPS, batch=2, arguments=own)
        for own in (
            arguments,
            *({**arguments, name: None if name != "guidance_rescale" else 0.0} for name in arguments),
        )
    ]
    expected = simulated(cases, mode)
    assert as_simulated(RankPool.of(2).run("mode_work:on_ranks", cases=cases, mode=mode), expected)
    assert all("s" in image["kinds"] for image in expected)
    assert not any(torch.equal(expected[0]["latents"], other["latents"]) for other in expected[1:])


def test_a_boundary_of_another_step_than_it_is_taken_for_is_found_by_its_tag() -> None:
    def outcomes(*steps: int) -> list[str]:
        answers: list[str] = RankPool.of(2).run("mode_work:out_of_order", steps=list(steps))
        return answers

    assert outcomes(3, 4, 5) == ["in order", "in order"]
    assert outcomes(3, 3, 5) == ["in order", "a boundary was taken for one of step 4, and its tag is 3"]


@pytest.mark.parametrize(
    ("pipeline", "mode"),
    [
        ("sd3", Mode()),
        ("sdxl", Mode(stages=2)),
        *(pytest.param(name, Mode(), marks=SLOW) for name in ("sdxl", "pixart")),
        *(pytest.param(name, Mode(stages=2), marks=SLOW) for name in ("sd3", "pixart")),
        *(pytest.param(name, Mode(grid=(2, 2), stages=2, live=True), marks=SLOW) for name in ("sdxl", "sd3", "pixart")),
    ],
    ids=str,
)
def test_a_budget_of_no_drift_is_exact_bit_for_bit(pipeline: str, mode: Mode) -> None:
    found = assert_same(pipeline, replace(mode, switching={"budget": "inf"}))
    for case, image in zip(images(pipeline), found, strict=True):
        pipe = build(case)
        with branches_one_by_one(pipe, pipeline, branches=2, batch=case.batch):
            assert torch.equal(image["latents"], pipe(**call_of(case))[0])


@pytest.mark.parametrize("pipeline", ["sd3", "flux"])
def test_one_rank_reuses_features_of_the_stock_call(pipeline: str) -> None:
    case = Case(pipeline=pipeline, steps=STEPS, batch=2)
    (exact,) = simulated([case], Mode(grid=(1, 1), switching={"budget": "inf"}))
    assert torch.equal(exact["latents"], build(case)(**call_of(case))[0])
    (found,) = simulated([case], Mode(grid=(1, 1), switching=LOOSE))
    assert "r" in found["kinds"]
    assert not torch.equal(found["latents"], exact["latents"])


@pytest.mark.slow
def test_reuse_goes_with_sequence_parts_to_rounding() -> None:
    cases = images("flux")
    mode = Mode(switching={**LOOSE, "predictor_order": 1})
    expected = simulated(cases, mode)
    for ranks in RankPool.of(4).run("mode_work:with_sequence", cases=cases, mode=mode):
        for found, one in zip(ranks, expected, strict=True):
            assert "r" in found["kinds"]
            assert found["kinds"] == one["kinds"]
            assert (found["latents"] - one["latents"]).abs().max() <= 1e-4 * one["latents"].abs().max()


def test_the_simulator_runs_mode_exact_too() -> None:
    case = Case(pipeline="sd3", steps=3, batch=2)
    (found,) = simulated([case], Mode(asked="Exact"))
    pipe = build(case)
    with branches_one_by_one(pipe, "sd3", branches=2, batch=2):
        assert torch.equal(found["latents"], pipe(**call_of(case))[0])


def test_steps_that_are_not_staged_send_one_gather_and_nothing_else() -> None:
    _, ranks = compared("sdxl", Mode(switching={**LOOSE, "predictor_order": 1}))
    for image in ranks[0]:
        assert {name for name, _ in _step_messages(image)} == {"all_gather_into_tensor"}
        assert len(_step_messages(image)) == STEPS


@pytest.mark.parametrize("pipeline", ["sdxl", "sd3", *others("pixart")])
def test_a_staged_step_sends_its_boundaries_and_one_prediction(pipeline: str) -> None:
    mode = Mode(asked="Hybrid", stages=2, switching=window(2, 3, steps=STEPS))
    _, ranks = compared(pipeline, mode)
    streams = 2 if pipeline == "sd3" else 1
    up = sum(name == "isend" for name, _ in ranks[0][0]["messages"])
    down = sum(name == "isend" for name, _ in ranks[1][0]["messages"])
    assert up == 3 * streams
    assert down == (3 if pipeline == "sdxl" else 0)
    for rank in ranks:
        names = [name for name, _ in rank[0]["messages"]]
        assert names.count("broadcast") == 3
        assert names.count("isend") + names.count("irecv") == up + down


def _step_messages(image: dict[str, Any]) -> list[tuple[str, int]]:
    """Without the hashes that a debug run compares (32 bytes)."""
    return [(name, size) for name, size in image["messages"] if size != 32]


@pytest.mark.parametrize("pipeline", ["sd3", *others("sdxl")])
def test_the_guidance_scale_counts_in_the_window_of_guided_and_not_in_that_of_hybrid(pipeline: str) -> None:
    """From the same latent, the step after which the scale is another one: its prediction, and the latent after it."""

    def after(mode: Mode, scale: float, *, at: int) -> torch.Tensor:
        case = Case(
            pipeline=pipeline, steps=STEPS, arguments={"callback_on_step_end": _scale_becomes(scale, at=at - 1)}
        )
        (image,) = simulated([case], mode)
        assert image["kinds"][at] != Kind.WHOLE.value[0]
        return image["inputs"][at + 1]

    hybrid = Mode(asked="Hybrid", stages=2, switching=window(2, 3, steps=STEPS))
    assert torch.equal(after(hybrid, 1.5, at=2), after(hybrid, 7.0, at=2))
    for guided in (
        Mode(switching={"budget": "0", "refresh_every": 3}),
        Mode(stages=2, switching={"budget": "0", "refresh_every": 4}),
        Mode(stages=2, live=True, grid=(2, 2), switching={"budget": "0", "refresh_every": 4}),
    ):
        (image,) = simulated([Case(pipeline=pipeline, steps=STEPS)], guided)
        at = next(step for step, kind in enumerate(image["kinds"]) if kind != "w")
        assert at < STEPS - 1
        one, other = after(guided, 1.5, at=at), after(guided, 7.0, at=at)
        assert (one - other).abs().max() > 0.01 * one.abs().max()


def _scale_becomes(scale: float, *, at: int) -> Any:
    def callback(pipe: Any, step: int, _time: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
        if step == at:
            pipe._guidance_scale = scale
        return {}

    return callback


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case(pipeline="sdxl", scheduler="euler-ancestral", steps=STEPS), "draws noise in each step"),
        (Case(pipeline="sdxl", steps=3), "the steps are too few"),
        (Case(pipeline="sdxl", steps=STEPS, arguments={"guidance_scale": 1.0}), "no guidance"),
        (Case(pipeline="ltx", steps=STEPS), "too few to cut"),
    ],
    ids=str,
)
def test_where_a_mode_can_not_approximate_all_steps_are_exact_and_it_says_why(case: Case, reason: str) -> None:
    (found,) = simulated([case], Mode(switching=LOOSE))
    (exact,) = simulated([case], Mode(switching={"budget": "inf"}))
    assert torch.equal(found["latents"], exact["latents"])
    assert reason in found["facts"]["all_whole_because"]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case(pipeline="sdxl", scheduler="ddim", steps=STEPS, arguments={"eta": 0.5}), "eta is above 0"),
        (Case(pipeline="sdxl", variant="img2img", steps=STEPS, arguments={"strength": 0.3}), "the steps are too few"),
    ],
    ids=["eta", "strength"],
)
def test_an_image_that_can_not_be_staged_is_made_exactly_and_the_next_one_in_stages(case: Case, reason: str) -> None:
    mode = Mode(grid=(2, 2), stages=2, live=True, switching={"budget": "0", "refresh_every": 4})
    cases = [case, replace(case, arguments={"strength": 1.0} if case.variant else {})]
    found, after = simulated(cases, mode)
    (exact,) = simulated([case], replace(mode, switching={"budget": "inf"}))
    assert torch.equal(found["latents"], exact["latents"])
    assert set(found["kinds"]) == {"w"}
    assert reason in found["facts"]["all_whole_because"]
    assert "s" in after["kinds"]
    assert "all_whole_because" not in after["facts"]


@pytest.mark.slow
def test_four_ranks_make_such_an_image_exactly_as_well() -> None:
    mode = Mode(grid=(2, 2), stages=2, live=True, switching={"budget": "0", "refresh_every": 4})
    case = Case(pipeline="sdxl", scheduler="ddim", steps=STEPS, batch=2)
    cases = [replace(case, arguments={"eta": 0.5}), case]
    expected = simulated(cases, mode)
    assert ["s" in image["kinds"] for image in expected] == [False, True]
    assert as_simulated(RankPool.of(4).run("mode_work:on_ranks", cases=cases, mode=mode), expected)


def test_features_that_are_older_than_the_mode_allows_are_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_whole_again(self: ReusePolicy, approximate: Kind) -> None:
        self.step += 1
        self.kind = approximate if self.step > 2 else Kind.WHOLE

    monkeypatch.setattr(ReusePolicy, "_advance", never_whole_again)
    case = Case(pipeline="sd3", steps=STEPS)
    (found,) = simulated([case], Mode(switching={"refresh_every": STEPS}))
    assert found["ages"] == [0, 0, 0, *range(1, STEPS - 2)]
    with pytest.raises(StaleTensor, match="features at step 6 are 4 steps old"):
        simulated([case], Mode(switching={"refresh_every": 4}))


@pytest.mark.slow
def test_controlnet_residuals_reach_every_stage() -> None:
    case = [Case(pipeline="sdxl-controlnet", steps=STEPS, batch=2)]
    for mode in (
        Mode(asked="Hybrid", stages=2, switching=window(2, 3, steps=STEPS)),
        Mode(stages=2, switching={"budget": "0", "refresh_every": 4}),
        Mode(switching=LOOSE),
    ):
        expected = simulated(case, mode)
        assert as_simulated(RankPool.of(2).run("mode_work:on_ranks", cases=case, mode=mode), expected)
        assert torch.isfinite(expected[0]["latents"]).all()
        assert set(expected[0]["kinds"]) != {"w"}


@pytest.mark.parametrize(
    ("pipeline", "stages"),
    [("sdxl", 2), ("sd3", 2), ("sd3-four", 3), ("sd3-four", 4), pytest.param("pixart", 2, marks=SLOW)],
)
def test_a_window_step_is_what_the_paper_says_computed_by_hand(pipeline: str, stages: int) -> None:
    """The stages' outputs put into the stock denoiser with torch's own hooks: nothing of the modes' code takes part."""
    mode = Mode(asked="Hybrid", stages=stages, switching=window(2, 3, steps=STEPS))
    case = Case(pipeline=pipeline, steps=STEPS, batch=2)
    (found,) = simulated([case], mode)
    assert found["kinds"].startswith("wwsss")
    calls = _arguments_of_calls(case, mode)
    by_hand = _Stages(build(case), calls[0], stages)
    boundaries = by_hand.whole(calls[1])
    for step in (2, 3, 4):
        prediction, boundaries = by_hand.stale(calls[step], boundaries)
        for branch in found["predictions"][step]:
            assert torch.equal(branch, prediction)


def _arguments_of_calls(case: Case, mode: Mode) -> list[dict[str, Any]]:
    """What the denoiser is called with in each step of the simulated run, the prompt's rows only."""
    calls: list[dict[str, Any]] = []
    pipe = build(case)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer

    def note(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = ("sample", "timestep") if hasattr(pipe, "unet") else ("hidden_states",)
        calls.append(_second_half({**dict(zip(names, args, strict=False)), **kwargs}, rows=2 * case.batch))

    handle = denoiser.register_forward_pre_hook(note, with_kwargs=True)
    with simulate(pipe, configs_of(pipe), mode.as_asked()) as split:
        arguments = call_of(case)
        with split.call(arguments, batch_size=case.batch):
            pipe(**arguments)
    handle.remove()
    return calls


def _second_half(value: Any, *, rows: int) -> Any:
    if isinstance(value, dict):
        return {key: _second_half(inner, rows=rows) for key, inner in value.items()}
    if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == rows:
        return value[rows // 2 :].clone()
    return value


class _Stages:
    """The stages of a tiny denoiser, cut where its costs say, with borders replaced by forward hooks."""

    def __init__(self, pipe: Any, arguments: dict[str, Any], count: int) -> None:
        self.denoiser = getattr(pipe, "unet", None) or pipe.transformer
        anatomy = anatomy_of(self.denoiser)
        stages = cut(anatomy, unit_costs(self.denoiser, anatomy, arguments), count)
        self.borders = [self.denoiser.get_submodule(anatomy.units[b.after].name) for b in stages.boundaries]

    def run(self, arguments: dict[str, Any], replaced: dict[int, Any]) -> tuple[torch.Tensor, list[Any]]:
        seen: list[Any] = [None] * len(self.borders)

        def hook(index: int) -> Any:
            def call(_module: Any, _args: Any, output: Any) -> Any:
                seen[index] = output
                return replaced.get(index)

            return call

        handles = [border.register_forward_hook(hook(index)) for index, border in enumerate(self.borders)]
        with torch.no_grad():
            prediction = self.denoiser(**arguments)[0]
        for handle in handles:
            handle.remove()
        return prediction, seen

    def whole(self, arguments: dict[str, Any]) -> list[Any]:
        return self.run(arguments, {})[1]

    def stale(self, arguments: dict[str, Any], before: list[Any]) -> tuple[torch.Tensor, list[Any]]:
        """What comes out behind a border was made from what crossed it one step before."""
        made = [self.run(arguments, {})[1][0]]
        for border, crossed in enumerate(before[:-1]):
            made.append(self.run(arguments, {border: crossed})[1][border + 1])
        prediction, _ = self.run(arguments, {len(before) - 1: before[-1]})
        return prediction, made
