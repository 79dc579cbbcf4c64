"""Makes `examples/shapes/unet`: the small model's counterpart with a U-Net, in SDXL's form; only its autoencoder is taken.

The U-Net has SDXL's own topology (one level without attention, two with; two layers a level, transformers deeper inside)
at 1/13 of its width, two small CLIP text encoders and SDXL's size conditions, so that everything which depends on the
structure of a U-Net (skips, stages, deep features) can be measured on a model that draws. Latents are those of the
autoencoder of `model/`, training as in `train.py`: v-prediction on a cosine schedule, one caption in ten dropped.

    python examples/shapes/train_unet.py               about 25 minutes on one core
    python examples/shapes/evaluate.py --model examples/shapes/unet    generates, reads, writes unet-evaluation.json

Interrupted, the same command goes on from the last checkpoint in `--work`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from draw import PIXELS, Scene
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.nn import functional
from train import WORDS, checkpoint, drawn, half, learning_rate, resume, scheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TOKENS = 16
"""Text tokens of a prompt, padded."""
CHANNELS = 32
"""Of each text encoder; the U-Net attends to both side by side."""
TIME_IDS = (PIXELS, PIXELS, 0, 0, PIXELS, PIXELS)
"""SDXL's size conditions: original size, crop, target size. Always the same here."""


def tokenizer() -> CLIPTokenizer:
    """Byte pairs merged until each word of the captions is one token, in CLIP's format."""
    pairs = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    pairs.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
    pairs.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-")
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    pairs.train_from_iterator([" ".join(WORDS)], trainer)
    pairs_of = [tuple(pair) for pair in _merges(pairs)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in pairs_of)]
    pieces = ["<|startoftext|>", *dict.fromkeys(pieces), "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=pairs_of, pad_token="<|endoftext|>", model_max_length=TOKENS)


def _merges(pairs: Tokenizer) -> list[list[str]]:
    import json

    found: list[list[str]] = json.loads(pairs.to_str())["model"]["merges"]
    return found


def text_encoders(words: CLIPTokenizer) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Two layers of 32 channels each; the second has the projection that SDXL pools."""
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=CHANNELS,
        intermediate_size=4 * CHANNELS,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=TOKENS,
        projection_dim=CHANNELS,
        hidden_act="gelu",
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return CLIPTextModel(config), CLIPTextModelWithProjection(config)


def unet() -> UNet2DConditionModel:
    """SDXL's U-Net at 24, 40 and 56 channels instead of 320, 640 and 1280: 1.7 M parameters."""
    return UNet2DConditionModel(
        sample_size=PIXELS // 4,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(24, 40, 56),
        layers_per_block=2,
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(3, 5, 7),  # the number of heads, whatever the name says
        use_linear_projection=True,
        cross_attention_dim=2 * CHANNELS,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=CHANNELS + 8 * len(TIME_IDS),
        norm_num_groups=8,
    )


class Denoiser(torch.nn.Module):
    """U-Net and text encoders as SDXL's pipeline joins them."""

    def __init__(self, words: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder, self.text_encoder_2 = text_encoders(words)
        self.unet = unet().to(memory_format=torch.channels_last)  # a tenth faster on a CPU

    def forward(
        self, noisy: torch.Tensor, times: torch.Tensor, ids: torch.Tensor, dropped: torch.Tensor
    ) -> torch.Tensor:
        """The prediction for `noisy` (batch, 4, 16, 16); text of the rows in `dropped` is zero, as SDXL's empty prompt."""
        kept = (~dropped).float()[:, None]
        first = self.text_encoder(ids, output_hidden_states=True)
        second = self.text_encoder_2(ids, output_hidden_states=True)
        text = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        sizes = torch.tensor(TIME_IDS, dtype=torch.float32).expand(len(ids), -1)
        added = {"text_embeds": second.text_embeds * kept, "time_ids": sizes}
        found: torch.Tensor = self.unet(
            noisy, times, encoder_hidden_states=text * kept[:, None], added_cond_kwargs=added
        ).sample
        return found


def train(vae: AutoencoderKL, scenes: list[Scene], pixels: torch.Tensor, args: argparse.Namespace) -> None:
    """Fit U-Net and text encoders; write a pipeline folder at each checkpoint and at the end."""
    words = tokenizer()
    with torch.no_grad():
        parts = [vae.encode(part).latent_dist.mode() for part in pixels.split(256)]
    latents = torch.cat(parts) * vae.config.scaling_factor
    ids = words([scene.prompt for scene in scenes], padding="max_length", max_length=TOKENS, return_tensors="pt")
    torch.manual_seed(args.seed)
    denoiser, noise_of = Denoiser(words), scheduler()
    average = EMAModel(denoiser.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)
    optimizer = torch.optim.AdamW(denoiser.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    first = resume(args.work / "unet-checkpoint.pt", denoiser, average, optimizer)
    started, running = time.monotonic(), 0.0
    for step in range(first, args.steps):
        torch.manual_seed(1_000_003 * args.seed + step)  # a resumed run draws what an uninterrupted one draws
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, peak=args.learning_rate, steps=args.steps, warm_up=200)
        chosen = torch.randint(len(latents), (args.batch,))
        dropped = torch.rand(args.batch) < 0.1
        clean, noise = latents[chosen], torch.randn(args.batch, *latents.shape[1:])
        times = torch.randint(1000, (args.batch,))
        noisy, target = noise_of.add_noise(clean, noise, times), noise_of.get_velocity(clean, noise, times)
        found = denoiser(noisy, times, ids.input_ids[chosen], dropped)
        loss = functional.mse_loss(found, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        average.step(denoiser.parameters())
        running = loss.item() if step == first else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"unet {step}/{args.steps} loss {running:.4f} {time.monotonic() - started:.0f}s", flush=True)
        if (step + 1) % args.checkpoint_every == 0 or step + 1 == args.steps:
            checkpoint(args.work / "unet-checkpoint.pt", step + 1, denoiser, average, optimizer)
            average.store(denoiser.parameters())
            average.copy_to(denoiser.parameters())
            save(args.out, vae, denoiser, words)
            average.restore(denoiser.parameters())


def save(folder: Path, vae: AutoencoderKL, denoiser: Denoiser, words: CLIPTokenizer) -> None:
    """Write the pipeline folder; weights as float16 (they are loaded as float32 on a CPU)."""
    pipeline = StableDiffusionXLPipeline(
        vae=half(vae),
        text_encoder=half(denoiser.text_encoder),
        text_encoder_2=half(denoiser.text_encoder_2),
        tokenizer=words,
        tokenizer_2=words,
        unet=half(denoiser.unet),
        scheduler=scheduler(),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def main() -> None:
    """Train and leave the folder."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=here / "unet", help="the pipeline folder that is written")
    parser.add_argument("--vae", type=Path, default=here / "model" / "vae", help="the autoencoder, trained already")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "frazil-shapes",
        help="the checkpoint of an interrupted run",
    )
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--pictures", type=int, default=20000, help="pictures drawn once, at the start")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--checkpoint-every", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    vae = AutoencoderKL.from_pretrained(args.vae, dtype=torch.float32).eval()
    scenes, pixels = drawn(args.pictures, args.seed)
    train(vae, scenes, pixels, args)


if __name__ == "__main__":
    main()
