"""What happens to gradients between the last backward and the optimizer: reduction over replicas, scaling, clipping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import nn

_BUCKET_BYTES = 64 * 2**20
"""Gradients are reduced together up to so many bytes: few messages, bounded memory."""
_TINY = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""


def reduce_sums(parameters: Iterable[nn.Parameter], group: dist.ProcessGroup | None) -> None:
    """Sum gradients over replicas, in place. Replicas hold the same tensors, with gradients on the same of them."""
    if group is None:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat, group=group)
        for gradient, part in zip(bucket, torch.split(flat, [gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def divide(divisors: Mapping[nn.Parameter, int]) -> None:
    """Divide each gradient by its own number; where that is 0 nothing was computed, and there is no gradient."""
    for parameter, divisor in divisors.items():
        if divisor == 0:
            parameter.grad = None
        elif parameter.grad is not None:
            parameter.grad.div_(divisor)


def clip(parameters: Sequence[nn.Parameter], max_norm: float, group: dist.ProcessGroup | None) -> float:
    """Scale the gradients of all ranks of `group` by one factor, so that their common norm is at most `max_norm`.

    Returns the norm before; 0 for `max_norm` only measures. Each rank sums its squares in float64 and all add the ranks'
    sums in the same order, so that every rank, and every replica, scales by the very same factor.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    device = parameters[0].device if parameters else torch.device("cpu")
    squares = torch.zeros(1, dtype=torch.float64, device=device)
    for norm in torch._foreach_norm(gradients) if gradients else ():
        squares += norm.to(torch.float64) ** 2
    if group is not None:
        ranks = [torch.empty_like(squares) for _ in range(dist.get_world_size(group))]
        dist.all_gather(ranks, squares, group=group)
        squares = torch.stack(ranks).sum(0)
    total = float(squares.sqrt())
    if max_norm > 0 and gradients:
        factor = min(1.0, max_norm / (total + _TINY)) if total == total else total
        if factor != 1.0:
            torch._foreach_mul_(gradients, factor)
    return total


def _buckets(gradients: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbours of one number type."""
    bucket: list[torch.Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size >= _BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel() * gradient.element_size()
    if bucket:
        yield bucket
