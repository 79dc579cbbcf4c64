"""The shard loop on tiny pipelines, one rank, in this process: what comes into the spool, and that it is always the same."""

from __future__ import annotations

import io
import itertools
import json
import threading
import wave

import av
import numpy as np
import pytest
import torch
from generation_tasks import PROMPTS, StandInUploader, make_job, make_task, sampling_of
from PIL import Image
from tiny_pipelines import call_arguments, save

from frazil_jobs.base.exits import BadConfiguration, BadInput, FrazilError, TryAgain
from frazil_jobs.generation.batches import batches_of
from frazil_jobs.generation.report import Report
from frazil_jobs.generation.session import run_rank
from frazil_jobs.generation.steps import StepWatch
from frazil_jobs.inputs.rows import PromptRow
from frazil_jobs.inputs.task import Shard
from frazil_jobs.launching.settings import RankSettings
from frazil_jobs.launching.stopping import StopFlag
from frazil_jobs.outputs.progress import spooled_progress
from frazil_jobs.outputs.spool import Refusal, Spool

CLASSES = {
    "pixart": "PixArtAlphaPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "wan": "WanPipeline",
    "ltx": "LTXPipeline",
    "cogvideox": "CogVideoXPipeline",
    "stable-audio": "StableAudioPipeline",
    "flux": "FluxPipeline",
    "sd3": "StableDiffusion3Pipeline",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}

    def folder(name):
        if name not in found:
            found[name] = save(name, tmp_path_factory.mktemp("models") / name)
        return found[name]

    return folder


@pytest.fixture
def generate(folders, tmp_path):
    """Run one rank over a task in a new spool, and give what was stored."""
    count = iter(range(100))

    def run(name="pixart", *, rows=None, pipeline=None, flag=None, prepare=None, task=None, **spec):
        spool = tmp_path / f"spool{next(count)}"
        if prepare:
            prepare(spool)
        with StandInUploader(spool) as uploader:
            uploader.spool = spool
            job = make_job(name, **spec)
            make_task(job, folders(name), rows=rows, pipeline=pipeline or CLASSES[name], **(task or {})).write(spool)
            rank = RankSettings(
                spool=spool, run=spool, rank=0, local_rank=0, local_ranks=1, world=1, device="cpu", threads=1
            )
            try:
                run_rank(rank, flag or StopFlag())
            except Exception as error:
                error.uploader = uploader
                raise
        return uploader

    return run


def images(uploader):
    return {key: data for key, data in uploader.stored.items() if not key.startswith("thumbnails/")}


def test_every_image_comes_into_the_spool_with_its_thumbnail_and_its_facts(generate):
    found = generate(images_per_prompt=2)
    assert len(found.stored) == 2 * 2 * len(PROMPTS)
    picture = Image.open(io.BytesIO(found.stored["images/000003-01.png"]))
    assert picture.size == (8, 8)
    assert (picture.text["prompt"], picture.text["seed"]) == (PROMPTS[3], str(3 + 2**20))
    settings = json.loads(picture.text["settings"])
    assert (settings["pipeline"], settings["num_inference_steps"]) == ("PixArtAlphaPipeline", 2)
    entry = found.entries["images/000003-01.png"]
    assert entry.content_type == "image/png"
    expected = {
        "kind": "picture",
        "prompt_index": "3",
        "image_index": "1",
        "seed": str(3 + 2**20),
        "width": "8",
        "height": "8",
        "mode": "Exact",
        "ranks": "1",
        "threads": "1",
        "device": "cpu",
        "torch": torch.__version__,
    }
    assert expected.items() <= entry.metadata.items()
    assert all(f"{name}{value}".isascii() for name, value in entry.metadata.items())
    assert found.entries["thumbnails/000003-01.webp"].content_type == "image/webp"


GUIDED = {
    "parallelism": {
        "conditioning": 1,
        "mode": "Guided",
        "compare_with_exact": 2,
        "switching": {"budget": "0", "refresh_every": 3},
    },
    "sampling": sampling_of("pixart", steps=8),
}


