"""Pipelines from folders: what fits, and what is refused before any weights are read."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from generation_tasks import make_job, sampling_of
from tiny_pipelines import call_arguments, save

from frazil_jobs.api.generationjob import Sampling
from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.generation.batches import Item
from frazil_jobs.generation.calls import plan_call
from frazil_jobs.generation.load import (
    Folder,
    dtype_of,
    load_pipeline,
    pipeline_class,
    replace_scheduler,
    scheduler_class,
    schedulers_like,
    usable_schedulers,
)
from frazil_jobs.inputs.rows import PromptRow
from frazil_jobs.inputs.task import LoraFile

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}

    def folder(name):
        if name not in found:
            found[name] = save(name, tmp_path_factory.mktemp("models") / name)
        return found[name]

    return folder


@pytest.fixture
def copied(folders, tmp_path):
    return lambda name: Path(shutil.copytree(folders(name), tmp_path / name))


def model(**fields):
    return make_job(model={"uri": "file:///x", **fields}).spec.model


def load(path, name, **fields):
    folder = Folder.read(path)
    spec = model(**fields)
    return load_pipeline(folder, pipeline_class(name), spec, device=CPU, scheduler=None)


def test_a_folder_is_loaded_as_it_is_in_float32_on_the_cpu(folders):
    pipe = load(folders("pixart"), "PixArtAlphaPipeline")
    assert pipe.transformer.dtype == torch.float32
    assert not pipe.transformer.training


def test_the_class_can_be_another_one_that_fits_the_folder(folders):
    assert (
        type(load(folders("sdxl"), "StableDiffusionXLImg2ImgPipeline")).__name__ == "StableDiffusionXLImg2ImgPipeline"
    )


def test_a_class_that_does_not_fit_the_folder_names_the_field(folders):
    with pytest.raises(BadConfiguration, match=r"spec\.model\.pipeline: WanPipeline can't be loaded"):
        load(folders("pixart"), "WanPipeline", pipeline="WanPipeline")


@pytest.mark.parametrize("name", ["NoSuchPipeline", "EulerDiscreteScheduler", "__doc__"])
def test_what_is_no_pipeline_of_diffusers_names_the_field(name):
    with pytest.raises(BadConfiguration, match=r"spec\.model\.pipeline"):
        pipeline_class(name)


def test_a_folder_that_is_no_pipeline_is_said_to_be_none(tmp_path):
    with pytest.raises(BadConfiguration, match="no pipeline folder"):
        Folder.read(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(BadConfiguration, match="no pipeline folder"):
        Folder.read(tmp_path)


def test_a_truncated_weights_file_is_a_clear_error(copied):
    path = copied("pixart")
    weights = next((path / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BadConfiguration, match=r"spec\.model\.uri: PixArtAlphaPipeline can't be loaded"):
        load(path, "PixArtAlphaPipeline")


def test_pickles_are_loaded_where_the_spec_allows_them(copied):
    path = copied("pixart")
    weights = next((path / "transformer").glob("*.safetensors"))
    from safetensors.torch import load_file

    torch.save(load_file(weights), path / "transformer" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(BadConfiguration, match=r"spec\.model\.uri: PixArtAlphaPipeline can't be loaded"):
        load(path, "PixArtAlphaPipeline")
    assert load(path, "PixArtAlphaPipeline", allow_pickle=True).transformer is not None


def test_weights_of_a_variant_are_loaded_when_it_is_named(folders, tmp_path):
    pipe = load(folders("pixart"), "PixArtAlphaPipeline")
    pipe.save_pretrained(tmp_path / "variant", variant="fp16")
    assert load(tmp_path / "variant", "PixArtAlphaPipeline", variant="fp16") is not None


def test_the_arithmetic_is_chosen_by_the_device_unless_the_spec_does():
    assert dtype_of(model(), CPU) == torch.float32
    assert dtype_of(model(), torch.device("cuda", 0)) == torch.bfloat16
    assert dtype_of(model(dtype="float16"), CPU) == torch.float16


def test_a_lora_changes_the_pictures_by_its_scale_and_a_wrong_one_is_named(folders, tmp_path):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    base = load(folders("sdxl"), "StableDiffusionXLPipeline")
    base.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    diffusers.StableDiffusionXLPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=get_peft_model_state_dict(base.unet)
    )
    file = next(tmp_path.glob("*.safetensors"))

    def picture(*loras):
        pipe = load_pipeline(
            Folder.read(folders("sdxl")),
            pipeline_class("StableDiffusionXLPipeline"),
            model(),
            device=CPU,
            scheduler=None,
            loras=loras,
        )
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        call = {"num_inference_steps": 1, "height": 32, "width": 32, "output_type": "latent", "generator": generator}
        return pipe("a ring", **call).images

    plain, none, full = (
        picture(),
        picture(LoraFile(name="a", path=file, scale=0.0)),
        picture(LoraFile(name="a", path=file)),
    )
    assert torch.allclose(plain, none, atol=1e-5)
    assert not torch.allclose(plain, full, atol=1e-3)
    with pytest.raises(BadConfiguration, match=r"spec\.model\.lora\[0\]"):
        picture(LoraFile(name="a", path=tmp_path / "absent.safetensors"))


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("sdxl", "StableDiffusionXLPipeline"),
        ("sd3", "StableDiffusion3Pipeline"),
        ("wan", "WanPipeline"),
        ("flux", "FluxPipeline"),
        ("ltx", "LTXPipeline"),
        ("stable-audio", "StableAudioPipeline"),
    ],
)
def test_exactly_the_schedulers_that_are_said_to_be_usable_generate(folders, name, pipeline):
    folder = Folder.read(folders(name))
    own, config = folder.components()["scheduler"][1], folder.config("scheduler", "scheduler_config.json")
    usable = usable_schedulers(own, config, pipeline_class(pipeline))
    assert own in usable
    pipe = load(folders(name), pipeline)
    pipe.set_progress_bar_config(disable=True)
    original = pipe.scheduler
    for scheduler in schedulers_like(own, config):
        pipe.scheduler = original
        replace_scheduler(pipe, getattr(diffusers, scheduler))
        try:
            output = pipe(
                "a ring",
                num_inference_steps=4,
                output_type="latent",
                generator=torch.Generator().manual_seed(0),
                **call_arguments(name),
            )[0]
            works = bool(torch.isfinite(output).all())
        except (ValueError, TypeError, AssertionError):
            works = False
        assert works == (scheduler in usable), scheduler


@pytest.mark.parametrize(
    ("name", "scheduler", "reason"),
    [
        ("wan", "DDIMScheduler", "can't be used with this model"),
        ("pixart", "FlowMatchEulerDiscreteScheduler", "can't be used with this model"),
        ("stable-audio", "DDIMScheduler", "can't be used with this model"),
        ("pixart", "EulerScheduler", "is no scheduler of diffusers"),
        ("ltx", "DPMSolverMultistepScheduler", "can't be used with this model"),
    ],
)
def test_a_scheduler_that_cannot_be_used_names_those_that_can(folders, name, scheduler, reason):
    folder = Folder.read(folders(name))
    own = folder.components()["scheduler"][1]
    with pytest.raises(BadConfiguration, match=rf"spec\.sampling\.scheduler: {scheduler} {reason}.*{own}"):
        scheduler_class(
            folder, scheduler, pipeline_class(json.loads((folder.path / "model_index.json").read_text())["_class_name"])
        )


def plan(pipeline, **sampling):
    return plan_call(pipeline_class(pipeline), Sampling(**sampling))


def item(**row):
    return Item(prompt_index=0, image_index=0, seed=0, key="k", thumbnail=None, row=PromptRow(**{"prompt": "p", **row}))


def test_fields_become_the_arguments_that_the_pipeline_has():
    call = plan("WanPipeline", steps=3, guidance_scale="4.5", height=16, width=32, frames=9)
    assert call.common == {"num_inference_steps": 3, "guidance_scale": 4.5, "height": 16, "width": 32, "num_frames": 9}
    assert plan("LTXPipeline", frames=9, frames_per_second=24).common == {"num_frames": 9, "frame_rate": 24}
    assert plan("LTXPipeline").frames_per_second == 25
    assert plan("StableAudioPipeline", frames=12, frames_per_second=8).common == {"audio_end_in_s": 1.5}


@pytest.mark.parametrize(
    ("pipeline", "sampling", "message"),
    [
        ("StableDiffusionXLImg2ImgPipeline", {"height": 64}, r"spec\.sampling\.height"),
        ("StableDiffusionXLPipeline", {"frames": 9}, r"spec\.sampling\.frames: .*makes no frames"),
        ("StableDiffusionXLPipeline", {"frames_per_second": 9}, r"spec\.sampling\.framesPerSecond"),
        ("StableAudioPipeline", {"frames": 9}, r"framesPerSecond.*audio_end_in_s"),
        ("SanaSprintPipeline", {"negative_prompt": "grey"}, r"spec\.sampling\.negativePrompt"),
        (
            "StableDiffusionXLPipeline",
            {"extra": {"guidance_rescal": 1}},
            r"guidance_rescal.*did you mean 'guidance_rescale'",
        ),
        (
            "StableDiffusionXLPipeline",
            {"extra": {"zzz": 1}},
            r"spec\.sampling\.extra\.zzz: .*it has .*guidance_rescale",
        ),
        ("StableDiffusionXLPipeline", {"extra": {"guidance_scale": 1}}, r"set spec\.sampling\.guidanceScale"),
        ("StableDiffusionXLPipeline", {"extra": {"output_type": "pil"}}, r"is set by Frazil itself"),
        ("StableDiffusionXLPipeline", {"extra": {"latents": 1}}, r"is set by Frazil itself"),
    ],
)
def test_what_a_pipeline_cannot_take_is_refused_by_field(pipeline, sampling, message):
    with pytest.raises(BadConfiguration, match=message):
        plan(pipeline, **sampling)


def test_a_call_has_a_list_entry_for_each_item_and_the_rows_own_arguments_win():
    call = plan(
        "StableDiffusionXLPipeline", negative_prompt="grey", extra={"guidance_rescale": 0.1, "prompt_2": "style"}
    )
    one = item(extra={"guidance_rescale": 0.7, "original_size": [64, 64]})
    found = call.arguments([one, one], pictures={})
    assert found == {
        "prompt": ["p", "p"],
        "prompt_2": ["style", "style"],
        "negative_prompt": ["grey", "grey"],
        "guidance_rescale": 0.7,
        "original_size": (64, 64),
    }


def test_an_absent_negative_prompt_is_left_to_the_pipeline():
    call = plan("StableDiffusionXLPipeline")
    assert "negative_prompt" not in call.arguments([item()], pictures={})
    assert call.arguments([item(negative_prompt="")], pictures={})["negative_prompt"] == [""]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"extra": {"strenght": 1}}, r"prompt 4, extra\.strenght: .*has no argument"),
        ({"images": {"mask": "files/a.png"}}, r"prompt 4, images\.mask"),
        ({"extra": {"guidance_scale": 1}}, r"extra\.guidance_scale"),
    ],
)
def test_a_row_that_the_pipeline_cannot_take_is_bad_input(row, message):
    with pytest.raises(BadInput, match=message):
        plan("StableDiffusionXLPipeline").check_row(item(**row).row, prompt_index=4)


def test_sampling_fields_and_signatures_of_all_tiny_pipelines_agree():
    for name, pipeline in (("sdxl", "StableDiffusionXLPipeline"), ("flux", "FluxPipeline"), ("wan", "WanPipeline")):
        call = plan(pipeline, **sampling_of(name))
        known = set(inspect.signature(pipeline_class(pipeline).__call__).parameters)
        assert set(call.arguments([item()], pictures={})) <= known


def test_the_folder_says_its_components(folders):
    index = json.loads((folders("pixart") / "model_index.json").read_text())
    assert set(Folder.read(folders("pixart")).components()) == {
        name for name, value in index.items() if isinstance(value, list)
    }
