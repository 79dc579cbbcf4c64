"""`python -m frazil_jobs.generation`, with real ranks: what it leaves, how it ends, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from diffusers import PixArtAlphaPipeline
from generation_tasks import PROMPTS, StandInUploader, make_job, make_task, sampling_of
from PIL import Image
from servers import free_port
from tiny_pipelines import save

from frazil_jobs.generation.guidance import FolderConfigs
from frazil_jobs.generation.prepare import prepare
from frazil_jobs.generation.simulate import simulate
from frazil_jobs.inputs.rows import PromptRow
from frazil_jobs.inputs.task import Task
from frazil_jobs.outputs.spool import Refusal, Spool

SECRETS = {
    "FRAZIL_S3_SECRET_KEY": "a-secret",
    "FRAZIL_S3_ACCESS_KEY": "a-secret",
    "FRAZIL_REDIS_URL": "redis://a-secret",
    "AWS_SECRET_ACCESS_KEY": "a-secret",
    "KUBERNETES_SERVICE_HOST": "a-secret",
    "HF_TOKEN": "a-secret",
}
SLOW = """
import time
from frazil_jobs.generation import loop
make = loop.Loop.make
def slow(self, batch):
    time.sleep(0.4)
    return make(self, batch)
loop.Loop.make = slow
"""
RAISING = """
import os
from frazil_jobs.generation import loop
make = loop.Loop.make
def raising(self, batch):
    if batch.number == 1 and os.environ.get("FRAZIL_RANK") == "1":
        raise LookupError("broken on purpose")
    return make(self, batch)
loop.Loop.make = raising
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("pixart", tmp_path_factory.mktemp("model") / "pixart")


