"""Pipeline calls that the tests of the branch split make on ranks, and in the test's own process for comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import tiny_pipelines
import torch

PROMPTS = ("a cat on a mat", "two dogs", "a small red house by the sea")

SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "flow-dpm++": (
        "DPMSolverMultistepScheduler",
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "algorithm_type": "dpmsolver++"},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One pipeline call."""

    pipeline: str
    """A name of `tiny_pipelines`."""
    scheduler: str | None = None
    batch: int = 1
    steps: int = 3
    variant: str | None = None
    """img2img, inpaint, lora, ip-adapter: see `build`."""
    seed: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Beside those that suit the tiny pipeline."""

    def __str__(self) -> str:
        parts = (self.pipeline, self.variant, self.scheduler, f"batch {self.batch}", *self.arguments)
        return " ".join(part for part in parts if part)


VARIANT_CLASSES = {
    ("sdxl", "img2img"): "StableDiffusionXLImg2ImgPipeline",
    ("sdxl", "inpaint"): "StableDiffusionXLInpaintPipeline",
    ("sd3", "img2img"): "StableDiffusion3Img2ImgPipeline",
    ("flux", "img2img"): "FluxImg2ImgPipeline",
    ("flux", "inpaint"): "FluxInpaintPipeline",
}


def build(case: Case) -> Any:
    """The pipeline of a case."""
    pipe = tiny_pipelines.build(case.pipeline)
    if case.scheduler:
        kind, changes = SCHEDULERS[case.scheduler]
        pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config, **changes)
    if case.variant == "lora":
        _add_lora(pipe.unet)
    elif case.variant == "ip-adapter":
        _add_ip_adapter(pipe.unet)
    elif case.variant:
        pipe = getattr(diffusers, VARIANT_CLASSES[case.pipeline, case.variant])(**pipe.components)
        pipe.set_progress_bar_config(disable=True)
    return pipe


def call_of(case: Case) -> dict[str, Any]:
    """The arguments of a case's call, with a fresh generator for each image."""
    count = case.batch
    arguments = tiny_pipelines.call_arguments(case.pipeline)
    if case.pipeline != "qwen":
        arguments["prompt"] = list(PROMPTS[:count])
    if isinstance(arguments.get("negative_prompt"), str):
        arguments["negative_prompt"] = [arguments["negative_prompt"]] * count
    arguments |= _pictures(case, arguments)
    arguments["num_inference_steps"] = case.steps
    arguments["generator"] = [torch.Generator().manual_seed(case.seed + image) for image in range(count)]
    arguments["output_type"] = "latent"
    return arguments | dict(case.arguments)


def _pictures(case: Case, arguments: dict[str, Any]) -> dict[str, Any]:
    count = case.batch
    size = arguments.get("height", 32)
    pictures = torch.cat([tiny_pipelines.picture(image, size) for image in range(count)])
    if case.pipeline == "sdxl-multi-controlnet":
        return {"image": [pictures, 1 - pictures]}
    if case.pipeline in ("sdxl-controlnet", "instruct-pix2pix"):
        return {"image": pictures}
    if case.pipeline == "qwen":
        return tiny_pipelines.qwen_prompts(count)
    if case.variant == "img2img":
        strength = {"image": pictures, "strength": 0.7}
        if case.pipeline == "sdxl":
            arguments.pop("height")
            arguments.pop("width")
        return strength
    if case.variant == "inpaint":
        mask = torch.zeros(count, 1, size, size)
        mask[:, :, : size // 2] = 1
        return {"image": pictures, "mask_image": mask, "strength": 0.9}
    if case.variant == "lora":
        return {"cross_attention_kwargs": {"scale": 0.6}}
    if case.variant == "ip-adapter":
        embeds = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(3))
        return {"ip_adapter_image_embeds": [embeds]}
    return {}


def _add_lora(unet: Any) -> None:
    from peft import LoraConfig

    with torch.random.fork_rng():
        torch.manual_seed(5)
        unet.add_adapter(
            LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v"])
        )


def _add_ip_adapter(unet: Any) -> None:
    """Random weights in the layout of a real IP-Adapter file."""
    generator = torch.Generator().manual_seed(6)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    width = unet.config.cross_attention_dim
    crossed = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    weights = {}
    for index, name in enumerate(crossed):
        hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.weight.shape[0]
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"{2 * index + 1}.{part}.weight"] = random(hidden, width)
    projection = {
        "proj.weight": random(width * 4, width),
        "proj.bias": torch.zeros(width * 4),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": weights}])
