"""What each of our modes would cost a job, by operation count: for `frazil plan`, and as the bounds of the benches.

Shares are of one branch's whole forward. A step of mode Exact costs 1 on each of two ranks; a staged step the largest stage
and what both stages compute; a reusing step all but the core. How many of a Guided job's steps approximate is decided
online: the figure here is the most that its switching allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from frazil_jobs.generation.costs.counting import Counted
from frazil_jobs.generation.modes.asked import AskedMode
from frazil_jobs.generation.rank_grid import RankGrid
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
    oldest: int
    """Steps, at most, since the latent was made that a staged step's prediction comes from."""

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
        oldest=owners.staleness,
    )


@dataclass(frozen=True, kw_only=True)
class ModeCost:
    """One mode for one job."""

    gpus: int
    bound: float | None
    """One GPU's forwards over those of the busiest one here: no faster on GPUs that are full at one picture, messages
    free. None where it can't be chosen."""
    approximated: int
    """Steps, at most, that aren't whole."""
    elements_per_step: int | None
    """Numbers that cross between GPUs in such a step, all ranks together, of one picture; None where it isn't counted."""
    changes: str


def cost_of(
    mode: AskedMode, grid: RankGrid, acting: RankGrid, shares: Shares | None, *, latent: int, steps: int
) -> ModeCost:
    """A mode on the ranks of a grid. `acting`: the grid in whole steps; `shares`: of as many stages as the mode has, and
    needed where it approximates; `latent`: numbers in one branch's prediction for one picture."""
    most = most_approximated(mode, steps)
    forwards = float(steps)
    if most and shares is not None:
        kind = "staged" if mode.stages > 1 else "reused"
        forwards = shares.forwards(whole=steps - most, **{kind: most})
    busiest = forwards * -(-BRANCHES // acting.conditioning) / grid.sequence
    return ModeCost(
        gpus=grid.world,
        bound=BRANCHES * steps / busiest,
        approximated=most,
        elements_per_step=_elements(mode, grid, acting, shares if most else None, latent),
        changes=_changes(mode, most, shares) + (", beyond rounding" if grid.sequence > 1 and not most else ""),
    )


def refused(gpus: int, reason: str) -> ModeCost:
    """A mode that this job can't have."""
    return ModeCost(
        gpus=gpus, bound=None, approximated=0, elements_per_step=None, changes=f"can't be chosen here: {reason}"
    )


def most_approximated(mode: AskedMode, steps: int) -> int:
    """Steps, at most, that aren't whole."""
    if mode.runs == "Exact":
        return 0
    if mode.asked == "Hybrid":
        return WindowRule.of(mode.switching, steps=steps).length
    if mode.allowed_error <= 0:
        return 0
    order = mode.switching.predictor_order if mode.stages == 1 else 0
    return most_reused(steps, order=order, every=mode.switching.refresh_every)


def _elements(mode: AskedMode, grid: RankGrid, acting: RankGrid, shares: Shares | None, latent: int) -> int | None:
    if grid.sequence > 1:
        return None  # its all-to-alls are in every layer
    if mode.stages > 1 and shares is not None:
        lines = BRANCHES if mode.live else 1
        return lines * (shares.crossing + (grid.world - 1) * latent)
    return BRANCHES * latent * acting.pipeline if acting.conditioning > 1 else 0


def _changes(mode: AskedMode, most: int, shares: Shares | None) -> str:
    if mode.whole_because:
        return f"nothing: every step is whole, because {mode.whole_because}"
    if not most or shares is None:
        return "nothing"
    old = f"activations are up to {shares.oldest} step{'s' if shares.oldest > 1 else ''} old"
    if mode.asked == "Hybrid":
        return f"guidance is off in {most} steps, {old} in these"
    how = "inner features are forecast" if mode.stages == 1 else old
    carried = ", the branches' difference is carried" if mode.stages > 1 and not mode.live else ""
    return f"{how}{carried} in at most {most} steps, within {mode.switching.budget} dB to Exact"


def most_reused(steps: int, *, order: int, every: int) -> int:
    """Steps, at most, that reuse: after `order` + 2 whole ones all but each `every`-th."""
    after = max(0, steps - (order + 2))
    return after - after // every
