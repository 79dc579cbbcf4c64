"""Models small enough for a test, as folders that a TrainingJob can name, and jobs that name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from frazil_jobs.api.trainingjob import TrainingJob

CORPUS = "the quick brown fox jumps over the lazy dog and runs away from the slow grey cat. " * 40


def job(task: str = "CausalLM", **spec: Any) -> TrainingJob:
    """A job of `task` on one rank; `spec` in camelCase overrides whole sections."""
    document = {
        "metadata": {"name": "tiny"},
        "spec": {
            "task": task,
            "model": {"uri": "model"},
            "dataset": {"uri": "data"},
            "initialWeights": "Random",
            "steps": 4,
            "batchSize": 8,
            "precision": "float32",
            "seed": 5,
            "parallelism": {"pipeline": 1, "microbatches": 2},
            "freezing": {"method": "None"},
            "workers": {"gpusPerNode": 1},
            "optimizer": {"warmupSteps": 0, "learningRate": "0.01"},
            "checkpoint": {"everySteps": 2},
            "evaluation": {"everySteps": 2, "batches": 2},
            **spec,
        },
    }
    return TrainingJob.model_validate(document)


def llama(folder: Path, *, layers: int = 4, tied: bool = False, **config: Any) -> Path:
    """A Llama of 32 channels with a byte-level tokenizer of 300 tokens; no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([CORPUS], trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    settings = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "tie_word_embeddings": tied, **config,
    }  # fmt: skip
    transformers.LlamaConfig(architectures=["LlamaForCausalLM"], **settings).save_pretrained(folder)
    return folder


def vit(folder: Path, *, layers: int = 4, classes: int = 10) -> Path:
    """A ViT of 32 channels for grey pictures of 8 pixels; no weights."""
    transformers.ViTConfig(
        architectures=["ViTForImageClassification"], hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=4, image_size=8, patch_size=4, num_channels=1, num_labels=classes,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def diffusion(folder: Path, kind: str = "pixart", *, layers: int = 4) -> Path:
    """A pipeline folder of one of the families (pixart, sd3, dit), its transformer with weights."""
    import tiny_pipelines

    if kind == "dit":
        pipe = _dit(layers)
    elif kind == "sd3":
        pipe = tiny_pipelines.sd3(layers=layers)
    else:
        pipe = tiny_pipelines.pixart(layers=layers, sigma=True)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def _dit(layers: int) -> Any:
    import diffusers
    import tiny_parts

    transformer = tiny_parts.seeded(
        lambda: diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=layers, sample_size=8,
            patch_size=2, num_embeds_ada_norm=10, attention_bias=True, activation_fn="gelu-approximate",
        )
    )  # fmt: skip
    return diffusers.DiTPipeline(
        transformer=tiny_parts.liven(transformer), vae=tiny_parts.vae(), scheduler=diffusers.DDIMScheduler()
    )