def test_an_approximate_mode_states_its_distance_to_the_exact_pictures_it_makes_as_well(generate):
    found, exact = generate(**GUIDED), generate(sampling=GUIDED["sampling"])
    for key, entry in found.entries.items():
        if key.startswith("thumbnails/"):
            continue
        facts = entry.metadata
        assert facts["mode"] == "Guided"
        assert int(facts["steps_whole"]) + int(facts["steps_reused"]) == 8
        assert int(facts["steps_reused"]) > 0
        assert facts["steps_without_guidance"] == "0"
        assert ("psnr_to_exact_db" in facts) == (key in ("images/000000-00.png", "images/000002-00.png"))
        if "psnr_to_exact_db" in facts:
            ours, theirs = (np.asarray(Image.open(io.BytesIO(one.stored[key]))) / 255 for one in (found, exact))
            measured = -10 * np.log10(np.mean((ours - theirs) ** 2))
            assert float(facts["psnr_to_exact_db"]) == pytest.approx(measured, abs=1.5)  # the files have 8 bits


def test_an_approximate_job_that_is_resumed_leaves_the_same_bytes_and_distances(generate):
    whole = generate(**GUIDED)
    lost = "images/000002-00.png"
    kept = {key: None for key in whole.stored if key != lost}
    again = generate(task={"stored": kept}, **GUIDED)
    assert again.stored == {lost: whole.stored[lost]}
    assert again.entries[lost].metadata == whole.entries[lost].metadata


def test_a_budget_of_no_drift_leaves_the_bytes_of_exact(generate):
    parallelism = {**GUIDED["parallelism"], "switching": {"budget": "inf"}}
    found = generate(parallelism=parallelism, sampling=GUIDED["sampling"])
    assert images(found) == images(generate(sampling=GUIDED["sampling"]))
    assert found.entries["images/000000-00.png"].metadata["psnr_to_exact_db"] == "inf"


@pytest.mark.parametrize(
    ("sampling", "reason"),
    [
        ({"steps": 3}, "the steps are too few"),
        ({"steps": 8, "scheduler": "EulerAncestralDiscreteScheduler"}, "draws noise in each step"),
        ({"steps": 8, "guidance_scale": "1.0"}, "no guidance to approximate"),
    ],
)
def test_a_mode_that_cannot_approximate_runs_exactly_and_says_why(generate, sampling, reason):
    sampling = sampling_of("pixart", **sampling)
    found = generate(parallelism=GUIDED["parallelism"], sampling=sampling)
    facts = found.entries["images/000000-00.png"].metadata
    assert facts["mode"] == "Exact"
    assert reason in facts["all_whole_because"]
    assert "psnr_to_exact_db" not in facts
    assert images(found) == images(generate(sampling=sampling))


def test_a_picture_is_decoded_while_the_next_one_is_denoised(generate, monkeypatch):
    """The first decode waits until the second picture's denoiser was called: in turn that would never be."""
    from diffusers import AutoencoderKL, PixArtTransformer2DModel

    second = threading.Event()
    waited = []
    calls = itertools.count(1)
    forward, decode = PixArtTransformer2DModel.forward, AutoencoderKL.decode

    def noted(self, *args, **kwargs):
        if next(calls) == 3:  # two steps a picture
            second.set()
        return forward(self, *args, **kwargs)

    def waiting(self, *args, **kwargs):
        waited.append(second.wait(30))
        return decode(self, *args, **kwargs)

    monkeypatch.setattr(PixArtTransformer2DModel, "forward", noted)
    monkeypatch.setattr(AutoencoderKL, "decode", waiting)
    found = generate(rows=[PromptRow(prompt="a"), PromptRow(prompt="b")])
    assert waited == [True, True]
    assert len(images(found)) == 2


def test_progress_says_how_far_each_shard_is(generate):
    found = generate()
    progress = spooled_progress(found.spool)
    assert [(shard.total, shard.generated, shard.state) for shard in progress] == [
        (2, 2, "Done"),
        (2, 2, "Done"),
        (1, 1, "Done"),
    ]
    assert progress[0].images_per_second > 0


def test_two_runs_leave_the_same_bytes(generate):
    assert generate().stored == generate().stored


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_pictures_in_the_format_that_is_asked_for(generate, format):
    found = images(generate("sdxl", output={"format": format, "gallery": False}, prompts={"inline": ["a"]}))
    assert len(found) == len(PROMPTS)
    assert {Image.open(io.BytesIO(data)).format for data in found.values()} == {format.upper()}


