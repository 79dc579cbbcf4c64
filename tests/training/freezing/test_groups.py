"""Freeze ratios by tensor group: which tensors are one group, and that groups add up to their stage."""

from __future__ import annotations

import pytest
from torch import nn

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.training.freezing.costs import OUTSIDE, StageTensors, group_of
from frazil_jobs.training.freezing.exchange import Alone
from frazil_jobs.training.freezing.selection import Selection
from frazil_jobs.training.planning.schedules import order_of


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.model.layers.3.self_attn.q_proj.weight", "self_attn"),
        ("model.model.layers.11.input_layernorm.weight", "input_layernorm"),
        ("model.transformer_blocks.0.ff.net.0.proj.weight", "ff"),
        ("model.transformer_blocks.0.scale_shift_table", "scale_shift_table"),
        ("model.model.embed_tokens.weight", OUTSIDE),
        ("model.lm_head.weight", OUTSIDE),
        ("model.adaln_single.emb.timestep_embedder.linear_1.bias", OUTSIDE),
    ],
)
def test_a_group_is_a_part_of_a_block(name: str, group: str) -> None:
    assert group_of(name) == group


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(4, 12)
        self.mlp = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 4))


def test_the_groups_of_a_stage_add_up_to_it_by_their_cost() -> None:
    tensors = {
        1: StageTensors.of(nn.ModuleDict({"head": nn.Linear(4, 4), "layers": nn.ModuleList([Block(), Block()])}))
    }
    order = order_of("1F1B", ranks=2, microbatches=4)
    selection = Selection(Freezing(), tensors, order, accumulation=1, seed=0, levels=None, exchange=Alone())
    ratios = {action: 0.25 * action.microbatch for action in order.actions if action.kind.freezable}
    selection.draw(0, ratios, probing=False)
    groups = selection.group_shares()[1]
    assert set(groups) == {"attention", "mlp", OUTSIDE}
    of = tensors[1]
    cost = {group: sum(c for n, c in zip(of.names, of.costs, strict=True) if group_of(n) == group) for group in groups}
    assert sum(cost[group] * groups[group] for group in groups) == pytest.approx(selection.stage_shares()[1])
    assert selection.stage_shares()[1] == pytest.approx(0.375, abs=0.1)
