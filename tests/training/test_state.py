"""The files of a checkpoint: names that a store takes, and a folder that the ranks of a pod can read at once."""

from __future__ import annotations

import torch
from torch import nn

from frazil_jobs.training import state


def test_a_checkpoint_is_read_to_the_bit_and_its_folder_stays_as_it_was(tmp_path):
    torch.manual_seed(0)
    written, optimizer = trained()
    files = state.write(state.gathered(written, optimizer, None, rank=0, own={"step": 3}), tmp_path, None)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in files)
    assert not any(name.startswith(".") for name in names), "a hidden name is no key of a store"

    found, its_optimizer = trained()
    assert not torch.equal(found["weight"], written["weight"])
    # A rank that renamed a file here took it from the other ranks of its pod, which ended or waited for ever.
    assert state.read(tmp_path, found, its_optimizer, None, rank=0, group=None) == {"step": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name, weight in found.items():
        assert torch.equal(weight, written[name])
        momentum = optimizer.state[written[name]]["momentum_buffer"]
        assert torch.equal(its_optimizer.state[weight]["momentum_buffer"], momentum)


def trained() -> tuple[dict[str, nn.Parameter], torch.optim.SGD]:
    """A layer, and an optimizer that has made a step of it."""
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return dict(layer.named_parameters()), optimizer
