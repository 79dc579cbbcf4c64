"""Which tensors of a stage are frozen in which microbatch, once the plan says how much.

Every function takes the freeze ratios of one stage's microbatches in one optimizer step (with accumulation, of all its
batches one after the other) and returns a mask of shape [microbatches, tensors], True where frozen. A mask is a function
of its key alone (draws.py), so that replicas, ranks and resumed runs agree without a message.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frazil_jobs.training.freezing.draws import Bools, Floats, permutation, uniforms

_FRONT_WEIGHT, _REAR_WEIGHT = 1.0, 0.1
"""Published weights of the first stage's first and last tensor, linear between (TimelyFreeze's release)."""
_PREFERRED, _OTHER = 1.0, 0.01
"""Published weights of tensors that a metric wants frozen, and of the others."""


def cost_aware(costs: Sequence[float], ratios: Sequence[float], *key: int) -> Bools:
    """Stratified by cost: each microbatch hits its time target, each tensor its exact share of microbatches.

    The tensors lie on a circle in random order, each as long as its share of the cost; the microbatches take arcs as long
    as their ratios, one after the other, and freeze the tensors whose middles they cover. So a microbatch freezes its
    ratio of the cost to within one tensor, every tensor is frozen in floor or ceil of sum(ratios) microbatches, and each
    with probability exactly its ratio. Ratios that would leave a tensor untrained, which no plan's do, are lowered until
    every tensor is trained at least once (`trained`), except where all are 1.
    """
    ratios_M = trained(ratios)
    cost_P = _shares(costs)
    order = permutation(len(cost_P), *key, 0)
    ends = np.cumsum(cost_P[order])
    offset_P = np.empty(len(cost_P))
    offset_P[order] = uniforms(1, *key, 1)[0] + ends - cost_P[order] / 2
    # whole turns of the circle are left out of the walk, so that they freeze everything whatever the rounding
    walk_M = np.cumsum(np.where(ratios_M >= 1, 0.0, ratios_M))
    before_M = np.concatenate([[0.0], walk_M[:-1]])
    covered = np.floor(walk_M[:, None] + offset_P) > np.floor(before_M[:, None] + offset_P)
    return np.asarray(np.where((ratios_M >= 1)[:, None], True, covered & (ratios_M > 0)[:, None]))


def front_prefix(costs: Sequence[float], ratios: Sequence[float], *key: int, levels: int | None = None) -> Bools:
    """The first tensors up to each microbatch's ratio of the cost: whole front blocks first, masks are nested.

    For the first stage, whose backward ends where its frozen front begins: any trained tensor further front would force
    the chain of input gradients through everything behind it. A plan leaves a microbatch that trains the front; where none
    does (in a mixture of two plans), the one that freezes least trains all, and the others take over its part. With
    `levels`, only so many different depths (and 0) occur, which is what a compiled stage wants: it is compiled once a mask.
    """
    cost_P = _shares(costs)
    depth_M = _with_one_at_zero(np.clip(np.asarray(ratios, dtype=np.float64), 0.0, 1.0), *key)
    if levels is not None:
        depth_M = _in_levels(depth_M, levels, *key)
        middle_P = np.cumsum(cost_P) - cost_P / 2
        return np.asarray((middle_P[None, :] < depth_M[:, None]) & (depth_M > 0)[:, None])
    # where within a tensor the depth counts as covering it is drawn, so that the mean cost is exact
    cut_P = np.cumsum(cost_P)[None, :] - cost_P[None, :] * (1 - uniforms(len(depth_M), *key, 1)[:, None])
    return np.asarray((cut_P < depth_M[:, None]) & (depth_M > 0)[:, None] | (depth_M >= 1)[:, None])


def uniform(tensors: int, ratios: Sequence[float], *key: int, first_stage: bool) -> Bools:
    """Published: round(n · ratio) of n tensors, drawn anew for every microbatch; in the first stage front ones rather."""
    weights = np.linspace(_FRONT_WEIGHT, _REAR_WEIGHT, tensors) if first_stage else np.ones(tensors)
    return _weighted(weights, ratios, *key)


def preferring(preferred: Sequence[bool], ratios: Sequence[float], *key: int) -> Bools:
    """Published hybrids: the plan decides how many tensors, the metric which: weight 1 where preferred, else 0.01."""
    return _weighted(np.where(np.asarray(preferred, dtype=bool), _PREFERRED, _OTHER), ratios, *key)


def trained(ratios: Sequence[float]) -> Floats:
    """The ratios, lowered evenly so far that no tensor need be frozen in every microbatch. All 1 stays all 1."""
    ratios_M = np.clip(np.asarray(ratios, dtype=np.float64), 0.0, 1.0)
    whole = ratios_M >= 1
    parts = float(ratios_M[~whole].sum())
    most = float((~whole).sum()) - 1
    if whole.all() or np.ceil(parts) <= most:
        return ratios_M
    return np.where(whole, 1.0, ratios_M * (most / parts) * (1 - 1e-12))


def frozen_cost(mask: Bools, costs: Sequence[float]) -> Floats:
    """What each microbatch of a mask really freezes, as a share of the stage's cost."""
    return np.asarray(mask @ _shares(costs))


def _weighted(weights_P: Floats, ratios: Sequence[float], *key: int) -> Bools:
    """Draws without replacement, one after the other in proportion to weight (Efraimidis and Spirakis, 2006)."""
    tensors = len(weights_P)
    mask = np.zeros((len(ratios), tensors), dtype=np.bool_)
    for microbatch, ratio in enumerate(ratios):
        ranking = np.argsort(np.log(uniforms(tensors, *key, microbatch)) / weights_P, kind="stable")[::-1]
        mask[microbatch, ranking[: round(tensors * ratio)]] = True
    return mask


def _shares(costs: Sequence[float]) -> Floats:
    """Costs that sum to 1."""
    cost_P = np.asarray(costs, dtype=np.float64)
    total = cost_P.sum()
    return np.asarray(cost_P / total) if total > 0 else np.full(len(cost_P), 1 / max(1, len(cost_P)))


def _with_one_at_zero(depth_M: Floats, *key: int) -> Floats:
    if not len(depth_M) or depth_M.min() <= 0 or depth_M.min() >= 1:
        return depth_M
    least = int(np.lexsort((uniforms(len(depth_M), *key, 0), depth_M))[0])
    room_M = 1 - depth_M
    room_M[least] = 0.0
    share = min(1.0, depth_M[least] / room_M.sum()) if room_M.sum() > 0 else 0.0
    spread = depth_M + share * room_M
    spread[least] = 0.0
    return np.asarray(spread)


def _in_levels(depth_M: Floats, levels: int, *key: int) -> Floats:
    """Multiples of 1/levels with the same sum to within one, rounded one after the other from a drawn start."""
    walk = np.floor(np.concatenate([[0.0], np.cumsum(depth_M * levels)]) + uniforms(1, *key, 2)[0])
    return np.asarray(np.diff(walk) / levels)
