"""Measures the small model: what an independent reader finds in the pictures that it generates.

    python examples/shapes/evaluate.py                  200 pictures each, with and without guidance; about 5 minutes
    python examples/shapes/evaluate.py --count 40
    python examples/shapes/evaluate.py --model examples/shapes/unet      the U-Net, into unet-evaluation.json

Prompts are drawn at random from all combinations; those that training never saw are counted apart. The pictures come from
diffusers' own pipeline, on one rank. The figures go to `evaluation.json`, with the sha256 of the weights that they are of.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from draw import ALL, HELD_OUT, TRAINING, Scene
from read import read
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
ATTRIBUTES = ("colour", "shape", "size", "place")
CALL = {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 16, "height": 64, "width": 64}
"""What the pipeline's call needs for a model of this size, where it has such arguments."""


def weights_sha256(folder: Path) -> dict[str, str]:
    """The sha256 of every weights file of a pipeline folder."""
    files = sorted(folder.rglob("*.safetensors"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def load(folder: Path) -> DiffusionPipeline:
    """The pipeline, in float32, without a progress bar."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: DiffusionPipeline, scenes: list[Scene], *, steps: int, guidance: float, seed: int, batch: int = 20
) -> np.ndarray:
    """A picture of each scene: uint8, (count, 64, 64, 3). Picture i has seed `seed + i`."""
    known = inspect.signature(type(pipeline).__call__).parameters
    call = {name: value for name, value in CALL.items() if name in known}
    pictures = []
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        generators = [torch.Generator().manual_seed(seed + start + index) for index in range(len(part))]
        found = pipeline(
            [scene.prompt for scene in part],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="np",
            **call,
        ).images
        pictures.append((found * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def score(scenes: list[Scene], pictures: np.ndarray) -> dict[str, float]:
    """The share of pictures that are read right: each attribute, and all four at once."""
    counts: Counter[str] = Counter()
    for scene, picture in zip(scenes, pictures, strict=True):
        right = read(picture).right(scene)
        counts.update(name for name, is_right in right.items() if is_right)
        counts["all four"] += all(right.values())
    return {name: counts[name] / len(scenes) for name in (*ATTRIBUTES, "all four")}


def chosen(scenes: tuple[Scene, ...], count: int, seed: int) -> list[Scene]:
    """`count` scenes at random."""
    rng = np.random.default_rng(seed)
    return [scenes[index] for index in rng.integers(len(scenes), size=count)]


def main() -> None:
    """Generate, read, print, and write `evaluation.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "model")
    parser.add_argument("--out", type=Path, help="evaluation.json, or that with the model's name before it")
    parser.add_argument("--count", type=int, default=200, help="pictures of each row")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1000)
    args = parser.parse_args()
    name = "evaluation.json" if args.model.name == "model" else f"{args.model.name}-evaluation.json"
    out = args.out or HERE / name
    pipeline = load(args.model)
    held_out = tuple(sorted(HELD_OUT))
    rows = {
        "with guidance": (chosen(ALL, args.count, args.seed), args.guidance),
        "without guidance": (chosen(ALL, args.count, args.seed), 1.0),
        "with guidance, kept out of the training": (chosen(held_out, args.count, args.seed + 1), args.guidance),
        "with guidance, in the training": (chosen(TRAINING, args.count, args.seed + 2), args.guidance),
    }
    table = Table(title=f"Read right, of {args.count} generated pictures ({args.steps} steps)", title_justify="left")
    table.add_column("pictures")
    for name in (*ATTRIBUTES, "all four"):
        table.add_column(name, justify="right")
    figures = {}
    for name, (scenes, guidance) in rows.items():
        pictures = generate(pipeline, scenes, steps=args.steps, guidance=guidance, seed=args.seed)
        figures[name] = {"guidanceScale": guidance, "count": args.count, **score(scenes, pictures)}
        table.add_row(name, *(f"{figures[name][column]:.1%}" for column in (*ATTRIBUTES, "all four")))
    Console().print(table)
    document = {
        "steps": args.steps,
        "seed": args.seed,
        "scheduler": type(pipeline.scheduler).__name__,
        "torch": torch.__version__,
        "figures": figures,
        "weights": weights_sha256(args.model),
    }
    out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
