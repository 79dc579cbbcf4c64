"""What the weight gradient (dW) of each tensor of a stage costs, relative to the others, counted from its module."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

LEAST_COST = 1.0
"""No tensor is free: even a scalar's gradient is a kernel."""
OUTSIDE = "outside the blocks"
"""The group of embeddings, final norms and heads."""


@dataclass(frozen=True)
class StageTensors:
    """The trainable tensors of one stage, in the order in which its module registers them."""

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    costs: tuple[float, ...]
    """Share of the stage's dW, summing to 1."""

    @classmethod
    def of(cls, module: nn.Module) -> StageTensors:
        """Those that require gradients now: a tensor that the model itself holds fixed takes no part.

        dW of a matrix multiplication or convolution takes as many multiplications a token as the weight has elements; a
        bias or a norm sums its own size; a table of embeddings adds one row a token, whatever its length.
        """
        rows = {id(part.weight): part.embedding_dim for part in module.modules() if isinstance(part, nn.Embedding)}
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        costs = [max(LEAST_COST, float(rows.get(id(parameter), parameter.numel()))) for _, parameter in named]
        total = sum(costs)
        return cls(
            names=tuple(name for name, _ in named),
            parameters=tuple(parameter for _, parameter in named),
            costs=tuple(cost / total for cost in costs),
        )

    def __len__(self) -> int:
        return len(self.names)


def group_of(name: str) -> str:
    """The group of a tensor: its part of a block (self_attn, mlp), which the name has after the block's number."""
    *modules, _ = name.split(".")
    number = next((at for at, part in enumerate(modules) if part.isdigit()), None)
    return OUTSIDE if number is None else name.split(".")[number + 1]
