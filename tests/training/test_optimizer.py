"""Learning rates, decay and running means of the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from frazil_jobs.api.trainingjob import Optimizer
from frazil_jobs.training.optimizer import Ema, learning_rate, make_optimizer


def test_the_learning_rate_grows_along_a_line_to_its_peak():
    settings = Optimizer(learning_rate="0.1", warmup_steps=4, schedule="Constant")
    rates = [learning_rate(settings, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, *[0.1] * 6])


@pytest.mark.parametrize("schedule", ["Cosine", "Linear"])
def test_it_falls_to_nothing_at_the_end(schedule):
    settings = Optimizer(learning_rate="0.1", warmup_steps=2, schedule=schedule)
    rates = [learning_rate(settings, step, 12) for step in range(2, 13)]
    assert rates[0] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert rates[5] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


def test_a_cosine_is_torchs_own():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    settings = Optimizer(learning_rate="0.1", warmup_steps=0, schedule="Cosine")
    for step in range(20):
        assert learning_rate(settings, step, 20) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_matrices_are_decayed_and_vectors_are_not():
    weights = {"matrix": nn.Parameter(torch.ones(2, 2)), "gain": nn.Parameter(torch.ones(2))}
    optimizer = make_optimizer(Optimizer(learning_rate="0.1", weight_decay="0.5"), weights)
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.allclose(weights["matrix"], torch.full((2, 2), 0.95))
    assert torch.equal(weights["gain"], torch.ones(2))


def test_the_decay_of_sgd_is_part_of_the_gradient_and_so_of_the_momentum():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = make_optimizer(
        Optimizer(name="SGD", learning_rate="0.1", weight_decay="0.5", betas=["0.9", "0.95"]), {"w": weight}
    )
    value, momentum = 1.0, 0.0
    for _ in range(3):
        weight.grad = torch.full((2, 2), 0.25)
        optimizer.step()
        momentum = 0.9 * momentum + 0.25 + 0.5 * value
        value -= 0.1 * momentum
    assert torch.allclose(weight, torch.full((2, 2), value))


def test_a_tensor_without_gradient_keeps_its_bits_and_its_state():
    weights = {"a": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2, 2))}
    optimizer = make_optimizer(Optimizer(), weights)
    weights["a"].grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(weights["b"], torch.ones(2, 2))
    assert weights["b"] not in optimizer.state


def test_the_running_mean_is_the_sum_that_it_should_be():
    weight = nn.Parameter(torch.zeros(3))
    ema = Ema({"w": weight}, 0.9)
    mean = 0.0
    for step in range(200):
        with torch.no_grad():
            weight.fill_(math.sin(step))
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * math.sin(step)
    assert torch.allclose(ema.means["w"], torch.full((3,), mean), atol=1e-6)


def test_the_mean_stands_in_for_the_weights_for_a_while_only():
    weight = nn.Parameter(torch.tensor([4.0]))
    ema = Ema({"w": weight}, 0.5)
    with torch.no_grad():
        weight.fill_(8.0)
    with ema.in_place():
        assert weight.item() == 4.0
    assert weight.item() == 8.0
