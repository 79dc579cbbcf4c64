"""Model folders: what is accepted, and what is refused before any weights are loaded, with the way out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs import classes
from frazil_jobs.inputs.folder import check_folder
from frazil_jobs.inputs.index import Allowed
from frazil_jobs.inputs.weights import needed, variant_of

PICKLE = b"\x80\x04cposix\nsystem\n."


def edit_index(model: Path, **changes: object) -> None:
    path = model / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(model: Path, allowed: Allowed | None = None) -> BadConfiguration:
    with pytest.raises(BadConfiguration) as caught:
        check_folder(model, allowed or Allowed())
    return caught.value


def test_a_whole_folder_is_accepted_with_its_class_and_components(model):
    folder = check_folder(model, Allowed())
    assert folder.pipeline == "StableDiffusionPipeline"
    assert folder.components["unet"] == ("diffusers", "UNet2DConditionModel")
    assert "feature_extractor" not in folder.components
    assert folder.size == sum(file.stat().st_size for file in model.rglob("*") if file.is_file())


def test_checking_a_folder_imports_neither_torch_nor_diffusers(model):
    code = (
        "import sys; from pathlib import Path; from frazil_jobs.inputs.folder import check_folder;"
        "from frazil_jobs.inputs.index import Allowed; check_folder(Path(sys.argv[1]), Allowed());"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'diffusers', 'transformers', 'minio', 'celery')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(model)], check=False).returncode == 0


def test_the_classes_read_from_the_source_are_those_that_diffusers_exports():
    code = """
import diffusers
from frazil_jobs.inputs import classes
known = classes.installed()
names = set(dir(diffusers))
assert not (known.pipelines | known.schedulers | known.models) - names
exported = {name for name in names if name.endswith("Pipeline") and not name.endswith("ModularPipeline")}
assert not exported - known.pipelines, exported - known.pipelines
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_wrong_scheduler_or_pipeline_gets_the_nearest_name():
    with pytest.raises(BadConfiguration, match='did you mean "EulerDiscreteScheduler"') as caught:
        classes.require_scheduler("EulerDiscretScheduler")
    assert caught.value.field == "spec.sampling.scheduler"
    assert caught.value.exit_code == 78
    with pytest.raises(BadConfiguration, match='did you mean "StableDiffusionXLPipeline"'):
        classes.require_pipeline("StableDifusionXLPipeline", field="spec.model.pipeline")
    classes.require_scheduler("FlowMatchEulerDiscreteScheduler")


def test_another_pipeline_class_may_be_asked_for_and_must_exist(model):
    assert (
        check_folder(model, Allowed(pipeline="StableDiffusionImg2ImgPipeline")).pipeline
        == "StableDiffusionImg2ImgPipeline"
    )
    assert refusal(model, Allowed(pipeline="StableDiffusionImgToImgPipeline")).field == "spec.model.pipeline"


def test_a_folder_that_is_not_there_gets_the_nearest_name_beside_it(model):
    error = refusal(model.parent / "modle")
    assert "there is no model folder" in str(error)
    assert 'did you mean "model"?' in str(error)


def test_a_folder_above_the_model_names_the_one_meant(model):
    assert "did you mean its folder 'model'?" in str(refusal(model.parent))


def test_a_single_file_checkpoint_says_how_to_convert_it(tmp_path, make_weights):
    assert "from_single_file" in str(refusal(make_weights(tmp_path / "sdxl.safetensors")))


def test_an_unknown_pipeline_class_in_the_index_is_named(model):
    edit_index(model, _class_name="StableDiffusionPipelin")
    assert "'StableDiffusionPipelin' (did you mean" in str(refusal(model))


def test_an_unknown_component_class_is_named(model):
    edit_index(model, unet=["diffusers", "UNet2DConditionModell"])
    assert 'did you mean "UNet2DConditionModel"?' in str(refusal(model))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"unet": 1}', "\xff", "[" * 100_000])
def test_an_index_that_is_none_is_refused(model, text):
    (model / "model_index.json").write_text(text, encoding="latin-1")
    assert refusal(model).exit_code == 78


@pytest.mark.parametrize(
    "missing",
    [
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
    ],
)
def test_a_missing_file_is_named(model, missing):
    (model / missing).unlink()
    assert missing.partition("/")[0] in str(refusal(model))


def test_pickled_weights_are_refused_by_the_name_of_the_field_that_allows_them(model):
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(PICKLE)
    error = refusal(model)
    assert error.field == "spec.model.allowPickle"
    assert "diffusion_pytorch_model.bin" in str(error)
    assert check_folder(model, Allowed(pickle=True)).pipeline == "StableDiffusionPipeline"


def test_a_pickle_beside_safetensors_is_not_counted_as_needed(model):
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(PICKLE)
    size = check_folder(model, Allowed()).size
    assert size == sum(file.stat().st_size for file in model.rglob("*") if file.is_file() and file.suffix != ".bin")


def test_a_pipeline_that_is_python_code_is_refused_unless_allowed(model):
    edit_index(model, _class_name=["pipeline_mine", "Mine"])
    (model / "pipeline_mine.py").write_text("raise SystemExit")
    assert refusal(model).field == "spec.model.allowRemoteCode"
    assert check_folder(model, Allowed(remote_code=True)).pipeline == "DiffusionPipeline"


