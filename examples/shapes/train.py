"""Makes `examples/shapes/model`: a text-to-image pipeline folder in diffusers' own format, from nothing, on a CPU.

Three parts, trained on pictures that `draw.py` draws: a small autoencoder (64 x 64 pixels to 16 x 16 x 4 latents), then a
PixArt-class transformer and a small T5 encoder together, with v-prediction (Salimans & Ho 2022) on a cosine schedule, so
that the pipeline's usual schedulers (DDIM, Euler, DPM++) all work. One caption in ten is dropped, for guidance.

    python examples/shapes/train.py                    about half an hour on two idle cores
    python examples/shapes/train.py --stop-after 200 --out try

Interrupted, the same command goes on from the last checkpoint in `--work`.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
from diffusers.training_utils import EMAModel
from draw import COLOURS, PIXELS, PLACES, RADII, SHAPES, TRAINING, Scene, draw
from torch.nn import functional
from transformers import PreTrainedModel, T5Config, T5EncoderModel, T5Tokenizer

TOKENS = 16
"""Text tokens of a prompt, padded."""
WORDS = tuple(dict.fromkeys(" ".join(("a", *RADII, *COLOURS, *SHAPES, *PLACES)).split()))


def tokenizer() -> T5Tokenizer:
    """A word-level vocabulary with letters to fall back on, in T5's format."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -4.0)]
    pieces += [(f"\u2581{word}", -1.0) for word in WORDS]
    pieces += [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TOKENS)


def autoencoder() -> AutoencoderKL:
    """64 x 64 x 3 pixels to 16 x 16 x 4 latents."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=PIXELS,
        mid_block_add_attention=False,
    )


def text_encoder(vocabulary: int) -> T5EncoderModel:
    """Two layers, 64 channels."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


def transformer() -> PixArtTransformer2DModel:
    """Six blocks of 128 channels over 64 patches of 2 x 2 latents: 1.8 M parameters."""
    return PixArtTransformer2DModel(
        sample_size=16,
        num_layers=6,
        patch_size=2,
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=128,
        caption_channels=64,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=False,
    )