@pytest.mark.parametrize("name", ["wan", "ltx"])
def test_video_leaves_mp4_files(generate, name):
    rows = [PromptRow(prompt="a river")]
    found = generate(name, rows=rows, output={"format": "mp4"}, sampling=sampling_of(name, frames_per_second=8))
    assert set(found.stored) == {"videos/000000-00.mp4", "thumbnails/000000-00.webp"}
    with av.open(io.BytesIO(found.stored["videos/000000-00.mp4"])) as container:
        frames = list(container.decode(video=0))
        assert (len(frames), container.streams.video[0].average_rate) == (9, 8)
    assert found.entries["videos/000000-00.mp4"].metadata["frames"] == "9"


def test_sound_leaves_wav_files_at_the_models_own_rate(generate):
    rows = [PromptRow(prompt="rain"), PromptRow(prompt="wind")]
    found = generate(
        "stable-audio", rows=rows, output={"format": "wav"}, sampling=sampling_of("stable-audio", batch_size=2)
    )
    assert sorted(images(found)) == ["sounds/000000-00.wav", "sounds/000001-00.wav"]
    with wave.open(io.BytesIO(found.stored["sounds/000001-00.wav"])) as file:
        assert (file.getframerate(), file.getnchannels()) == (400, 2)
        assert file.getnframes() == pytest.approx(0.3 * 400, abs=1)


def test_a_format_that_cannot_hold_the_output_is_refused_before_weights_are_read(generate, monkeypatch):
    from frazil_jobs.generation import session

    monkeypatch.setattr(session, "load_pipeline", lambda *_, **__: pytest.fail("weights were read"))
    for name, format in (("wan", "png"), ("pixart", "mp4"), ("stable-audio", "png")):
        with pytest.raises(BadConfiguration, match=r"spec\.output\.format"):
            generate(name, output={"format": format})
    with pytest.raises(BadConfiguration, match=r"spec\.sampling\.scheduler: DDIMScheduler can't be used"):
        generate("wan", output={"format": "mp4"}, sampling=sampling_of("wan", scheduler="DDIMScheduler"))
    with pytest.raises(BadConfiguration, match="did you mean 'use_resolution_binning'"):
        generate(sampling={"extra": {"use_resolution_bining": False}})
    with pytest.raises(BadConfiguration, match=r"spec\.parallelism: .*a replica has 1"):
        generate(parallelism={"conditioning": 2})
    everything = {f"images/{n:06d}-00.png": None for n in range(5)} | {
        f"thumbnails/{n:06d}-00.webp": None for n in range(5)
    }
    found = generate(task={"stored": everything})
    assert found.stored == {}
    assert [shard.state for shard in spooled_progress(found.spool)] == ["Done", "Done", "Done"]


def first_latents(monkeypatch):
    """Record the noise that each denoising begins with, one tensor an image, in the order in which they are made."""
    from diffusers import PixArtAlphaPipeline

    noise = []
    original = PixArtAlphaPipeline.prepare_latents

    def prepare(self, *args, **kwargs):
        latents = original(self, *args, **kwargs)
        noise.extend(latents.clone())
        return latents

    monkeypatch.setattr(PixArtAlphaPipeline, "prepare_latents", prepare)
    return noise


def test_the_noise_of_an_image_does_not_depend_on_shards_or_batches(generate, monkeypatch):
    noise = first_latents(monkeypatch)
    found = []
    for batch_size, per_shard in ((1, 5), (3, 5), (4, 2), (2, 1)):
        noise.clear()
        generate(
            images_per_prompt=2,
            sampling=sampling_of("pixart", batch_size=batch_size),
            prompts={"inline": ["a"], "per_shard": per_shard},
        )
        found.append(torch.stack(noise))
    assert found[0].shape[0] == 2 * len(PROMPTS)
    for other in found[1:]:
        assert torch.equal(found[0], other)


def test_batches_agree_with_single_images(generate):
    single = images(generate(sampling=sampling_of("pixart", batch_size=1)))
    batched = images(generate(sampling=sampling_of("pixart", batch_size=2)))
    for key, data in single.items():
        one, other = (np.asarray(Image.open(io.BytesIO(bytes_))).astype(int) for bytes_ in (data, batched[key]))
        assert np.abs(one - other).max() <= 1, key