def test_a_component_that_is_python_code_is_refused_unless_allowed(model):
    edit_index(model, unet=["my_unet", "MyUNet"])
    (model / "unet" / "my_unet.py").write_text("raise SystemExit")
    assert refusal(model).field == "spec.model.allowRemoteCode"
    check_folder(model, Allowed(remote_code=True))


@pytest.mark.parametrize("target", ["modeling_mine.Mine", "someone/else--modeling_mine.Mine"])
def test_an_auto_map_is_refused_unless_allowed(model, target):
    (model / "text_encoder" / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": target}}))
    (model / "text_encoder" / "modeling_mine.py").write_text("raise SystemExit")
    assert refusal(model).field == "spec.model.allowRemoteCode"
    check_folder(model, Allowed(remote_code=True))


def test_a_variant_that_is_not_there_lists_those_that_are(model, make_weights):
    make_weights(model / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    check_folder(model, Allowed(variant="fp16"))
    error = refusal(model, Allowed(variant="bf16"))
    assert error.field == "spec.model.variant"
    assert "fp16" in str(error)


def test_weights_that_are_there_only_as_a_variant_ask_for_it(model):
    plain = model / "unet" / "diffusion_pytorch_model.safetensors"
    plain.rename(plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    error = refusal(model)
    assert (error.field, "fp16" in str(error)) == ("spec.model.variant", True)


def test_cut_off_weights_are_found_without_reading_them(model):
    path = model / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert "no whole safetensors file" in str(refusal(model))


def test_a_pointer_of_git_lfs_is_called_one(model):
    (model / "unet" / "diffusion_pytorch_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in str(refusal(model))


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, b"\xff" * 100, b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7 + b"{}x"]
)
def test_bytes_that_are_no_safetensors_are_refused(model, data):
    (model / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(data)
    assert refusal(model).exit_code == 78


def test_a_shard_that_the_index_names_must_be_there(model, make_weights):
    unet = model / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model-00001-of-00002.safetensors")
    mapping = {
        "a": "diffusion_pytorch_model-00001-of-00002.safetensors",
        "b": "diffusion_pytorch_model-00002-of-00002.safetensors",
    }
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    assert "00002-of-00002" in str(refusal(model))
    make_weights(unet / "diffusion_pytorch_model-00002-of-00002.safetensors")
    check_folder(model, Allowed())


def test_a_folder_of_links_as_in_the_hub_s_cache_is_used(model, tmp_path):
    blob = tmp_path / "blob"
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(blob)
    weights.symlink_to(blob)
    check_folder(model, Allowed())


def test_the_fingerprint_tells_apart_folders_that_differ_only_in_weights(tmp_path, make_model):
    first = check_folder(make_model(tmp_path / "a", seed=0), Allowed())
    same = check_folder(make_model(tmp_path / "b", seed=0), Allowed())
    other = check_folder(make_model(tmp_path / "c", seed=1), Allowed())
    assert first.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("unet/diffusion_pytorch_model.safetensors", None),
        ("unet/diffusion_pytorch_model.fp16.safetensors", "fp16"),
        ("model.fp16-00001-of-00002.safetensors", "fp16"),
        ("model-00001-of-00002.safetensors", None),
        ("model-00001-of-00002.fp16.safetensors", "fp16"),
        ("diffusion_pytorch_model.safetensors.index.json", None),
        ("diffusion_pytorch_model.safetensors.index.fp16.json", "fp16"),
        ("model.fp16.safetensors.index.json", "fp16"),
        ("diffusion_pytorch_model.non_ema.safetensors", "non_ema"),
    ],
)
def test_a_variant_is_read_from_a_name_as_diffusers_writes_it(name, variant):
    assert variant_of(name) == variant


def test_only_what_loading_needs_is_downloaded():
    names = [
        "model_index.json", "README.md", "sd_xl_base_1.0.safetensors", "image.png", "pipeline.py",
        "unet/config.json", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/model.onnx", "unet/modeling.py",
        "tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer.model", "other/config.json",
        "text_encoder/config.json", "text_encoder/pytorch_model.bin",
    ]  # fmt: skip
    chosen = {"components": ["unet", "tokenizer", "text_encoder"], "allow_pickle": False, "allow_remote_code": False}
    common = [
        "model_index.json", "text_encoder/config.json", "tokenizer/merges.txt", "tokenizer/tokenizer.model",
        "tokenizer/vocab.json", "unet/config.json",
    ]  # fmt: skip
    assert needed(names, variant=None, **chosen) == [*common, "unet/diffusion_pytorch_model.safetensors"]
    assert needed(names, variant="fp16", **chosen) == [*common, "unet/diffusion_pytorch_model.fp16.safetensors"]
    chosen |= {"allow_pickle": True, "allow_remote_code": True}
    more = set(needed(names, variant=None, **chosen)) - {*common, "unet/diffusion_pytorch_model.safetensors"}
    assert more == {"pipeline.py", "unet/modeling.py", "text_encoder/pytorch_model.bin"}