def scheduler() -> DDIMScheduler:
    """v-prediction on the cosine schedule; steps are counted back from the noisiest."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )


def drawn(count: int, seed: int) -> tuple[list[Scene], torch.Tensor]:
    """`count` training pictures: their scenes, and pixels in [-1, 1], float32, (count, 3, 64, 64)."""
    rng = np.random.default_rng(seed)
    scenes = [TRAINING[index] for index in rng.integers(len(TRAINING), size=count)]
    pixels = np.stack([draw(scene, rng) for scene in scenes])
    return scenes, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def learning_rate(step: int, *, peak: float, steps: int, warm_up: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def train_autoencoder(pixels: torch.Tensor, *, steps: int, work: Path) -> AutoencoderKL:
    """Fit the autoencoder by absolute and squared error and a slight pull of the latents towards a unit Gaussian."""
    vae = autoencoder()
    if (work / "vae").exists():
        return AutoencoderKL.from_pretrained(work / "vae").eval()
    optimizer = torch.optim.AdamW(vae.parameters(), weight_decay=0.01)
    started = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, peak=2e-3, steps=steps, warm_up=50)
        batch = pixels[torch.randint(len(pixels), (32,))]
        posterior = vae.encode(batch).latent_dist
        restored = vae.decode(posterior.sample()).sample
        error = functional.l1_loss(restored, batch) + functional.mse_loss(restored, batch)
        loss = error + 1e-6 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"autoencoder {step}/{steps} error {error.item():.4f} {time.monotonic() - started:.0f}s", flush=True)
    vae.eval()
    with torch.no_grad():
        latents = vae.encode(pixels[:512]).latent_dist.mode()
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    vae.save_pretrained(work / "vae")
    return vae


def train_denoiser(vae: AutoencoderKL, scenes: list[Scene], pixels: torch.Tensor, args: argparse.Namespace) -> None:
    """Fit transformer and text encoder; write a pipeline folder at each checkpoint and at the end."""
    words = tokenizer()
    with torch.no_grad():
        parts = [vae.encode(part).latent_dist.mode() for part in pixels.split(256)]
    latents = torch.cat(parts) * vae.config.scaling_factor
    tokens = words([scene.prompt for scene in scenes], padding="max_length", max_length=TOKENS, return_tensors="pt")
    empty = words([""], padding="max_length", max_length=TOKENS, return_tensors="pt")
    torch.manual_seed(args.seed)  # the same start whether the autoencoder was trained just now or found in `--work`
    encoder, denoiser, noise_of = text_encoder(len(words)), transformer(), scheduler()
    trained = torch.nn.ModuleList([encoder, denoiser])
    average = EMAModel(trained.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)
    optimizer = torch.optim.AdamW(trained.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    first = resume(args.work / "checkpoint.pt", trained, average, optimizer)
    started = time.monotonic()
    running = 0.0
    last = min(args.steps, args.stop_after)
    for step in range(first, last):
        torch.manual_seed(1_000_003 * args.seed + step)  # a resumed run draws what an uninterrupted one draws
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, peak=args.learning_rate, steps=args.steps, warm_up=200)
        chosen = torch.randint(len(latents), (args.batch,))
        dropped = torch.rand(args.batch, 1) < 0.1
        ids = torch.where(dropped, empty.input_ids, tokens.input_ids[chosen])
        mask = torch.where(dropped, empty.attention_mask, tokens.attention_mask[chosen])
        clean, noise = latents[chosen], torch.randn(args.batch, *latents.shape[1:])
        times = torch.randint(1000, (args.batch,))
        noisy, target = noise_of.add_noise(clean, noise, times), noise_of.get_velocity(clean, noise, times)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            text = encoder(ids, attention_mask=mask).last_hidden_state
            found = denoiser(
                noisy,
                encoder_hidden_states=text,
                encoder_attention_mask=mask,
                timestep=times,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            ).sample
        loss = functional.mse_loss(found.float(), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        average.step(trained.parameters())
        running = loss.item() if step == first else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"denoiser {step}/{last} loss {running:.4f} {time.monotonic() - started:.0f}s", flush=True)
        if (step + 1) % args.checkpoint_every == 0 or step + 1 == last:
            checkpoint(args.work / "checkpoint.pt", step + 1, trained, average, optimizer)
            average.store(trained.parameters())
            average.copy_to(trained.parameters())
            save(args.out, vae, encoder, denoiser, words)
            average.restore(trained.parameters())


def checkpoint(
    path: Path, step: int, trained: torch.nn.Module, average: EMAModel, optimizer: torch.optim.Optimizer
) -> None:
    state = {
        "step": step,
        "model": trained.state_dict(),
        "ema": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def resume(path: Path, trained: torch.nn.Module, average: EMAModel, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    trained.load_state_dict(state["model"])
    average.load_state_dict(state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"going on from step {state['step']}", flush=True)
    return int(state["step"])


def save(
    folder: Path, vae: AutoencoderKL, encoder: T5EncoderModel, denoiser: PixArtTransformer2DModel, words: T5Tokenizer
) -> None:
    """Write the pipeline folder; weights as float16 (they are loaded as float32 on a CPU)."""
    pipeline = PixArtSigmaPipeline(
        tokenizer=words,
        text_encoder=half(encoder),
        vae=half(vae),
        transformer=half(denoiser),
        scheduler=scheduler(),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def half(model: torch.nn.Module) -> torch.nn.Module:
    """A float16 copy of a model of diffusers or transformers."""
    if isinstance(model, PreTrainedModel):
        clone = type(model)(model.config)
    else:
        # diffusers' notes on itself: where it was loaded from, and which values it may replace by their defaults.
        notes = ("_name_or_path", "_use_default_values")
        clone = type(model).from_config({name: value for name, value in model.config.items() if name not in notes})
    clone.load_state_dict(model.state_dict())
    return clone.half().eval()


def main() -> None:
    """Train all parts and leave the folder."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=here / "model", help="the pipeline folder that is written")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "frazil-shapes",
        help="checkpoints of an interrupted run",
    )
    parser.add_argument("--steps", type=int, default=6000, help="optimizer steps of the denoiser's schedule")
    parser.add_argument("--stop-after", type=int, default=2500, help="end here; the reader finds nothing wrong by then")
    parser.add_argument("--vae-steps", type=int, default=1500, help="optimizer steps of the autoencoder")
    parser.add_argument("--pictures", type=int, default=20000, help="pictures drawn once, at the start")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--checkpoint-every", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 autocast")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    scenes, pixels = drawn(args.pictures, args.seed)
    vae = train_autoencoder(pixels, steps=args.vae_steps, work=args.work)
    train_denoiser(vae, scenes, pixels, args)


if __name__ == "__main__":
    main()
