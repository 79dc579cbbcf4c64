"""ZBH1: one stage a rank, the warm-up of 1F1B, and dW put off into bubbles. After ZB-H1 (arXiv 2401.10241, 4.1)."""

from __future__ import annotations

from collections.abc import Iterator

from frazil_jobs.training.planning.actions import Action, Kind


def zbh1(rank: int, ranks: int, microbatches: int) -> Iterator[Action]:
    """Rank r does the dW of a microbatch r microbatches after its dX, so that dX goes on to the rank before at once."""
    warmup = min(microbatches, ranks - rank)
    yield from (Action(Kind.F, rank, microbatch) for microbatch in range(warmup))
    for microbatch in range(microbatches):
        yield Action(Kind.I, rank, microbatch)
        if microbatch >= rank:
            yield Action(Kind.W, rank, microbatch - rank)
        if warmup + microbatch < microbatches:
            yield Action(Kind.F, rank, warmup + microbatch)
    yield from (Action(Kind.W, rank, late) for late in range(max(0, microbatches - rank), microbatches))
