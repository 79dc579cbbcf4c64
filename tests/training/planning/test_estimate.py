"""Estimates against parameters that the libraries' own models have."""

from __future__ import annotations

import pytest

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning.estimate import Device, Shape, estimate, shape_of
from frazil_jobs.training.planning.partition import cut
from frazil_jobs.training.planning.schedules import order_of

LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 200,
    "max_position_embeddings": 128,
}
VIT = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 4,
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 8,
    "norm_type": "ada_norm_zero",
    "num_embeds_ada_norm": 10,
}


def matrices(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim >= 2)


def test_a_llamas_weights_are_counted_as_transformers_makes_them() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**LLAMA))
    shape = shape_of("CausalLM", LLAMA)
    assert shape.blocks == len(model.model.layers) == 3
    assert shape.block_weights == matrices(model.model.layers[0])
    assert shape.head_weights == matrices(model.lm_head)
    assert shape.tokens == 128
    assert shape_of("CausalLM", LLAMA, sequence_length=32).tokens == 32


def test_a_vits_weights_and_tokens_are_counted_as_transformers_makes_them() -> None:
    from transformers import ViTConfig, ViTModel

    model = ViTModel(ViTConfig(**VIT), add_pooling_layer=False)
    shape = shape_of("ImageClassification", VIT)
    block = next(module for module in model.modules() if type(module).__name__ == "ViTLayer")
    assert shape.block_weights == matrices(block)
    assert shape.entry_weights == matrices(model.embeddings.patch_embeddings)
    assert shape.tokens == model.embeddings.position_embeddings.shape[1]


def test_a_dits_tokens_and_multiplied_weights_are_counted() -> None:
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(**DIT)
    block = model.transformer_blocks[0]
    shape = shape_of("DiffusionTransformer", DIT)
    # What conditions a whole sample (adaLN) is multiplied once a sample, not once a token.
    assert shape.block_weights == matrices(block.attn1) + matrices(block.ff)
    assert shape.tokens == 64
    assert shape_of("DiffusionTransformer", DIT, latent_side=32).tokens == 256


def test_time_is_operations_over_what_a_device_sustains() -> None:
    shape = Shape(blocks=2, width=10, tokens=100, block_weights=1000, head_weights=500)
    model = estimate(shape, samples=3, bytes_each=2, device=Device(teraflops=1e-6, gigabytes=1e-6))
    matrix, attention = 2 * 1000 * 300 / 1e6, 4 * 300 * 100 * 10 / 1e6
    assert model.blocks[0].forward == pytest.approx(matrix + attention)
    assert model.blocks[0].backward_input == pytest.approx(matrix + 2 * attention)
    assert model.blocks[0].backward_weight == pytest.approx(matrix)
    assert model.after.forward == pytest.approx(matrix / 2)
    assert model.hop_seconds == pytest.approx(300 * 10 * 2 / 1e3)
    again = estimate(shape, samples=3, bytes_each=2, device=Device(teraflops=1e-6, gigabytes=1e-6), checkpointed=True)
    assert again.blocks[0].backward_input == pytest.approx(2 * matrix + 3 * attention)
    assert (again.blocks[0].forward, again.after) == (model.blocks[0].forward, model.after)
    faster = estimate(shape, samples=3, bytes_each=2, device=Device(teraflops=2e-6, gigabytes=1e-6))
    assert faster.blocks[0].forward == pytest.approx(model.blocks[0].forward / 2)


def test_a_small_models_vocabulary_moves_blocks_away_from_the_last_stage() -> None:
    config = {**LLAMA, "num_hidden_layers": 16, "vocab_size": 6000}
    model = estimate(shape_of("CausalLM", config), samples=2, bytes_each=2, device=Device())
    sizes = cut("Balanced", model, order_of("1F1B", ranks=4, microbatches=8)).sizes
    assert sizes[-1] < min(sizes[:-1])


@pytest.mark.parametrize(
    ("config", "said"),
    [({}, "has no 'hidden_size'"), ({**LLAMA, "num_attention_heads": "few"}, "can't be read")],
)
def test_a_config_of_another_model_is_refused(config, said) -> None:
    with pytest.raises(BadConfiguration, match=said) as refused:
        shape_of("CausalLM", config)
    assert refused.value.field == "spec.model.uri"
