"""What each of our modes would cost a job, by operation count: for `frazil plan`, and as the bounds of the benches.

Shares are of one branch's whole forward. A step of mode Exact costs 1 on each of two ranks; a staged step the largest stage
and what both stages compute; a reusing step all but the core. How many of a Guided job's steps reuse is decided online: the
figure here is the most that its switching allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from frazil_jobs.api.parallelism import Switching
from frazil_jobs.generation.costs.counting import Counted
from frazil_jobs.generation.costs.models import Model
from frazil_jobs.generation.stages.cut import core_of, cut
from frazil_jobs.generation.stages.units import anatomy_of
from frazil_jobs.generation.switching import WindowRule

BRANCHES = 2


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Parts of a whole forward, and numbers that cross between stages."""

    reused: float
    """Of a step whose core is forecast."""
    staged: float
    """Of a staged step, on the rank with most to do."""
    crossing: int
    """Numbers that all boundaries hold, of one branch and picture."""

    def forwards(self, *, whole: int, reused: int = 0, staged: int = 0) -> float:
        """What so many steps of each kind cost, in whole steps."""
        return whole + reused * self.reused + staged * self.staged


def shares_of(denoiser: Any, counted: Counted, *, stages: int = 2) -> Shares:
    """Of a denoiser (its structure) and one counted call of it. Raises Uncuttable where its structure isn't known."""
    anatomy = anatomy_of(denoiser)
    costs = [float(counted.inside.get(unit.name, 0)) for unit in anatomy.units]
    in_units, core = sum(costs), sum(costs[unit] for unit in core_of(anatomy, costs))
    owners = cut(anatomy, costs, stages)
    by_both = counted.macs - in_units
    names = [anatomy.units[boundary.after].name for boundary in owners.boundaries]
    return Shares(
        reused=1 - core / counted.macs,
        staged=(owners.share(costs) * in_units + by_both) / counted.macs,
        crossing=counted.returned(names),
    )


@dataclass(frozen=True, kw_only=True)
class ModeCost:
    """One mode for one job."""

    mode: str
    gpus: int
    forwards: float
    """What all its steps cost on the busiest GPU, in whole forwards of one branch."""
    bound: float
    """One GPU's forwards over these: no faster on GPUs that are full at one picture, messages free."""
    approximated: int
    """Steps, at most, that aren't whole."""
    elements_per_step: int
    """Numbers that cross between GPUs in such a step, all ranks together, of one picture."""
    changes: str


def mode_costs(model: Model, *, height: int, width: int, steps: int, switching: Switching) -> list[ModeCost]:
    """Exact, Hybrid and Guided on two GPUs, and Guided's reuse on one. Raises CannotCount or Uncuttable."""
    counted = model.counted(height, width)
    shares = shares_of(model.denoiser(), counted)
    latent = model.latent_elements(height, width)
    return list(_costs(shares, latent=latent, steps=steps, switching=switching))


def _costs(shares: Shares, *, latent: int, steps: int, switching: Switching) -> Iterator[ModeCost]:
    one = float(BRANCHES * steps)
    yield ModeCost(
        mode="Exact",
        gpus=2,
        forwards=steps,
        bound=one / steps,
        approximated=0,
        elements_per_step=BRANCHES * latent,
        changes="nothing",
    )
    try:
        window = WindowRule.of(switching, steps=steps).length
    except ValueError:
        window = 0
    forwards = shares.forwards(whole=steps - window, staged=window)
    yield ModeCost(
        mode="Hybrid",
        gpus=2,
        forwards=forwards,
        bound=one / forwards,
        approximated=window,
        elements_per_step=shares.crossing + latent,
        changes=f"guidance is off in {window} steps, activations are up to {window and 2} steps old"
        if window
        else "nothing: the steps are too few for a window",
    )
    reused = most_reused(steps, order=switching.predictor_order, every=switching.refresh_every)
    if switching.budget == "inf":
        reused = 0
    forwards = shares.forwards(whole=steps - reused, reused=reused)
    for gpus in (2, 1):
        yield ModeCost(
            mode="Guided",
            gpus=gpus,
            forwards=forwards * BRANCHES / gpus,
            bound=one / (forwards * BRANCHES / gpus),
            approximated=reused,
            elements_per_step=BRANCHES * latent if gpus == 2 else 0,
            changes=f"inner features are forecast in at most {reused} steps, within {switching.budget} dB to Exact"
            if reused
            else "nothing",
        )


def most_reused(steps: int, *, order: int, every: int) -> int:
    """Steps, at most, that reuse: after `order` + 2 whole ones all but each `every`-th."""
    after = max(0, steps - (order + 2))
    return after - after // every
