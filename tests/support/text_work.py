"""What the ranks of a `RankPool` are asked to do in tests of the shared text encoding."""

from __future__ import annotations

from typing import Any

import rank_work
import torch
from branch_cases import Case, build, call_of

from frazil_jobs.generation.branches import split_branches
from frazil_jobs.generation.text import ENCODERS, TextShare


def generate(case: Case, *, share: bool, calls: int = 3, mixing: bool = False) -> dict[str, Any]:
    """Latents of several calls, how often each encoder's last layer ran in each, and why the text wasn't shared."""
    groups = rank_work.groups_for(2, 1)
    pipe = build(case)
    ran: list[int] = []
    for name in ENCODERS:
        module = getattr(pipe, name, None)
        if module is not None:
            list(module.children())[-1].register_forward_hook(lambda *_: ran.append(1))
    if mixing:
        _mix(pipe)
    text = TextShare(pipe, groups) if share else None
    found: dict[str, Any] = {"latents": [], "ran": [], "reason": None}
    with split_branches(pipe, groups, rank_work.configs_of(pipe)) as split:
        for _ in range(calls):
            ran.clear()
            arguments = call_of(case)
            with split.call(arguments, batch_size=case.batch), torch.no_grad():
                found["latents"].append(pipe(**arguments)[0])
            found["ran"].append(len(ran))
    if text is not None:
        found["reason"] = text.reason
        text.close()
    return found


def _mix(pipe: Any) -> None:
    """A pipeline that subtracts the branches' texts from each other."""
    encode = pipe.encode_prompt

    def mixing(*args: Any, **kwargs: Any) -> Any:
        first, mask, second, *rest = encode(*args, **kwargs)  # PixArt's order
        return (first + 0.01 * second, mask, second, *rest)

    pipe.encode_prompt = mixing