@pytest.mark.parametrize("lost", [["images/000000-00.png"], ["images/000001-00.png", "thumbnails/000004-00.webp"]])
def test_what_is_missing_is_made_again_with_the_same_bytes_and_nothing_else_is(generate, lost):
    sampling = sampling_of("pixart", batch_size=2)
    whole = generate(sampling=sampling).stored
    kept = {key: None for key in whole if key not in lost}
    assert generate(sampling=sampling, task={"stored": kept}).stored == {key: whole[key] for key in lost}


def test_a_request_to_stop_keeps_what_is_made_and_a_second_run_makes_the_rest(generate):
    class AfterTwo(StopFlag):
        asked_times = 0

        def asked(self):
            self.asked_times += 1
            return self.asked_times > 2 or super().asked()

    whole = generate().stored
    with pytest.raises(TryAgain, match="stopped in order, 3 of 5 batches") as caught:
        generate(flag=AfterTwo())
    stored = caught.value.uploader.stored
    assert set(images(caught.value.uploader)) == {"images/000000-00.png", "images/000001-00.png"}
    rest = generate(task={"stored": dict.fromkeys(stored)}).stored
    assert {**stored, **rest} == whole
    assert not stored.keys() & rest.keys()


def picture_row(spool, name="a" * 64, broken=False, **row):
    folder = spool / "input" / "files"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(b"no picture") if broken else Image.new("RGB", (32, 32), "red").save(
        folder / f"{name}.png"
    )
    return PromptRow(**{"prompt": "p", "images": {"image": f"files/{name}.png"}, **row})


def test_image_to_image_takes_the_rows_picture(generate, tmp_path):
    sampling = {"steps": 4, "guidance_scale": "4.0", "batch_size": 2}
    row = picture_row(tmp_path, extra={"strength": 0.5})
    found = generate(
        "sdxl",
        pipeline="StableDiffusionXLImg2ImgPipeline",
        rows=[row, row],
        prepare=picture_row,
        sampling=sampling,
    )
    first, second = (Image.open(io.BytesIO(images(found)[f"images/00000{n}-00.png"])) for n in (0, 1))
    assert first.size == (32, 32)
    assert first.tobytes() != second.tobytes()  # other noise


def test_a_prompt_that_cannot_be_used_costs_its_own_image_and_the_others_are_made(generate, tmp_path):
    good, broken = picture_row(tmp_path), picture_row(tmp_path, "b" * 64, broken=True)

    def files(spool):
        picture_row(spool)
        picture_row(spool, "b" * 64, broken=True)

    with pytest.raises(BadInput, match=r"1 of 2 shards lack images.*shard 0: prompt 1, images\.image: ") as caught:
        generate(
            "sdxl",
            pipeline="StableDiffusionXLImg2ImgPipeline",
            rows=[good, broken, good],
            prepare=files,
            sampling={"steps": 4},
        )
    assert set(images(caught.value.uploader)) == {"images/000000-00.png", "images/000002-00.png"}
    assert [shard.state for shard in spooled_progress(caught.value.uploader.spool)] == ["Failed", "Done"]


def test_a_row_with_an_argument_that_the_pipeline_lacks_costs_its_own_image(generate):
    rows = [PromptRow(prompt="a"), PromptRow(prompt="b", extra={"strenght": 1})]
    with pytest.raises(BadInput, match=r"prompt 1, extra\.strenght") as caught:
        generate(rows=rows)
    assert set(images(caught.value.uploader)) == {"images/000000-00.png"}


def test_a_call_that_the_pipeline_refuses_is_a_wrong_configuration(generate):
    with pytest.raises(BadConfiguration, match=r"spec\.sampling: .*refuses the call: .*divisible by 8"):
        generate("sdxl", sampling={"steps": 1, "height": 30, "width": 32})


def test_an_image_of_no_numbers_fails_its_shard_and_names_the_dtype(generate, monkeypatch):
    from diffusers import AutoencoderKL

    original = AutoencoderKL.decode

    def decode(self, latents, *args, **kwargs):
        decoded = original(self, latents, *args, **kwargs)
        return (decoded[0] * float("nan"),) if next(calls) == 1 else decoded

    calls = iter(range(99))
    monkeypatch.setattr(AutoencoderKL, "decode", decode)
    with pytest.raises(BadInput, match=r"shard 0: spec\.model\.dtype: prompt 1, image 0 .*not numbers") as caught:
        generate()
    assert len(images(caught.value.uploader)) == len(PROMPTS) - 1


