"""The reference: the branches of guidance evaluated one after the other, in one process, with none of Frazil's code.

For pipelines that stack their branches, what is stacked is written out here for each of them, so that a mistake in Frazil's
own tables can't hide. For pipelines that call their denoiser twice the stock pipeline is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

SDXL = ("sample", "encoder_hidden_states", "added_cond_kwargs.text_embeds", "added_cond_kwargs.time_ids")
RESIDUALS = ("down_block_additional_residuals", "mid_block_additional_residual")
STACKED: dict[str, tuple[str, ...]] = {
    "sdxl": (*SDXL, "added_cond_kwargs.image_embeds"),
    "sdxl-controlnet": (*SDXL, *RESIDUALS),
    "sdxl-multi-controlnet": (*SDXL, *RESIDUALS),
    "instruct-pix2pix": ("sample", "encoder_hidden_states"),
    "sd3": ("hidden_states", "timestep", "encoder_hidden_states", "pooled_projections"),
    "pixart": ("hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask"),
    "ltx": ("hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask"),
    "cogvideox": ("hidden_states", "timestep", "encoder_hidden_states"),
    "stable-audio": ("hidden_states", "encoder_hidden_states", "global_hidden_states"),
}
CONTROLNET = (*SDXL, "controlnet_cond")
POSITIONAL = {
    "UNet2DConditionModel": ("sample", "timestep"),
    "ControlNetModel": ("sample", "timestep"),
    "MultiControlNetModel": ("sample", "timestep"),
    "PixArtTransformer2DModel": ("hidden_states",),
    "StableAudioDiTModel": ("hidden_states", "timestep"),
}


class Branches:
    """What the reference saw of the branches' predictions: the least distance between two of a step, relative, by step."""

    def __init__(self) -> None:
        self.distances: list[float] = []

    def note(self, predictions: list[torch.Tensor]) -> None:
        self.distances.append(
            min(
                float((one - other).abs().mean() / other.abs().mean())
                for index, one in enumerate(predictions)
                for other in predictions[:index]
            )
        )


@contextmanager
def branches_one_by_one(pipe: Any, name: str, *, branches: int, batch: int) -> Iterator[Branches]:
    """Evaluate each call of the denoiser (and of a ControlNet) branch by branch inside of the context."""
    seen = Branches()
    denoiser = _denoiser(pipe)
    replaced = [(denoiser, denoiser.forward)]
    denoiser.forward = _one_by_one(denoiser, STACKED[name], branches, batch, seen.note)
    if hasattr(pipe, "controlnet"):
        replaced.append((pipe.controlnet, pipe.controlnet.forward))
        pipe.controlnet.forward = _one_by_one(pipe.controlnet, CONTROLNET, branches, batch, lambda _: None)
    try:
        yield seen
    finally:
        for module, forward in replaced:
            module.forward = forward


@contextmanager
def pairs_watched(pipe: Any) -> Iterator[Branches]:
    """The stock pipeline with two calls a step, whose predictions are only looked at."""
    seen = Branches()
    first: list[torch.Tensor] = []

    def note(_module: Any, _arguments: Any, output: Any) -> None:
        first.append(output[0].clone())
        if len(first) == 2:
            seen.note(first)
            first.clear()

    handles = [
        module.register_forward_hook(note)
        for name in ("transformer", "transformer_2")
        if isinstance(module := getattr(pipe, name, None), torch.nn.Module)
    ]
    yield seen
    for handle in handles:
        handle.remove()


def _denoiser(pipe: Any) -> Any:
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def _one_by_one(
    module: Any, stacked: tuple[str, ...], branches: int, batch: int, note: Callable[[list[torch.Tensor]], None]
) -> Callable[..., Any]:
    inner = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        arguments = dict(zip(POSITIONAL.get(type(module).__name__, ()), args, strict=False)) | kwargs
        if next(iter(arguments[name] for name in stacked if "." not in name)).shape[0] == batch:
            return inner(**arguments)
        outputs = []
        for branch in range(branches):
            piece = dict(arguments)
            for path in stacked:
                outer, _, key = path.partition(".")
                if not key and piece.get(outer) is not None:
                    piece[outer] = _chunk(piece[outer], branches, branch)
                elif key and key in (piece.get(outer) or {}):
                    piece[outer] = {**piece[outer], key: _chunk(piece[outer][key], branches, branch)}
            outputs.append(inner(**piece))
        predictions = [output[0] for output in outputs]
        if isinstance(predictions[0], torch.Tensor):
            note(predictions)
            return (torch.cat(predictions),)
        return [torch.cat(levels) for levels in zip(*predictions, strict=True)], torch.cat([out[1] for out in outputs])

    return forward


def _chunk(value: Any, branches: int, branch: int) -> Any:
    if isinstance(value, list | tuple):
        return [_chunk(part, branches, branch) for part in value]
    return value.chunk(branches)[branch]
