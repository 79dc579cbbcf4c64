"""Which arguments of a denoiser hold one row for every image of every branch, by name, and how to cut one branch out.

A batch of B images under n branches arrives as n·B rows, branch after branch: rows b·B … (b+1)·B belong to branch b.
Whether an argument is stacked like that is known from its name, never guessed from its first size: two text tokens or
two adapters would look like two branches. A tensor under a name that is in no table is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.rank_grid import CONDITIONING_FIELD, ONE_CONDITION_REMEDY

STACKED: Final = frozenset(
    {
        # what is denoised, and when
        *("sample", "hidden_states", "timestep", "timesteps", "timestep_cond", "guidance", "fps"),
        # text and its masks
        *("encoder_hidden_states", "encoder_attention_mask", "attention_mask", "encoder_hidden_states_mask"),
        *("encoder_hidden_states_t5", "text_embedding_mask", "text_embedding_mask_t5"),
        *("encoder_hidden_states_1", "encoder_attention_mask_1", "encoder_hidden_states_2", "encoder_attention_mask_2"),
        *("pooled_projections", "pooled_embeds", "class_labels", "global_hidden_states"),
        # added_cond_kwargs and size conditions
        *("text_embeds", "time_ids", "image_embeds", "resolution", "aspect_ratio", "added_time_ids"),
        *("image_meta_size", "style", "original_size", "target_size", "crop_coords"),
        # pictures: ControlNet, adapters, image prompts
        *("controlnet_cond", "control_type", "down_block_additional_residuals", "mid_block_additional_residual"),
        *("down_intrablock_additional_residuals", "block_controlnet_hidden_states", "controlnet_block_samples"),
        *("ip_adapter_image_embeds", "ip_hidden_states", "encoder_hidden_states_image"),
        *("image_latents", "image_embeddings", "inpaint_latents", "control_latents", "video_coords"),
    }
)
"""One row for each image of each branch; of size 1, or without a first dimension, the same for all rows."""

WHOLE: Final = frozenset(
    {
        *("image_rotary_emb", "rotary_embedding", "img_ids", "txt_ids", "ofs", "rope_interpolation_scale"),
        *("conditioning_scale", "scale", "ip_adapter_masks", "skip_layers", "control_type_idx"),
        *("num_frames", "height", "width", "return_dict", "guess_mode"),
    }
)
"""The same for every row: positions, strengths, switches."""

EXCEPTIONS: Final[Mapping[tuple[str, str], bool]] = {
    ("MochiTransformer3DModel", "image_rotary_emb"): False,
    ("I2VGenXLUNet", "image_embeddings"): True,
}
"""(class of the module, name) -> stacked or not, where the name means something else than in the tables."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of one branch: `batch` rows from `start`, of `total`."""

    start: int
    batch: int
    total: int


def named(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `module`, all by name, in the order of its signature."""
    signature = inspect.signature(type(module).forward)
    bound = signature.bind(module, *args, **kwargs).arguments
    arguments: dict[str, Any] = {}
    for name, value in list(bound.items())[1:]:
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        else:
            arguments[name] = value
    return arguments


def latent_of(arguments: Mapping[str, Any], module: torch.nn.Module) -> torch.Tensor:
    """The primary latent argument: the first of the signature (`sample`, `hidden_states`)."""
    name, value = next(iter(arguments.items()))
    if not isinstance(value, torch.Tensor):
        raise refusal(f"{type(module).__name__} takes {name} as a {type(value).__name__}, not as one tensor of rows")
    return value


def conditions_in(latent: torch.Tensor, *, batch: int, module: torch.nn.Module) -> int:
    """How many branches are stacked in `latent`, of `batch` images each. Raises where it is no whole number."""
    conditions, rest = divmod(latent.shape[0], batch)
    if rest or conditions < 1:
        raise refusal(f"{type(module).__name__} is called with {latent.shape[0]} rows for {batch} images")
    return conditions


def cut(module: torch.nn.Module, arguments: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """The arguments of one branch: views of the stacked ones, the others as they are.

    Containers are made anew, so that a module which changes a dictionary that it was given changes its own.
    Raises BadConfiguration for a tensor under an unknown name, and for a stacked one of any other size than n·B or 1.
    """
    owner = type(module).__name__
    return {name: _cut(owner, name, value, rows) for name, value in arguments.items()}


def _cut(owner: str, name: str, value: Any, rows: Rows) -> Any:
    if isinstance(value, Mapping):
        return {key: _cut(owner, str(key), inner, rows) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cut(owner, name, inner, rows) for inner in value)
    if not isinstance(value, torch.Tensor) or not _is_stacked(owner, name):
        return value
    if value.ndim == 0 or value.shape[0] == 1:
        return value
    if value.shape[0] != rows.total:
        raise refusal(
            f"argument {name!r} of {owner} has {value.shape[0]} rows where {rows.total} are expected "
            f"({rows.total // rows.batch} branches of {rows.batch} images)"
        )
    return value.narrow(0, rows.start, rows.batch)


def _is_stacked(owner: str, name: str) -> bool:
    exception = EXCEPTIONS.get((owner, name))
    if exception is not None:
        return exception
    if name in STACKED:
        return True
    if name in WHOLE:
        return False
    raise refusal(f"nothing is known of the tensor argument {name!r} of {owner}: is it stacked by branch or not?")


def refusal(message: str) -> BadConfiguration:
    """The error for a pipeline whose branches can't be shared."""
    message = f"guidance can't be split: {message}"
    return BadConfiguration(message, field=CONDITIONING_FIELD, remedy=ONE_CONDITION_REMEDY)
