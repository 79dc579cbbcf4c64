# ruff: noqa: C408
"""Tiny random pipelines of every kind that the tests need, made here with no download.

`build(name)` returns a pipeline in fp32 on the CPU, `save(name, folder)` the folder that `save_pretrained` writes, and
`call_arguments(name)` keyword arguments that suit its sizes. Sizes follow diffusers' own test-suite. The weights are
random but scaled (`liven`), so that the branches of guidance differ by far more than rounding: a test that mixed them up
would see it. Image-to-image and inpainting use the folder of the plain pipeline: load it as
`StableDiffusionXLImg2ImgPipeline` and so on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import tiny_parts as parts
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

# fmt: off

def sdxl_unet(**changes: Any) -> Any:
    """The UNet of `sdxl`, two levels, text_time embedding."""
    config: dict[str, Any] = dict(
        block_out_channels=(4, 8), layers_per_block=2, sample_size=32, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, transformer_layers_per_block=(1, 2), projection_class_embeddings_input_dim=80,
        cross_attention_dim=64, norm_num_groups=1,
    )
    return parts.liven(parts.seeded(lambda: diffusers.UNet2DConditionModel(**{**config, **changes})), 0.85)


def _sdxl_parts() -> dict[str, Any]:
    return dict(
        vae=parts.two_level_vae(), unet=sdxl_unet(), text_encoder=parts.clip(CLIPTextModel),
        text_encoder_2=parts.clip(CLIPTextModelWithProjection), tokenizer=parts.clip_tokenizer(),
        tokenizer_2=parts.clip_tokenizer(),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, steps_offset=1, beta_schedule="scaled_linear",
            timestep_spacing="leading",
        ),
    )


def sdxl() -> Any:
    return diffusers.StableDiffusionXLPipeline(**_sdxl_parts())


def sdxl_controlnet(nets: int = 1) -> Any:
    shared = _sdxl_parts()
    controlnets = [parts.liven(_controlnet(), 0.85, seed=7 + index) for index in range(nets)]
    return diffusers.StableDiffusionXLControlNetPipeline(
        **shared, controlnet=controlnets[0] if nets == 1 else controlnets
    )


def _controlnet() -> Any:
    return parts.seeded(
        lambda: diffusers.ControlNetModel(
            block_out_channels=(4, 8),
            layers_per_block=2,
            in_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            conditioning_embedding_out_channels=(16, 32),
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 2),
            projection_class_embeddings_input_dim=80,
            cross_attention_dim=64,
            norm_num_groups=1,
        )
    )


def instruct_pix2pix() -> Any:
    """Three conditions in one call: text and picture, picture alone, neither."""
    unet = parts.liven(
        parts.seeded(
            lambda: diffusers.UNet2DConditionModel(
                block_out_channels=(4, 8),
                layers_per_block=2,
                sample_size=32,
                in_channels=8,
                out_channels=4,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=32,
                norm_num_groups=1,
                attention_head_dim=2,
            )
        ),
        0.85,
        louder={"attn2.to_v": 2, "attn2.to_out": 2},
    )
    return diffusers.StableDiffusionInstructPix2PixPipeline(
        unet=unet, vae=parts.two_level_vae(), text_encoder=parts.clip(CLIPTextModel), tokenizer=parts.clip_tokenizer(),
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True, prediction_type="v_prediction"), safety_checker=None,
        feature_extractor=None,
        image_encoder=None, requires_safety_checker=False,
    )


def sd3(layers: int = 3) -> Any:
    transformer = parts.liven(
        parts.seeded(
            lambda: diffusers.SD3Transformer2DModel(
                sample_size=32,
                patch_size=1,
                in_channels=4,
                num_layers=layers,
                attention_head_dim=8,
                num_attention_heads=4,
                caption_projection_dim=32,
                joint_attention_dim=32,
                pooled_projection_dim=64,
                out_channels=4,
            )
        )
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=parts.vae(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609, scaling_factor=1.5035),
        text_encoder=parts.clip(CLIPTextModelWithProjection), text_encoder_2=parts.clip(CLIPTextModelWithProjection),
        text_encoder_3=parts.t5(), tokenizer=parts.clip_tokenizer(), tokenizer_2=parts.clip_tokenizer(),
        tokenizer_3=parts.t5_tokenizer(),
    )


def flux(layers: int = 2, heads: int = 2, guidance_embeds: bool = False) -> Any:
    transformer = parts.liven(
        parts.seeded(
            lambda: diffusers.FluxTransformer2DModel(
                patch_size=1,
                in_channels=4,
                num_layers=layers,
                num_single_layers=layers,
                attention_head_dim=16,
                num_attention_heads=heads,
                joint_attention_dim=32,
                pooled_projection_dim=32,
                axes_dims_rope=[4, 4, 8],
                guidance_embeds=guidance_embeds,
            )
        )
    )
    return diffusers.FluxPipeline(
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=parts.vae(1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609, scaling_factor=1.5035),
        text_encoder=parts.clip(CLIPTextModel), tokenizer=parts.clip_tokenizer(), text_encoder_2=parts.t5(),
        tokenizer_2=parts.t5_tokenizer(),
    )


def pixart(layers: int = 3, sigma: bool = False) -> Any:
    transformer = parts.liven(
        parts.seeded(
            lambda: diffusers.PixArtTransformer2DModel(
                sample_size=8,
                num_layers=layers,
                patch_size=2,
                attention_head_dim=8,
                num_attention_heads=3,
                caption_channels=32,
                in_channels=4,
                cross_attention_dim=24,
                out_channels=8,
                attention_bias=True,
                activation_fn="gelu-approximate",
                num_embeds_ada_norm=1000,
                norm_type="ada_norm_single",
                norm_elementwise_affine=False,
                norm_eps=1e-6,
            )
        )
    )
    kind = diffusers.PixArtSigmaPipeline if sigma else diffusers.PixArtAlphaPipeline
    return kind(
        transformer=transformer, vae=parts.vae(4),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, prediction_type="v_prediction"), text_encoder=parts.t5(),
        tokenizer=parts.t5_tokenizer(),
    )


def _wan_transformer(layers: int, seed: int) -> Any:
    return parts.liven(
        parts.seeded(
            lambda: diffusers.WanTransformer3DModel(
                patch_size=(1, 2, 2),
                num_attention_heads=2,
                attention_head_dim=12,
                in_channels=16,
                out_channels=16,
                text_dim=32,
                freq_dim=256,
                ffn_dim=32,
                num_layers=layers,
                cross_attn_norm=True,
                qk_norm="rms_norm_across_heads",
                rope_max_seq_len=32,
            )
        ),
        seed=seed,
    )


def wan(layers: int = 2, denoisers: int = 1) -> Any:
    """Wan 2.1, or with two denoisers Wan 2.2: the second takes over below 0.9 of the noise."""
    vae = parts.seeded(
        lambda: diffusers.AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        )
    )
    second = dict(transformer_2=_wan_transformer(layers, 2), boundary_ratio=0.9) if denoisers == 2 else {}
    return diffusers.WanPipeline(
        transformer=_wan_transformer(layers, 1), vae=vae, text_encoder=parts.t5(), tokenizer=parts.t5_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0), **second,
    )


def ltx(layers: int = 2) -> Any:
    transformer = parts.liven(
        parts.seeded(
            lambda: diffusers.LTXVideoTransformer3DModel(
                in_channels=8,
                out_channels=8,
                patch_size=1,
                patch_size_t=1,
                num_attention_heads=4,
                attention_head_dim=8,
                cross_attention_dim=32,
                num_layers=layers,
                caption_channels=32,
            )
        )
    )
    vae = parts.seeded(
        lambda: diffusers.AutoencoderKLLTXVideo(
            in_channels=3,
            out_channels=3,
            latent_channels=8,
            block_out_channels=(8,) * 4,
            decoder_block_out_channels=(8,) * 4,
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            decoder_inject_noise=(False,) * 5,
            upsample_residual=(False,) * 4,
            upsample_factor=(1,) * 4,
            timestep_conditioning=False,
            patch_size=1,
            patch_size_t=1,
            encoder_causal=True,
            decoder_causal=False,
        )
    )
    vae.use_framewise_encoding = False
    vae.use_framewise_decoding = False
    return diffusers.LTXPipeline(
        transformer=transformer, vae=vae, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=parts.t5(),
        tokenizer=parts.t5_tokenizer(),
    )


def cogvideox(layers: int = 2) -> Any:
    transformer = parts.liven(
        parts.seeded(
            lambda: diffusers.CogVideoXTransformer3DModel(
                num_attention_heads=4,
                attention_head_dim=8,
                in_channels=4,
                out_channels=4,
                time_embed_dim=2,
                text_embed_dim=32,
                num_layers=layers,
                sample_width=2,
                sample_height=2,
                sample_frames=9,
                patch_size=2,
                temporal_compression_ratio=4,
                max_text_seq_length=16,
            )
        ),
        louder={"to_v": 3, "to_out": 3},
    )
    vae = parts.seeded(
        lambda: diffusers.AutoencoderKLCogVideoX(
            in_channels=3,
            out_channels=3,
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8,) * 4,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        )
    )
    return diffusers.CogVideoXPipeline(
        transformer=transformer, vae=vae,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, prediction_type="v_prediction"), text_encoder=parts.t5(),
        tokenizer=parts.t5_tokenizer(),
    )


def stable_audio() -> Any:
    """Sound at 400 samples a second, 0.32 s at most."""
    transformer = parts.liven(
        parts.seeded(
            lambda: diffusers.StableAudioDiTModel(
                sample_size=64,
                in_channels=3,
                num_layers=2,
                attention_head_dim=4,
                num_attention_heads=4,
                num_key_value_attention_heads=2,
                out_channels=3,
                cross_attention_dim=4,
                time_proj_dim=8,
                global_states_input_dim=8,
                cross_attention_input_dim=4,
            )
        ),
        louder={"proj_out": 0.3},
    )
    vae = parts.seeded(
        lambda: diffusers.AutoencoderOobleck(
            encoder_hidden_size=6,
            downsampling_ratios=[1, 2],
            decoder_channels=3,
            decoder_input_channels=3,
            audio_channels=2,
            channel_multiples=[2, 4],
            sampling_rate=400,
        )
    )
    text_encoder = parts.t5()
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel

    projection = parts.seeded(
        lambda: StableAudioProjectionModel(
            text_encoder_dim=text_encoder.config.d_model, conditioning_dim=4, min_value=0, max_value=32
        )
    )
    return diffusers.StableAudioPipeline(
        transformer=transformer, vae=vae, text_encoder=text_encoder, projection_model=projection,
        tokenizer=parts.t5_tokenizer(25),
        scheduler=diffusers.EDMDPMSolverMultistepScheduler(
            solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
        ),
    )


def qwen(layers: int = 2) -> Any:
    """Without its text encoder, which is a vision language model: give it `qwen_prompts`."""
    transformer = parts.liven(
        parts.seeded(
            lambda: diffusers.QwenImageTransformer2DModel(
                patch_size=2,
                in_channels=16,
                out_channels=4,
                num_layers=layers,
                attention_head_dim=16,
                num_attention_heads=4,
                joint_attention_dim=16,
                guidance_embeds=False,
                axes_dims_rope=(8, 4, 4),
            )
        ),
        louder={"add_v_proj": 3, "to_out": 2},
    )
    vae = parts.seeded(
        lambda: diffusers.AutoencoderKLQwenImage(
            base_dim=24,
            z_dim=4,
            dim_mult=[1, 2, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        )
    )
    return diffusers.QwenImagePipeline(
        transformer=transformer, vae=vae, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), text_encoder=None,
        tokenizer=None,
    )


def qwen_prompts(count: int) -> dict[str, torch.Tensor]:
    """Prompts of 8 tokens and negative prompts of 6 for `qwen`; the last token of the first prompt is padding."""
    generator = torch.Generator().manual_seed(8)
    prompts = {}
    for name, length in (("", 8), ("negative_", 6)):
        mask = torch.ones(count, length, dtype=torch.long)
        mask[0, -1] = 0
        prompts[f"{name}prompt_embeds"] = torch.randn(count, length, 16, generator=generator)
        prompts[f"{name}prompt_embeds_mask"] = mask
    return prompts

# fmt: on

BUILDERS: dict[str, Callable[[], Any]] = {
    "sdxl": sdxl,
    "sd3": sd3,
    "sd3-four": partial(sd3, layers=4),
    "pixart": pixart,
    "pixart-sigma": partial(pixart, sigma=True),
    "flux": flux,
    "flux-distilled": partial(flux, guidance_embeds=True),
    "wan": wan,
    "wan-two": partial(wan, denoisers=2),
    "ltx": ltx,
    "cogvideox": cogvideox,
    "stable-audio": stable_audio,
    "sdxl-controlnet": sdxl_controlnet,
    "sdxl-multi-controlnet": partial(sdxl_controlnet, nets=2),
    "instruct-pix2pix": instruct_pix2pix,
    "qwen": qwen,
}
"""Name of a tiny pipeline -> what makes it."""

CALLS: dict[str, dict[str, Any]] = {
    "sdxl": dict(guidance_scale=5.0, height=32, width=32),
    "sd3": dict(guidance_scale=5.0, height=16, width=16, max_sequence_length=32),
    "sd3-four": dict(guidance_scale=5.0, height=16, width=16, max_sequence_length=32),
    "pixart": dict(guidance_scale=4.5, use_resolution_binning=False),
    "pixart-sigma": dict(guidance_scale=4.5, use_resolution_binning=False),
    "flux": dict(true_cfg_scale=4.0, negative_prompt="bad", height=8, width=8, max_sequence_length=48),
    "flux-distilled": dict(guidance_scale=3.5, height=8, width=8, max_sequence_length=48),
    "wan": dict(negative_prompt="bad", guidance_scale=6.0, height=16, width=16, num_frames=9, max_sequence_length=16),
    "wan-two": dict(
        negative_prompt="bad", guidance_scale=6.0, height=16, width=16, num_frames=9, max_sequence_length=16
    ),
    "ltx": dict(negative_prompt="", guidance_scale=3.0, height=32, width=32, num_frames=9, max_sequence_length=16),
    "cogvideox": dict(
        negative_prompt="", guidance_scale=6.0, height=16, width=16, num_frames=8, max_sequence_length=16
    ),
    "stable-audio": dict(guidance_scale=5.0, audio_end_in_s=0.3),
    "sdxl-controlnet": dict(guidance_scale=5.0, height=32, width=32, controlnet_conditioning_scale=0.8),
    "sdxl-multi-controlnet": dict(guidance_scale=5.0, height=32, width=32, controlnet_conditioning_scale=[0.8, 0.5]),
    "instruct-pix2pix": dict(guidance_scale=5.0, image_guidance_scale=1.5),
    "qwen": dict(true_cfg_scale=4.0, height=32, width=32),
}
"""Keyword arguments of the pipeline call beside prompt, steps, generator and pictures, that suit the tiny sizes."""


def build(name: str) -> Any:
    """The pipeline `name`, fp32, on the CPU, with its progress bar off."""
    pipe = BUILDERS[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save(name: str, folder: Path) -> Path:
    """Write the pipeline `name` to `folder` in diffusers' format (safetensors) and return the folder."""
    build(name).save_pretrained(folder)
    return folder


def call_arguments(name: str) -> dict[str, Any]:
    """A fresh copy of the arguments that suit `name`."""
    return dict(CALLS[name])


def picture(seed: int = 0, size: int = 32) -> torch.Tensor:
    """A picture of shape (1, 3, size, size) in 0 … 1, for image-to-image, ControlNet and the like."""
    return torch.rand((1, 3, size, size), generator=torch.Generator().manual_seed(seed))