class Launched:
    """A launcher that runs, its ranks, and what it says in the end."""

    def __init__(self, spool: Path, **environ: str) -> None:
        self.spool = spool
        self.log = spool.parent / f"{spool.name}.log"
        names = ("PATH", "HOME", "VIRTUAL_ENV")
        env = {name: os.environ[name] for name in names if name in os.environ}
        env |= {"FRAZIL_SPOOL": str(spool), "FRAZIL_DEVICE": "cpu", "FRAZIL_THREADS": "1", **SECRETS, **environ}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "frazil_jobs.generation"], env=env, stdout=log, stderr=subprocess.STDOUT
            )

    def end(self, seconds: float = 240) -> int:
        return self.process.wait(timeout=seconds)

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def last_line(self) -> str:
        return self.text.rstrip().splitlines()[-1]

    def ranks(self) -> list[int]:
        """Process ids of the ranks, in the order of their rank."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                environ = environ_of(int(folder.name))
                if environ.get("FRAZIL_SPOOL") == str(self.spool) and "FRAZIL_RANK" in environ:
                    found.append((int(environ["FRAZIL_RANK"]), int(folder.name)))
        return [pid for _, pid in sorted(found)]

    def wait_for(self, pattern: str, count: int = 1) -> None:
        """Wait until the spool holds `count` files that match."""
        until = time.monotonic() + 200
        while len(list(self.spool.glob(pattern))) < count:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < until, self.text
            time.sleep(0.02)


def environ_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone_within(pids: list[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(is_running(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def launch(model, tmp_path):
    """Write a task for two ranks into a new spool and start a launcher on it."""
    started = []

    def start(name="spool", *, rows=None, stored=(), ranks=2, patch="", environ=None, **spec):
        spool = tmp_path / name
        task_of(model, rows=rows, stored=stored, ranks=ranks, **spec).write(spool)
        patches = {}
        if patch:
            folder = tmp_path / f"{name}-patch"
            folder.mkdir()
            (folder / "sitecustomize.py").write_text(
                f'import os\nif "FRAZIL_RANK" in os.environ:\n    exec({patch!r})\n'
            )
            patches = {"PYTHONPATH": str(folder)}
        launched = Launched(spool, **patches, **(environ or {}))
        started.append(launched)
        return launched

    yield start
    for launched in started:
        launched.process.kill()
        launched.process.wait()


def task_of(model, *, rows=None, stored=(), ranks=2, **spec):
    spec = {"parallelism": {"conditioning": ranks, "timeout_seconds": 60}, "workers": {"gpus_per_node": ranks}, **spec}
    return make_task(
        make_job("pixart", **spec), model, rows=rows, pipeline="PixArtAlphaPipeline", stored=dict.fromkeys(stored)
    )


def frame_of(mp4):
    with av.open(io.BytesIO(mp4)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)


def grey_of(png):
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """An undisturbed run on two ranks: what it stored, and what its ranks could see."""
    spool = tmp_path_factory.mktemp("whole") / "spool"
    task_of(model).write(spool)
    launched = Launched(spool)
    with StandInUploader(spool) as uploader:
        launched.wait_for("run/*/meeting")
        uploader.environs = [environ_of(pid) for pid in launched.ranks()]
        assert launched.end() == 0, launched.text
    return uploader


@pytest.mark.parametrize("mode", ["Hybrid", "Guided"])
def test_two_ranks_in_an_approximate_mode_state_their_distance(launch, mode):
    switching = {"slope_threshold": "0", "budget": "0"}
    parallelism = {"mode": mode, "conditioning": 2, "timeout_seconds": 60, "switching": switching}
    launched = launch(parallelism=parallelism, sampling=sampling_of("pixart", steps=10))
    with StandInUploader(launched.spool) as uploader:
        assert launched.end() == 0, launched.text
    facts = uploader.entries["images/000000-00.png"].metadata
    assert (facts["mode"], facts["ranks"], facts["grid"]) == (mode, "2", "2x1x1")
    assert int(facts["steps_staged" if mode == "Hybrid" else "steps_reused"]) > 0
    assert facts["steps_without_guidance"] == ("1" if mode == "Hybrid" else "0")
    assert float(facts["psnr_to_exact_db"]) > 3
    compared = [key for key, entry in uploader.entries.items() if "psnr_to_exact_db" in entry.metadata]
    assert compared == ["images/000000-00.png"]


@pytest.mark.slow
def test_four_ranks_two_by_two_leave_the_pictures_of_the_simulator(model, launch):
    parallelism = {"mode": "Guided", "conditioning": 2, "pipeline": 2, "timeout_seconds": 60, "compare_with_exact": 1}
    parallelism["switching"] = {"budget": "0", "refresh_every": 4}
    rows = [PromptRow(prompt="a red ring"), PromptRow(prompt="two blue squares")]
    launched = launch(ranks=4, rows=rows, parallelism=parallelism, sampling=sampling_of("pixart", steps=10))
    with StandInUploader(launched.spool) as uploader:
        assert launched.end() == 0, launched.text
    assert len(uploader.stored) == 2 * len(rows)
    torch.set_num_threads(1)
    prepared = prepare(Task.read(launched.spool), ranks=4)
    pipe = PixArtAlphaPipeline.from_pretrained(model)
    with simulate(pipe, FolderConfigs.read(model), prepared.mode) as split:
        for number, batch in enumerate(prepared.batches):
            generators = [torch.Generator().manual_seed(item.seed) for item in batch.items]
            arguments = {**prepared.call.arguments(batch.items, pictures={}), "generator": generators}
            with split.call(arguments, batch_size=1):
                (picture,) = pipe(**arguments, output_type="np").images
            key = f"images/{number:06d}-00.png"
            assert np.array_equal(grey_of(uploader.stored[key]), np.round(picture * 255))
            facts = uploader.entries[key].metadata
            assert (facts["mode"], facts["ranks"], facts["grid"]) == ("Guided", "4", "2x2x1")
            assert split.course.facts.items() <= facts.items()
            assert int(facts["steps_staged"]) > 0
            assert ("psnr_to_exact_db" in facts) == (number == 0)


def test_two_ranks_leave_every_image_once_and_end_with_0(whole):
    expected = {f"images/{number:06d}-00.png" for number in range(len(PROMPTS))}
    expected |= {f"thumbnails/{number:06d}-00.webp" for number in range(len(PROMPTS))}
    assert set(whole.stored) == expected
    facts = whole.entries["images/000000-00.png"].metadata
    assert (facts["ranks"], facts["threads"], facts["grid"]) == ("2", "1", "2x1x1")


def test_a_rank_sees_no_credential_no_broker_and_no_cluster(whole):
    assert len(whole.environs) == 2
    for environ in whole.environs:
        assert not SECRETS.keys() & environ.keys()
        assert "a-secret" not in "".join(environ.values())
        assert (environ["HF_HUB_OFFLINE"], environ["OMP_NUM_THREADS"]) == ("1", "1")


def test_one_rank_makes_the_same_pictures_to_within_one_step_of_grey(whole, launch):
    launched = launch(ranks=1)
    with StandInUploader(launched.spool) as uploader:
        assert launched.end() == 0, launched.text
    assert uploader.stored.keys() == whole.stored.keys()
    for key in (key for key in whole.stored if key.startswith("images")):
        one, two = (
            np.asarray(Image.open(io.BytesIO(stored[key]))).astype(int) for stored in (uploader.stored, whole.stored)
        )
        assert np.abs(one - two).max() <= 1, key
    assert list(launched.spool.glob("run/*")) == []


def test_a_run_that_is_stopped_keeps_whole_images_and_the_next_makes_the_rest_with_the_same_bytes(whole, launch):
    first = launch("first", patch=SLOW)
    with StandInUploader(first.spool) as uploader:
        first.wait_for("entry/images-*.json", 2)
        ranks = first.ranks()
        first.process.send_signal(signal.SIGTERM)
        assert first.end() == 75, first.text
    assert "stopped in order" in first.last_line
    assert all_gone_within(ranks, 5)
    assert 0 < len(uploader.stored) < len(whole.stored)
    second = launch("second", stored=uploader.stored)
    with StandInUploader(second.spool) as rest:
        assert second.end() == 0, second.text
    assert {**uploader.stored, **rest.stored} == whole.stored
    assert not uploader.stored.keys() & rest.stored.keys()


def test_a_killed_rank_takes_the_others_down_within_30_seconds_and_is_named_last(launch):
    launched = launch(patch=SLOW)
    with StandInUploader(launched.spool):
        launched.wait_for("entry/images-*.json")
        ranks = launched.ranks()
        os.kill(ranks[1], signal.SIGKILL)
        began = time.monotonic()
        assert launched.end() == 75, launched.text
        assert time.monotonic() - began < 30
    assert all_gone_within(ranks, 0)
    assert f"rank 1 (process {ranks[1]}) was killed by SIGKILL" in launched.last_line
    assert "Traceback" not in launched.text


def test_the_traceback_of_the_rank_that_failed_is_shown_once_and_last(launch):
    launched = launch(patch=RAISING)
    with StandInUploader(launched.spool):
        assert launched.end() == 1, launched.text
    assert launched.text.count("Traceback") == 1
    assert launched.last_line == "LookupError: broken on purpose"
    assert "rank 1 failed:\nTraceback" in launched.text
    assert "Connection closed" not in launched.text


def test_a_mistake_in_the_job_is_one_message_and_no_rank_reads_weights(launch):
    launched = launch(sampling=sampling_of("pixart", extra={"use_resolution_bining": False}))
    assert launched.end() == 78, launched.text
    assert "spec.sampling.extra.use_resolution_bining" in launched.last_line
    assert "did you mean 'use_resolution_binning'" in launched.last_line
    assert launched.text.count("did you mean") == 1
    assert "Traceback" not in launched.text


def test_a_prompt_that_cannot_be_used_ends_in_65_after_all_others_are_stored(launch):
    rows = [PromptRow(prompt="a"), PromptRow(prompt="b", extra={"nonsense": 1}), PromptRow(prompt="c")]
    launched = launch(rows=rows)
    with StandInUploader(launched.spool) as uploader:
        assert launched.end() == 65, launched.text
        assert {key for key in uploader.stored if key.startswith("images")} == {
            "images/000000-00.png",
            "images/000002-00.png",
        }
    assert "1 of 2 shards lack images" in launched.last_line
    assert "prompt 1, extra.nonsense" in launched.last_line


def test_it_ends_with_0_only_when_everything_is_acknowledged(launch):
    everything = [f"images/{n:06d}-00.png" for n in range(5)] + [f"thumbnails/{n:06d}-00.webp" for n in range(5)]
    launched = launch(stored=everything, ranks=1)
    Spool(launched.spool).add("images/000009-00.png", b"x", content_type="image/png")
    time.sleep(1)
    until = time.monotonic() + 100
    while launched.ranks() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)
    assert launched.process.poll() is None, launched.text
    with StandInUploader(launched.spool):
        assert launched.end(20) == 0, launched.text


def test_an_output_that_was_damaged_in_the_spool_is_told_and_made_again_by_the_next_start(launch):
    everything = [f"images/{n:06d}-00.png" for n in range(5)] + [f"thumbnails/{n:06d}-00.webp" for n in range(5)]
    launched = launch(stored=everything, ranks=1)
    spool = Spool(launched.spool)
    entry = spool.add("images/000009-00.png", b"x", content_type="image/png")
    spool.refuse(Refusal(id=entry.id, reason="its payload is gone"))
    assert launched.end() == 75, launched.text
    assert "can't be stored: its payload is gone" in launched.last_line


def test_killing_the_launcher_leaves_no_rank_behind(launch):
    launched = launch(patch=SLOW)
    launched.wait_for("run/*/meeting")
    ranks = launched.ranks()
    assert len(ranks) == 2
    launched.process.kill()
    assert all_gone_within(ranks, 10)


def test_a_job_without_guidance_uses_one_rank_when_it_says_so(launch):
    sampling = sampling_of("pixart", guidance_scale="1.0")
    parallelism = {"conditioning": 2, "when_unguided": "OneRank", "timeout_seconds": 60}
    launched = launch(rows=[PromptRow(prompt="a")], sampling=sampling, parallelism=parallelism)
    with StandInUploader(launched.spool) as uploader:
        assert launched.end() == 0, launched.text
    assert uploader.entries["images/000000-00.png"].metadata["ranks"] == "1"


@pytest.mark.slow
def test_a_rank_that_waits_too_long_for_another_ends_the_replica(launch):
    launched = launch(patch=SLOW, parallelism={"conditioning": 2, "timeout_seconds": 10})
    with StandInUploader(launched.spool):
        launched.wait_for("entry/images-*.json")
        ranks = launched.ranks()
        os.kill(ranks[1], signal.SIGSTOP)
        began = time.monotonic()
        assert launched.end() == 75, launched.text
        assert time.monotonic() - began < 10 + 30
    assert all_gone_within(ranks, 0)
    assert "rank 0 lost contact with another rank" in launched.last_line


@pytest.mark.slow
def test_a_full_spool_pauses_the_ranks_for_longer_than_their_time_out(whole, launch):
    launched = launch(parallelism={"conditioning": 2, "timeout_seconds": 10}, environ={"FRAZIL_SPOOL_BYTES": "1500"})
    launched.wait_for("entry/images-*.json")
    time.sleep(15)
    assert launched.process.poll() is None, launched.text
    with StandInUploader(launched.spool) as uploader:
        assert launched.end() == 0, launched.text
    assert uploader.stored == whole.stored


@pytest.mark.slow
def test_ranks_that_share_a_sequence_make_the_video_of_one_rank(tmp_path):
    model = save("wan", tmp_path / "wan")
    stored = []
    for ranks in (1, 2):
        spool = tmp_path / f"spool{ranks}"
        parallelism = {"conditioning": 1, "sequence": ranks, "timeout_seconds": 60}
        sampling = sampling_of("wan", width=32)  # a number of tokens that two can share
        job = make_job("wan", parallelism=parallelism, sampling=sampling, output={"format": "mp4"})
        make_task(job, model, rows=[PromptRow(prompt="a river")], pipeline="WanPipeline").write(spool)
        launched = Launched(spool)
        with StandInUploader(spool) as uploader:
            assert launched.end() == 0, launched.text
        stored.append(frame_of(uploader.stored["videos/000000-00.mp4"]))
        assert uploader.entries["videos/000000-00.mp4"].metadata["grid"] == f"1x1x{ranks}"
    assert np.abs(stored[0] - stored[1]).max() <= 2


@pytest.mark.slow
def test_the_ranks_of_two_nodes_meet_at_an_address(whole, launch):
    address = f"127.0.0.1:{free_port()}"
    nodes = [
        launch(
            f"node{node}",
            environ={
                "FRAZIL_NODES": "2",
                "FRAZIL_NODE_RANK": str(node),
                "FRAZIL_RENDEZVOUS": address,
                "GLOO_SOCKET_IFNAME": "lo",
            },
        )
        for node in (0, 1)
    ]
    with StandInUploader(nodes[0].spool) as uploader:
        assert [node.end() for node in nodes] == [0, 0], "\n".join(node.text for node in nodes)
    assert uploader.stored == whole.stored
    assert list((nodes[1].spool / "entry").iterdir()) == []


def run_launcher(**environ):
    env = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(
        [sys.executable, "-m", "frazil_jobs.generation"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_spool_that_cannot_be_written_is_a_wrong_configuration(tmp_path):
    (tmp_path / "file").write_text("")
    for spool in (tmp_path / "absent", tmp_path / "file", Path("/proc")):
        done = run_launcher(FRAZIL_SPOOL=str(spool))
        assert done.returncode == 78, done.stderr
        assert done.stderr.strip().startswith(f"FRAZIL_SPOOL: can't write to the spool {spool}")


def test_a_spool_without_a_task_can_be_tried_again(tmp_path):
    done = run_launcher(FRAZIL_SPOOL=str(tmp_path))
    assert done.returncode == 75
    assert "there is no task" in done.stderr


def test_the_launcher_loads_no_torch():
    check = (
        "import sys, frazil_jobs.generation.launcher; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