@pytest.mark.parametrize("name", ["sd3", "flux", "cogvideox"])
def test_other_families_leave_their_files(generate, name):
    rows = [PromptRow(prompt="a"), PromptRow(prompt="b")]
    format = "mp4" if name == "cogvideox" else "png"
    found = generate(name, rows=rows, sampling=sampling_of(name, batch_size=2), output={"format": format})
    assert len(images(found)) == 2
    assert len(set(images(found).values())) == 2


def test_a_stop_does_not_wait_for_room_in_a_full_spool(generate, folders, tmp_path):
    flag = StopFlag()
    spool = tmp_path / "full"
    make_task(make_job(), folders("pixart"), pipeline=CLASSES["pixart"]).write(spool)
    rank = RankSettings(
        spool=spool, run=spool, rank=0, local_rank=0, local_ranks=1, world=1, device="cpu", threads=1, spool_bytes=1
    )
    timer = threading.Timer(3.0, flag.ask)
    timer.start()
    with pytest.raises(TryAgain, match="stopped"):
        run_rank(rank, flag)
    timer.join()
    assert len(list((spool / "entry").iterdir())) == 1  # an empty spool takes one output, however large


def test_what_the_uploader_refused_is_made_again_and_what_waits_is_not(generate):
    def earlier(spool):
        earlier = Spool(spool)
        earlier.add("images/000000-00.png", b"waits", content_type="image/png")
        earlier.add("thumbnails/000000-00.webp", b"waits", content_type="image/webp")
        refused = earlier.add("images/000001-00.png", b"damaged", content_type="image/png")
        earlier.refuse(Refusal(id=refused.id, reason="its payload is damaged"))

    found = generate(prepare=earlier)
    assert found.stored["images/000001-00.png"].startswith(b"\x89PNG")
    assert found.stored["images/000000-00.png"] == b"waits"


def test_a_gpu_without_room_for_the_batch_names_the_batch_size(generate, monkeypatch):
    from diffusers import PixArtTransformer2DModel

    def forward(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    monkeypatch.setattr(PixArtTransformer2DModel, "forward", forward)
    with pytest.raises(FrazilError, match=r"spec\.sampling\.batchSize.*Tried to allocate") as caught:
        generate()
    assert caught.value.exit_code == 1


def test_an_error_inside_of_the_denoiser_stays_what_it_is(generate, monkeypatch):
    from diffusers import PixArtTransformer2DModel

    def forward(*_, **__):
        raise ValueError("a defect")

    monkeypatch.setattr(PixArtTransformer2DModel, "forward", forward)
    with pytest.raises(ValueError, match="a defect"):
        generate()


@pytest.mark.parametrize(("name", "steps"), [("pixart", 3), ("wan", 3), ("sdxl", 3)])
def test_every_step_is_counted_once_whatever_the_number_of_denoiser_calls(folders, name, steps):
    import diffusers

    pipe = getattr(diffusers, CLASSES[name]).from_pretrained(folders(name))
    seen = []
    watch = StepWatch(pipe, lambda *at: seen.append(at))
    assert not watch.begun
    pipe("a ring", num_inference_steps=steps, output_type="latent", **call_arguments(name))
    assert watch.begun
    assert seen == [(step + 1, steps) for step in range(steps)]


def test_steps_are_written_at_most_a_few_times_a_second(tmp_path):
    now = [0.0]
    batches = batches_of(make_job().spec, Shard(index=0, first=0, rows=[PromptRow(prompt="a")]), batch_size=1)
    report = Report.of(tmp_path, {0: 1}, batches, frozenset(), failed=set())
    report.clock = lambda: now[0]
    assert spooled_progress(tmp_path)[0].state == "Waiting"
    report.begin(batches[0])
    written = set()
    for step in range(1, 101):
        now[0] += 0.05
        report.step(step, 100)
        written.add(spooled_progress(tmp_path)[0].step)
    assert 5 <= len(written) <= 5 / 0.4 + 1
    now[0] += 5.0
    report.spooled(batches[0], 1)
    last = spooled_progress(tmp_path)[0]
    assert (last.state, last.generated, last.step, last.images_per_second) == ("Done", 1, 0, 0.1)
