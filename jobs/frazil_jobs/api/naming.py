"""Names and numbers that every part derives in the same way: seeds, keys of outputs, prefixes of jobs.

Keys are relative to a job's own prefix, and that to the destination's; an image made again has the same key.
"""

from __future__ import annotations

import hashlib
import json

from frazil_jobs.api.generationjob import GenerationJob, OutputFormat
from frazil_jobs.api.parallelism import Parallelism
from frazil_jobs.api.trainingjob import TrainingJob

MAX_PROMPTS = 1_000_000
MAX_IMAGES_PER_PROMPT = 1024
_IMAGE_STRIDE = 2**20
_SEEDS = 2**32
MANIFEST_KEY = "manifest.json"
MANIFEST_SCHEMA = "frazil.dev/manifest/v1"
GALLERY_KEY = "index.html"

_FOLDERS: dict[str, str] = {"mp4": "videos", "wav": "sounds"}


def seed_of(job_seed: int, prompt_index: int, image_index: int, *, row_seed: int | None = None) -> int:
    """The seed of one image, from 0 to 2^32 - 1 (what a CPU generator of torch tells apart).

    `job_seed + prompt_index`, or the row's own seed, plus `image_index * 2^20`. More prompts or more images a prompt
    therefore leave the images that there were as they are, and image 0 of prompt 0 has the job's seed.
    """
    base = job_seed + prompt_index if row_seed is None else row_seed
    return (base + image_index * _IMAGE_STRIDE) % _SEEDS


def image_key(prompt_index: int, image_index: int, output_format: OutputFormat) -> str:
    """The key of one output below its job's prefix: `images/000012-00.png` (`videos/`, `sounds/`)."""
    folder = _FOLDERS.get(output_format, "images")
    extension = "jpg" if output_format == "jpeg" else output_format
    return f"{folder}/{prompt_index:06d}-{image_index:02d}.{extension}"


def thumbnail_key(prompt_index: int, image_index: int) -> str:
    """The key of an output's thumbnail."""
    return f"thumbnails/{prompt_index:06d}-{image_index:02d}.webp"


def job_prefix(job: GenerationJob | TrainingJob, uid: str) -> str:
    """The prefix of a job below its destination's: `<namespace>/<name>-<uid8>`, or `<namespace>/<prefix>/<name>-<uid8>`
    with the spec's output.prefix, whose pattern lets nothing climb out of the namespace's own."""
    parts = (job.metadata.namespace, job.spec.output.prefix, f"{job.metadata.name}-{uid.replace('-', '')[:8]}")
    return "/".join(part for part in parts if part)


def _stages(parallelism: Parallelism) -> dict[str, int]:
    """The degrees that change images: a stage more is a step older."""
    return {"conditioning": parallelism.conditioning, "pipeline": parallelism.pipeline}


def local_uid(job: GenerationJob, prompts_sha256: str, *, model_fingerprint: str | None = None) -> str:
    """The uid of a job that no API server gave one: the sha256 of all that changes the bytes of its outputs.

    A second `frazil run` of the same file finds what the first one stored; a changed file never mixes with it, nor do
    the pictures of a model that was trained again in its place (`model_fingerprint`, of a folder of this machine).
    """
    spec = job.spec
    approximate = spec.parallelism.mode != "Exact"
    document = {
        "model": spec.model.model_dump(mode="json", exclude={"cache", "secret_ref"}),
        "modelFiles": model_fingerprint,
        "prompts": prompts_sha256,
        "perShard": spec.prompts.per_shard,
        "imagesPerPrompt": spec.images_per_prompt,
        "sampling": spec.sampling.model_dump(mode="json"),
        "mode": spec.parallelism.mode,
        "switching": spec.parallelism.switching.model_dump(mode="json") if approximate else None,
        **(_stages(spec.parallelism) if approximate and spec.parallelism.pipeline > 1 else {}),
        "format": spec.output.format,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def local_training_uid(
    job: TrainingJob, *, model_fingerprint: str | None = None, dataset_fingerprint: str | None = None
) -> str:
    """The uid of a TrainingJob that no API server gave one: the sha256 of all that decides its weights, but the number of
    steps, which may grow. A second `frazil run` of the same file goes on from the first one's checkpoint."""
    spec = job.spec
    document = {
        "task": spec.task,
        "model": spec.model.model_dump(mode="json", exclude={"cache", "secret_ref"}),
        "modelFiles": model_fingerprint,
        "initialWeights": spec.initial_weights,
        "dataset": spec.dataset.model_dump(mode="json", exclude={"secret_ref"}),
        "datasetFiles": dataset_fingerprint,
        "numbers": [spec.batch_size, spec.accumulation, spec.precision, spec.seed],
        "optimizer": spec.optimizer.model_dump(mode="json"),
        "parallelism": spec.parallelism.model_dump(mode="json"),
        "freezing": spec.freezing.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
