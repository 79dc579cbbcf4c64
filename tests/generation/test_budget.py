"""The forecast and the budget as arithmetic: against polynomials, and against what was asked."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from frazil_jobs.generation.modes.budget import LATENT_TO_PICTURE, Ledger, latent_error
from frazil_jobs.generation.modes.forecast import History, difference_weights, reach, weights
from frazil_jobs.generation.modes.guided import ReusePolicy, StagedPolicy, Terms
from frazil_jobs.generation.modes.policy import Kind
from frazil_jobs.generation.modes.samplers import hindrance
from frazil_jobs.generation.modes.sensitivity import sensitivities

coefficients = some.lists(some.integers(-5, 5), min_size=1, max_size=3)


def polynomial(values: list[int], at: float) -> float:
    return float(sum(value * at**power for power, value in enumerate(values)))


@given(coefficients, some.sets(some.integers(0, 20), min_size=3, max_size=3), some.integers(21, 26))
def test_a_forecast_continues_every_polynomial_of_its_order(values: list[int], steps: set[int], at: int) -> None:
    history = History(3)
    for step in sorted(steps):
        history.keep(step, (torch.tensor([polynomial(values, step)], dtype=torch.double),))
    (found,) = history.forecast(at)
    assert float(found) == pytest.approx(polynomial(values, at), rel=1e-6, abs=1e-6)
    assert sum(weights(history.steps, at)) == pytest.approx(1)


@given(some.integers(1, 5), some.sets(some.integers(0, 20), min_size=2, max_size=2), some.integers(21, 30))
def test_the_error_of_a_forecast_is_the_next_divided_difference_times_its_reach(
    third: int, steps: set[int], at: int
) -> None:
    """For a parabola and a straight line the estimate is no estimate: any third point gives its curvature."""
    nodes = sorted(steps)

    def value(step: int) -> float:
        return 3.0 + 2 * step + third * step**2

    line = sum(weight * value(node) for weight, node in zip(weights(nodes, at), nodes, strict=True))
    known = [*nodes, max(nodes) + 1]
    curvature = sum(w * value(node) for w, node in zip(difference_weights(known), known, strict=True))
    assert abs(value(at) - line) == pytest.approx(abs(curvature) * reach(nodes, at), rel=1e-6)


def test_tensors_are_kept_with_the_step_that_made_them_and_never_out_of_order() -> None:
    history = History(2)
    for step in (1, 4, 6):
        history.keep(step, (torch.tensor(float(step)),))
    assert (history.steps, history.age(9)) == ([4, 6], 3)
    with pytest.raises(ValueError, match="not after"):
        history.keep(6, (torch.tensor(0.0),))


def test_an_infinite_psnr_allows_nothing_and_twenty_decibels_more_a_tenth() -> None:
    assert latent_error(math.inf) == 0
    assert latent_error(40) == pytest.approx(10 * latent_error(60))
    assert latent_error(20) * LATENT_TO_PICTURE == pytest.approx(0.1)


def test_each_image_pays_for_itself_and_the_batch_waits_for_the_one_that_cannot() -> None:
    ledger = Ledger(1.0)
    assert ledger.affords([0.5, 0.5], share=0.25)
    assert not ledger.affords([0.5, 0.51], share=0.25)
    assert not ledger.affords([0.5, math.nan], share=0.25)
    ledger.charge([0.2, 0.4])
    assert ledger.affords([0.3, 0.1], share=0.25), "a run's errors are added up"
    assert not ledger.affords([0.3, 0.11], share=0.25)


def test_what_was_measured_takes_the_place_of_what_was_expected_and_undoes_itself() -> None:
    ledger = Ledger(1.0)
    ledger.charge([0.9, 0.9])
    ledger.settle(torch.tensor([[0.6], [0.8]]))
    assert ledger.affords([0.79, 0.59], share=1.0)
    assert not ledger.affords([0.79, 0.61], share=1.0), "what is left is a squared error"
    ledger.settle(torch.tensor([[-0.6], [-0.8]]))
    assert ledger.affords([0.99, 0.99], share=1.0)
    ledger.settle(torch.tensor([[1.1], [0.0]]))
    assert not ledger.affords([0.0, 0.0], share=1.0), "who has overspent pays for nothing"


def test_errors_that_point_the_same_way_are_shared_out_themselves() -> None:
    ledger = Ledger(1.0, independent=False)
    assert ledger.affords([0.25], share=0.25)
    assert not ledger.affords([0.26], share=0.25)
    ledger.settle(torch.tensor([[0.6]]))
    assert ledger.affords([0.39], share=1.0)
    assert not ledger.affords([0.41], share=1.0)
    ledger.settle(torch.tensor([[0.6]]))
    assert not ledger.affords([0.0], share=1.0), "who has overspent pays for nothing"


@pytest.mark.parametrize("kind", [ReusePolicy, StagedPolicy])
def test_runs_of_stages_are_not_taken_to_undo_each_other(kind: type[ReusePolicy | StagedPolicy]) -> None:
    policy = kind(terms(1.0))
    assert policy.ledger.independent == (kind is ReusePolicy)
    assert policy.ledger.allowed == 1.0 / policy.safety


def terms(allowed: float, *, steps: int = 12, refresh_every: int = 4, order: int = 1) -> Terms:
    return Terms(
        order=order,
        refresh_every=refresh_every,
        allowed=allowed,
        sensitivities=[1 / steps] * steps,
        scale=5.0,
        conditional=1,
    )


def kinds_of(policy: ReusePolicy | StagedPolicy, curve: list[float]) -> str:
    kinds = ""
    for value in curve:
        kinds += policy.kind.value[0]
        both = torch.tensor([[[value]], [[value + 0.01]]])
        policy.observe(both if policy.kind is not Kind.STAGED else policy.from_stages(both[1]))
    return kinds


STEPS = 50
WRONG = 1e-3
STRAIGHT = [float(step) for step in range(12)]
BENT = [step**2 / 10 for step in range(12)]


@pytest.mark.parametrize(
    ("case", "curve", "allowed", "refresh_every", "expected"),
    [
        ("a straight line costs a linear forecast nothing", STRAIGHT, 1e-3, 4, "wwwrrrwrrrwr"),
        ("refresh_every 1 lets no step reuse", STRAIGHT, 1e9, 1, "wwwwwwwwwwww"),
        ("no budget, no reuse", STRAIGHT, 0.0, 4, "wwwwwwwwwwww"),
        ("what is no number is computed", [math.nan] * 12, 1e9, 4, "wwwwwwwwwwww"),
        ("a bent curve and a small budget: first none, later what is left", BENT, 0.05, 4, None),
    ],
)
def test_the_budget_decides(
    case: str, curve: list[float], allowed: float, refresh_every: int, expected: str | None
) -> None:
    policy = ReusePolicy(terms(allowed, refresh_every=refresh_every))
    kinds = kinds_of(policy, curve)
    assert expected is None or kinds == expected, case
    if expected is None:
        assert 0 < kinds.count("r") < 9


def test_a_larger_budget_reuses_no_fewer_steps() -> None:
    counts = [kinds_of(ReusePolicy(terms(allowed)), BENT).count("r") for allowed in (0.01, 0.05, 0.2, 1.0, 10.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_the_carried_difference_is_continued_for_five_steps_at_most() -> None:
    policy = StagedPolicy(terms(1e9, refresh_every=12))
    for step in range(2):
        policy.observe(torch.tensor([[[0.0]], [[float(step)]]]))
    assert policy.kind is Kind.STAGED
    carried = [float(policy.carried(step)) for step in range(2, 9)]
    assert carried == [2, 3, 4, 5, 6, 6, 6]
    constant = StagedPolicy(terms(1e9, order=0))
    constant.observe(torch.tensor([[[0.0]], [[7.0]]]))
    constant.observe(torch.tensor([[[0.0]], [[8.0]]]))
    assert float(constant.carried(4)) == 8


def test_the_guided_prediction_depends_on_the_scale_through_the_carried_difference() -> None:
    policy = StagedPolicy(terms(1e9))
    for _ in range(2):
        policy.observe(torch.tensor([[[1.0]], [[3.0]]]))
    other, prompt = policy.from_stages(torch.tensor([[4.0]]))
    assert (float(other), float(prompt)) == (2.0, 4.0)


@pytest.mark.parametrize(
    ("kind", "config", "arguments"),
    [
        ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, {}),
        ("EulerDiscreteScheduler", {}, {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, {}),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    ],
)
def test_the_sensitivity_is_what_scheduler_and_denoiser_make_of_a_wrong_prediction(
    kind: str, config: dict[str, object], arguments: dict[str, object]
) -> None:
    """Against the scheduler itself and the best denoiser of data of variance 1: a wrong prediction at each step in turn."""
    scheduler = getattr(diffusers, kind)(**config)
    scheduler.set_timesteps(STEPS)
    expected = sensitivities(scheduler, steps=STEPS)
    right = final_latent(scheduler, arguments, wrong_at=None)
    moved = [(final_latent(scheduler, arguments, wrong_at=step) - right) / WRONG for step in range(1, STEPS)]
    del expected[0]
    if kind.startswith("DPM"):  # which takes back in the next step a part of what it took in the one before
        moved, expected = [sum(moved)], [sum(expected)]
    assert [abs(value) for value in moved] == pytest.approx(expected, rel=0.15)


def final_latent(scheduler: Any, arguments: dict[str, object], *, wrong_at: int | None) -> float:
    scheduler.set_timesteps(STEPS)
    latent = torch.ones(1, 1, 1, 1, dtype=torch.double) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for step, time in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(latent, time) if hasattr(scheduler, "scale_model_input") else None
        prediction = latent * response(scheduler, step) + (WRONG if step == wrong_at else 0.0)
        latent = scheduler.step(prediction, time, latent, **arguments)[0].double()
    return float(latent)


def response(scheduler: Any, step: int) -> float:
    """What the best denoiser of normal data of variance 1 predicts for a latent of 1."""
    if type(scheduler).__name__.startswith("FlowMatch"):
        sigma = float(scheduler.sigmas[step])
        return (2 * sigma - 1) / ((1 - sigma) ** 2 + sigma**2)
    alpha = float(scheduler.alphas_cumprod[int(scheduler.timesteps[step])])
    noise = (1 - alpha) ** 0.5
    return noise if type(scheduler).__name__ != "EulerDiscreteScheduler" else noise * alpha**0.5


@pytest.mark.parametrize(
    ("kind", "config", "extra", "reason"),
    [
        ("DDIMScheduler", {}, {}, None),
        ("DDIMScheduler", {}, {"eta": 0.5}, "eta"),
        ("EulerDiscreteScheduler", {}, {}, None),
        ("EulerAncestralDiscreteScheduler", {}, {}, "draws noise"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, {}, None),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}, "draws noise"),
        ("DPMSolverSDEScheduler", {"noise_sampler_seed": 3}, {}, "draws noise"),
        ("TCDScheduler", {}, {"eta": 0.0}, None),
        ("PNDMScheduler", {"skip_prk_steps": True}, {}, None),
        ("PNDMScheduler", {}, {}, "several times"),
        ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, {}, None),
        ("FlowMatchHeunDiscreteScheduler", {"use_dynamic_shifting": True}, {}, "several times"),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, {}, "draws noise"),
    ],
)
def test_which_samplers_take_approximate_steps_as_they_are_set(
    kind: str, config: dict[str, object], extra: dict[str, object], reason: str | None
) -> None:
    found = hindrance(getattr(diffusers, kind), config, extra)
    assert (found is None) == (reason is None)
    assert reason is None or reason in (found or "")


DRAW = """
CMStochasticIterative CosineDPMSolverMultistep DDPM DDPMParallel DPMSolverSDE EulerAncestralDiscrete FlowMatchLCM
KDPM2AncestralDiscrete LCM LTXEulerAncestralRF SASolver TCD UnCLIP
"""
SEVERAL = "FlowMatchHeunDiscrete HeunDiscrete KDPM2Discrete PNDM"
OF_THEIR_OWN = """
Amused BlockRefinement CogVideoXDPM DDPMWuerstchen DiscreteDDIM EntropyBound Helios HeliosDMD KarrasVe Piflow RFD4Proteina
RePaint SCM ScoreSdeVe VQDiffusion
"""
APPROXIMATE = """
CogVideoXDDIM DDIM DDIMInverse DDIMParallel DEISMultistep DPMSolverMultistep DPMSolverMultistepInverse DPMSolverSinglestep
EDMDPMSolverMultistep EDMEuler EulerDiscrete FlowMapEulerDiscrete FlowMatchEulerDiscrete IPNDM LMSDiscrete MiniMaxH3
UniPCMultistep
"""


def test_every_scheduler_of_diffusers_is_known_for_what_it_does() -> None:
    expected = {
        f"{name}Scheduler": reason
        for names, reason in (
            (DRAW, "draws noise in each step"),
            (SEVERAL, "calls the denoiser several times a step"),
            (OF_THEIR_OWN, "takes its steps in a way of its own"),
            (APPROXIMATE, None),
        )
        for name in names.split()
    }
    kinds = [getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler")]
    found = {kind.__name__: hindrance(kind, {}, {}) for kind in kinds}
    assert found == {name: reason and f"{name} {reason}" for name, reason in expected.items()}
