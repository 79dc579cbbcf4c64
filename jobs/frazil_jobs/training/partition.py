"""Which blocks are which stage's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from frazil_jobs.training.cutting import Cut, uniform


def partition(model: nn.Module, cut: Cut, *, blocks: int, stages: int, balanced: bool) -> list[range]:
    """The blocks of each stage: as many each, or of the same counted work, as far as whole blocks allow."""
    if not balanced or stages == 1:
        return uniform(blocks, stages)
    first, each, last = work(model, cut, blocks)
    costs = list(each)
    costs[0] += first
    costs[-1] += last
    return balance(costs, stages)


def work(model: nn.Module, cut: Cut, blocks: int) -> tuple[int, list[int], int]:
    """Counted work of entries, blocks and heads: weights that are multiplied with, a sample's token at a time.

    A table of embeddings is looked up, not multiplied with, and a matrix of a head is; so the first stage of a language
    model is light and the last one heavy.
    """
    listed = model.get_submodule(cut.blocks)
    each = [_multiplied(block) for block in listed.children()]
    assert len(each) == blocks, "one child a block"
    inside = {id(parameter) for parameter in listed.parameters()}
    first = sum(_multiplied(model.get_submodule(name)) for name in cut.entries if not name.startswith(f"{cut.blocks}."))
    last = 0
    for name in cut.heads:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)._modules.get(leaf)
        if module is not None and not any(id(parameter) in inside for parameter in module.parameters()):
            last += _multiplied(module)
    return first, each, last


def _multiplied(module: nn.Module) -> int:
    tables = {id(table.weight) for table in module.modules() if isinstance(table, nn.Embedding)}
    return sum(
        parameter.numel() for parameter in module.parameters() if parameter.ndim >= 2 and id(parameter) not in tables
    )


def balance(costs: Sequence[int], stages: int) -> list[range]:
    """Cut a row of costs into `stages` parts, none empty, so that the dearest part is as cheap as it can be.

    Of equally good cuts, the one whose sum of squares is least: the others are even, too.
    """
    count = len(costs)
    sums = [0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    # best[k][n]: (dearest part, sum of squares, start of the last part) of the first n blocks in k parts
    best: list[dict[int, tuple[int, int, int]]] = [{0: (0, 0, 0)}]
    for part in range(1, stages + 1):
        row: dict[int, tuple[int, int, int]] = {}
        for stop in range(part, count - (stages - part) + 1):
            row[stop] = min(
                (max(before[0], sums[stop] - sums[start]), before[1] + (sums[stop] - sums[start]) ** 2, start)
                for start, before in best[-1].items()
                if start < stop
            )
        best.append(row)
    cuts = [count]
    for part in range(stages, 0, -1):
        cuts.append(best[part][cuts[-1]][2])
    cuts.reverse()
    return [range(start, stop) for start, stop in pairwise(cuts)]
