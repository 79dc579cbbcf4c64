"""What is measured: a pipeline folder, the prompts that it is asked for, and who reads its pictures.

Without prompts of one's own the drawings of `examples/shapes` are asked for: its `draw.py` says them, its `read.py` judges.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frazil_jobs.base.exits import BadConfiguration

QUIRKS: Mapping[str, Any] = {"use_resolution_binning": False, "clean_caption": False}
"""Arguments that small pictures and plain prompts want, of pipelines that have them."""
TUNING_SEEDS = (0, 100)
TUNING_PROMPTS = 64
"""Of each of these seeds."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and how it is called. As plain values, so that ranks can be told."""

    model: str
    steps: int
    guidance_scale: float
    prompts: tuple[str, ...]
    size: int | None = None

    def document(self) -> dict[str, Any]:
        """For the ranks."""
        return asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Subject:
        """Of `document()`, after a trip through JSON."""
        return cls(**{**document, "prompts": tuple(document["prompts"])})

    def pipeline(self) -> Any:
        """The pipeline in float32, without a bar. Raises BadConfiguration."""
        import torch
        from diffusers import DiffusionPipeline

        if not (Path(self.model) / "model_index.json").exists():
            raise BadConfiguration(f"{self.model} is no pipeline folder", field="--model")
        load: Any = DiffusionPipeline.from_pretrained
        pipe = load(self.model, dtype=torch.float32, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def arguments(self, pipe: Any, prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
        """The arguments of one call: noise of each picture from a seed of its own, as a job makes it."""
        import torch

        known = inspect.signature(type(pipe).__call__).parameters
        scale = "true_cfg_scale" if "true_cfg_scale" in known else "guidance_scale"
        sizes = {} if self.size is None else {"height": self.size, "width": self.size}
        tokens = {"max_sequence_length": 16} if self._is_small(pipe) and "max_sequence_length" in known else {}
        return {
            "prompt": list(prompts),
            "num_inference_steps": self.steps,
            scale: self.guidance_scale,
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            **{name: value for name, value in QUIRKS.items() if name in known},
            **{name: value for name, value in sizes.items() if name in known},
            **tokens,
        }

    def _is_small(self, pipe: Any) -> bool:
        """A tokenizer that was made for 16 tokens, as the small model's."""
        return int(getattr(getattr(pipe, "tokenizer", None), "model_max_length", 0) or 0) <= 16


Reader = Callable[[str, Any], bool]
"""Whether a picture (uint8, height × width × 3) shows its prompt."""


def shapes_beside(model: Path) -> Path | None:
    """The folder with `draw.py` and `read.py` that a model of `examples/shapes` lies in."""
    folder = model.resolve().parent
    return folder if (folder / "draw.py").exists() and (folder / "read.py").exists() else None


def shapes_prompts(folder: Path, count: int, seed: int, *, without: Container[str] = ()) -> tuple[str, ...]:
    """`count` sentences at random, the same for a seed, none of those in `without`."""
    import numpy as np

    prompts = [scene.prompt for scene in _module(folder, "draw").ALL if scene.prompt not in without]
    return tuple(prompts[index] for index in np.random.default_rng(seed).integers(len(prompts), size=count))


def tuning_prompts(folder: Path) -> frozenset[str]:
    """The sentences that constants of the modes were chosen on, and more that may have been looked at meanwhile."""
    return frozenset(prompt for seed in TUNING_SEEDS for prompt in shapes_prompts(folder, TUNING_PROMPTS, seed))


def shapes_reader(folder: Path) -> Reader:
    """`read.py` as a judge."""
    draw, read = _module(folder, "draw"), _module(folder, "read")
    scenes = {scene.prompt: scene for scene in draw.ALL}

    def right(prompt: str, picture: Any) -> bool:
        return prompt in scenes and all(read.read(picture).right(scenes[prompt]).values())

    return right


def _module(folder: Path, name: str) -> Any:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def prompts_of(file: Path) -> tuple[str, ...]:
    """The prompts of a jsonl file, one object with a `prompt` a line, or of a text file, one a line."""
    lines = [line for line in file.read_text().splitlines() if line.strip()]
    if file.suffix == ".jsonl":
        return tuple(json.loads(line)["prompt"] for line in lines)
    return tuple(lines)
