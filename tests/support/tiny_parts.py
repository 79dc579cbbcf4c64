"""The parts that tiny pipelines share: tokenizers without files, text encoders, autoencoders, weights that can be heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

# fmt: off

SMALL_SHOWN = set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256))


def clip_tokenizer() -> CLIPTokenizer:
    """Bytes as tokens. The end token has the highest id, because CLIP pools at the largest id of the row."""
    hidden = iter(range(256, 512))
    letters = [chr(byte) if byte in SMALL_SHOWN else chr(next(hidden)) for byte in range(256)]
    tokens = ["<|startoftext|>", "<pad>", *letters, *(letter + "</w>" for letter in letters), "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>", model_max_length=77)


def t5_tokenizer(length: int = 77) -> T5Tokenizer:
    """One piece a character."""
    characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'-"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *((c, -3.0) for c in characters)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def seeded(make: Callable[[], torch.nn.Module], seed: int = 0) -> Any:
    """The module with weights from `seed`, in evaluation mode (dropout of T5 would make two runs differ)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def clip(kind: type, seed: int = 0, loudness: float = 1.0) -> Any:
    config = CLIPTextConfig(
        bos_token_id=0, eos_token_id=2, pad_token_id=1, hidden_size=32, intermediate_size=37, num_attention_heads=4,
        num_hidden_layers=2, vocab_size=1000, hidden_act="gelu", projection_dim=32, layer_norm_eps=1e-5,
    )
    encoder = seeded(lambda: kind(config), seed)
    final = getattr(encoder, "text_model", encoder).final_layer_norm
    with torch.no_grad():
        final.weight.mul_(loudness)
    return encoder


def t5() -> Any:
    config = T5Config(
        vocab_size=1103, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
        dropout_rate=0.0,
    )
    encoder = seeded(lambda: T5EncoderModel(config))
    with torch.no_grad():
        encoder.encoder.final_layer_norm.weight.mul_(3)  # text has to be heard over the noise
    return encoder


def vae(latent: int = 4, **extra: Any) -> Any:
    return seeded(
        lambda: diffusers.AutoencoderKL(
            sample_size=32,
            in_channels=3,
            out_channels=3,
            block_out_channels=(4,),
            layers_per_block=1,
            latent_channels=latent,
            norm_num_groups=1,
            **extra,
        )
    )


def two_level_vae() -> Any:
    return seeded(
        lambda: diffusers.AutoencoderKL(
            block_out_channels=[32, 64],
            in_channels=3,
            out_channels=3,
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            latent_channels=4,
            sample_size=128,
        )
    )


def liven(model: torch.nn.Module, gain: float = 0.9, seed: int = 1, louder: dict[str, float] | None = None) -> Any:
    """Draw the weights again, large enough that text and time show in the output, zero-initialised layers included.

    Matrices and kernels are normal with `gain` / sqrt(fan in), biases small; weights whose name holds a key of `louder` get
    that many times more.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim >= 2:
                factor = next((times for part, times in (louder or {}).items() if part in name), 1.0)
                fan_in = max(1, weight.numel() // weight.shape[0])
                weight.copy_(noise * (factor * gain / fan_in**0.5))
            elif name.endswith("bias"):
                weight.copy_(noise * 0.05)
    return model
