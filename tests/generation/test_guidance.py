"""How every pipeline class of diffusers asks for guidance, and which calls have any."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import tiny_pipelines

from frazil_jobs.generation.guidance import FolderConfigs, Guidance, guidance_of, guidance_of_call

NOTHING = FolderConfigs()
NEGATIVE = {"negative_prompt": "bad"}
TRUE = {"true_cfg_scale": 4.0, **NEGATIVE}


def guidance(name: str, configs: FolderConfigs = NOTHING, **arguments: Any) -> Guidance:
    return guidance_of_call(getattr(diffusers, name), arguments, configs)


@pytest.mark.parametrize(
    ("name", "arguments", "style", "conditions"),
    [
        ("StableDiffusionPipeline", {}, "one-call", 2),
        ("StableDiffusionXLPipeline", {}, "one-call", 2),
        ("StableDiffusionXLImg2ImgPipeline", {}, "one-call", 2),
        ("StableDiffusionXLInpaintPipeline", {}, "one-call", 2),
        ("StableDiffusionXLControlNetPipeline", {}, "one-call", 2),
        ("StableDiffusionInstructPix2PixPipeline", {}, "one-call", 3),
        ("StableDiffusionXLInstructPix2PixPipeline", {}, "one-call", 3),
        ("StableDiffusion3Pipeline", {}, "one-call", 2),
        ("StableDiffusion3ControlNetPipeline", {}, "one-call", 2),
        ("PixArtAlphaPipeline", {}, "one-call", 2),
        ("PixArtSigmaPipeline", {}, "one-call", 2),
        ("SanaPipeline", {}, "one-call", 2),
        ("LTXPipeline", {}, "one-call", 2),
        ("CogVideoXPipeline", {}, "one-call", 2),
        ("MochiPipeline", {}, "one-call", 2),
        ("StableAudioPipeline", {}, "one-call", 2),
        ("StableVideoDiffusionPipeline", {}, "one-call", 2),
        ("WanPipeline", {}, "two-call", 2),
        ("WanImageToVideoPipeline", {}, "two-call", 2),
        ("WanVideoToVideoPipeline", {}, "two-call", 2),
        ("FluxPipeline", TRUE, "two-call", 2),
        ("FluxImg2ImgPipeline", TRUE, "two-call", 2),
        ("FluxInpaintPipeline", TRUE, "two-call", 2),
        ("QwenImagePipeline", NEGATIVE, "two-call", 2),
        ("HunyuanVideoPipeline", TRUE, "two-call", 2),
        ("CogView4Pipeline", {}, "two-call", 2),
        ("Flux2KleinPipeline", {}, "two-call", 2),
        ("StableDiffusionXLPAGPipeline", {}, "unsupported", 1),
        ("Lumina2Pipeline", {}, "unsupported", 1),
        ("ZImagePipeline", {}, "unsupported", 1),
        ("LTX2Pipeline", {}, "unsupported", 1),
        ("AnimateDiffPipeline", {}, "unsupported", 1),
        ("KandinskyPriorPipeline", {}, "unsupported", 1),
        ("HunyuanVideo15Pipeline", {}, "unsupported", 1),
        ("Flux2Pipeline", {}, "none", 1),
        ("FluxFillPipeline", {}, "none", 1),
        ("LatentConsistencyModelPipeline", {}, "none", 1),
    ],
)
def test_the_style_of_a_pipeline_is_read_from_its_class(
    name: str, arguments: dict[str, Any], style: str, conditions: int
) -> None:
    found = guidance(name, **arguments)
    assert (found.style, found.conditions) == (style, conditions), found.reason


@pytest.mark.parametrize(
    ("case", "name", "arguments", "words"),
    [
        ("scale 1", "StableDiffusionXLPipeline", {"guidance_scale": 1.0}, "guidance_scale is 1"),
        ("scale 0, as turbo models want", "StableDiffusionXLPipeline", {"guidance_scale": 0.0}, "guidance_scale is 0"),
        ("Wan at 1", "WanPipeline", {"guidance_scale": 1.0}, "guidance_scale is 1"),
        ("Flux by default", "FluxPipeline", {"guidance_scale": 3.5}, "true_cfg_scale is 1"),
        ("Flux without negative prompt", "FluxPipeline", {"true_cfg_scale": 4.0}, "no negative prompt"),
        ("Qwen without negative prompt", "QwenImagePipeline", {}, "no negative prompt"),
        ("pix2pix by text", "StableDiffusionInstructPix2PixPipeline", {"guidance_scale": 1.0}, "guidance_scale is 1"),
        (
            "pix2pix by picture",
            "StableDiffusionInstructPix2PixPipeline",
            {"image_guidance_scale": 0.5},
            "image_guidance_scale is 0.5",
        ),
    ],
)
def test_a_call_without_a_second_branch_is_known_and_explained(
    case: str, name: str, arguments: dict[str, Any], words: str
) -> None:
    found = guidance(name, **arguments)
    assert (found.style, found.guided) == ("none", False), case
    assert words in found.reason


@pytest.mark.parametrize(
    ("name", "configs"),
    [
        ("StableDiffusionXLPipeline", FolderConfigs(denoisers={"unet": {"time_cond_proj_dim": 256}})),
        ("Flux2KleinPipeline", FolderConfigs(pipeline={"is_distilled": True})),
    ],
)
def test_a_distilled_model_is_known_by_its_config(name: str, configs: FolderConfigs) -> None:
    found = guidance(name, configs)
    assert found.style == "none"
    assert "distilled" in found.reason


def test_every_pipeline_class_of_diffusers_gets_an_answer_with_a_reason() -> None:
    names = [name for name in dir(diffusers) if name.endswith("Pipeline") and not name.startswith(("Flax", "Onnx"))]
    styles = {}
    for name in names:
        kind = getattr(diffusers, name, None)
        if isinstance(kind, type) and "__call__" in vars(kind):
            found = guidance(name, true_cfg_scale=4.0, negative_prompt="bad")
            assert found.reason, name
            styles[name] = found.style
    assert {style: sum(value == style for value in styles.values()) > 20 for style in ("one-call", "two-call")} == {
        "one-call": True,
        "two-call": True,
    }


EXPECTED = {
    "flux-distilled": "none",
    **dict.fromkeys(("flux", "wan", "wan-two", "qwen"), "two-call"),
}


@pytest.mark.parametrize("name", sorted(tiny_pipelines.BUILDERS))
def test_a_folder_of_each_kind_is_judged_from_its_configs_alone(name: str, tmp_path: Path) -> None:
    pipe = tiny_pipelines.build(name)
    pipe.save_config(tmp_path)
    for component in ("unet", "transformer", "transformer_2"):
        if getattr(pipe, component, None) is not None:
            getattr(pipe, component).save_config(tmp_path / component)
    call = tiny_pipelines.call_arguments(name)
    sampling = SimpleNamespace(
        guidance_scale=str(call.pop("guidance_scale")) if "guidance_scale" in call else None,
        negative_prompt=call.pop("negative_prompt", "bad" if name == "qwen" else None),
        extra=call,
    )
    kind = getattr(diffusers, json.loads((tmp_path / "model_index.json").read_text())["_class_name"])
    found = guidance_of(kind, sampling, tmp_path)  # type: ignore[arg-type]
    assert found.style == EXPECTED.get(name, "one-call")
    assert found.conditions == {"none": 1}.get(found.style, 3 if name == "instruct-pix2pix" else 2)


def test_a_negative_prompt_of_a_row_counts_as_one_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    sampling: Any = SimpleNamespace(guidance_scale=None, negative_prompt=None, extra={"true_cfg_scale": 4.0})
    assert guidance_of(diffusers.FluxPipeline, sampling, tmp_path).style == "none"
    assert guidance_of(diffusers.FluxPipeline, sampling, tmp_path, negative_prompts=True).style == "two-call"
