"""How long a model's blocks will take, counted from its config: for planning before anything has run.

Counted are multiplications with weight matrices (2 operations a weight and token; as many for dX and for dW) and of
attention (4 · tokens² · width forward, twice that backward, all of it dX), over what a device sustains. Norms, softmax,
tables of embeddings and everything that isn't limited by arithmetic are not, so recorded timings beat this. What a plan
needs most are proportions: of dX to dW, and of the head to a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from frazil_jobs.api.trainingjob import Task, TrainingJobSpec
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning.models import BlockTime, ModelTime

_FIELD: Final = "spec.model.uri"
_DEFAULT_LENGTH: Final = 1024
_BYTES: Final = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is counted of a model, for one sample."""

    blocks: int
    width: int
    """Numbers of a token, which also travel between stages."""
    tokens: int
    block_weights: int
    """Weights of a block that every token is multiplied with."""
    entry_weights: int = 0
    """Of what comes before the blocks."""
    head_weights: int = 0
    """Of what comes after them."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What is assumed of the machine."""

    teraflops: float = 100.0
    """Sustained, in the job's precision."""
    gigabytes: float = 100.0
    """Per second, from one rank to the next."""


def estimate(shape: Shape, *, samples: int, bytes_each: int, device: Device, checkpointed: bool = False) -> ModelTime:
    """The times of a microbatch of `samples`, whose activations take `bytes_each` a number. `checkpointed`: a block's
    backward begins with its forward."""
    rate = device.teraflops * 1e12
    tokens = samples * shape.tokens

    def matrices(weights: int) -> float:
        return 2.0 * weights * tokens / rate

    attention = 4.0 * tokens * shape.tokens * shape.width / rate
    each = matrices(shape.block_weights)
    entry, head = matrices(shape.entry_weights), matrices(shape.head_weights)
    forward, again = each + attention, checkpointed * (each + attention)
    block = BlockTime(forward=forward, backward_input=each + 2 * attention + again, backward_weight=each)
    return ModelTime(
        blocks=(block,) * shape.blocks,
        before=BlockTime(forward=entry, backward_input=0.0, backward_weight=entry),
        after=BlockTime(forward=head, backward_input=head, backward_weight=head),
        provenance="estimated",
        hop_seconds=tokens * shape.width * bytes_each / (device.gigabytes * 1e9),
    )


def estimate_job(spec: TrainingJobSpec, shape: Shape, device: Device) -> ModelTime:
    """`estimate` of a job's microbatch."""
    return estimate(
        shape,
        samples=microbatch_size(spec),
        bytes_each=_BYTES[spec.precision],
        device=device,
        checkpointed=spec.parallelism.activation_checkpointing,
    )


def microbatch_size(spec: TrainingJobSpec) -> int:
    """Samples of one microbatch."""
    parallelism = spec.parallelism
    return spec.batch_size // (parallelism.microbatches * parallelism.data * spec.accumulation)


def shape_of(
    task: Task, config: Mapping[str, Any], *, sequence_length: int | None = None, latent_side: int | None = None
) -> Shape:
    """What a config.json of the task's model says. `sequence_length` for CausalLM, `latent_side` (what the transformer sees
    of a picture, each way) for DiffusionTransformer; left out: the model's own.

    Raises BadConfiguration for a config that lacks a number."""
    readers: dict[Task, Callable[[], Shape]] = {
        "CausalLM": lambda: _causal_lm(config, sequence_length),
        "ImageClassification": lambda: _vit(config),
        "DiffusionTransformer": lambda: _diffusion(config, latent_side),
    }
    try:
        return readers[task]()
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"can't be read: {error}"
        raise BadConfiguration(
            f"the model's config.json {what}", field=_FIELD, remedy=f"name the folder of a model for task {task}"
        ) from None


def _causal_lm(config: Mapping[str, Any], length: int | None) -> Shape:
    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    head = int(config.get("head_dim") or width // heads)
    keys = int(config.get("num_key_value_heads") or heads)
    return Shape(
        blocks=int(config["num_hidden_layers"]),
        width=width,
        tokens=length or min(int(config["max_position_embeddings"]), _DEFAULT_LENGTH),
        block_weights=2 * width * head * (heads + keys) + 3 * width * int(config["intermediate_size"]),
        head_weights=width * int(config["vocab_size"]),
    )


def _vit(config: Mapping[str, Any]) -> Shape:
    width, patch = int(config["hidden_size"]), int(config["patch_size"])
    return Shape(
        blocks=int(config["num_hidden_layers"]),
        width=width,
        tokens=(int(config["image_size"]) // patch) ** 2 + 1,
        block_weights=4 * width * width + 2 * width * int(config["intermediate_size"]),
        entry_weights=int(config["num_channels"]) * patch**2 * width,
    )


def _diffusion(config: Mapping[str, Any], side: int | None) -> Shape:
    """DiT and PixArt; SD3, whose text tokens aren't counted."""
    width, patch = int(config["num_attention_heads"]) * int(config["attention_head_dim"]), int(config["patch_size"])
    crosses = config.get("cross_attention_dim") is not None
    return Shape(
        blocks=int(config["num_layers"]),
        width=width,
        tokens=((side or int(config["sample_size"])) // patch) ** 2,
        block_weights=(14 if crosses else 12) * width * width,
        entry_weights=int(config["in_channels"]) * patch**2 * width,
        head_weights=int(config.get("out_channels") or config["in_channels"]) * patch**2 * width,
    )
