"""Which files of a model are needed, told by their names alone, and whether a safetensors file is whole.

Names are looked at before anything is downloaded, so that neither a pickle nor a second precision is. The naming rules
are those of diffusers and transformers: `name[.variant][-00001-of-00005].safetensors`, beside an index called
`name.safetensors.index[.variant].json`.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from frazil_jobs.base.exits import BadConfiguration

SAFETENSORS = ".safetensors"
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
PLAIN = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".vocab", ".merges"})
"""Configurations and tokenizers: data that no loader executes."""
_ROOT_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)[.-]")
"""Weights beside model_index.json belong to a component only under these names; others are one-file checkpoints."""
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_INDEX = re.compile(r"\.index(\.(?P<late>[^.]+))?\.json$")
_MAX_HEADER = 100 << 20
"""The limit of the safetensors format for its header."""
_POINTER = b"version https://git-lfs"


def is_weights(name: str) -> bool:
    """Whether a file holds weights, of either kind."""
    return PurePosixPath(name).suffix in PICKLES | {SAFETENSORS}


def variant_of(name: str) -> str | None:
    """The variant ("fp16") in the name of a weights file or of its index; None for the plain weights."""
    base = PurePosixPath(name).name
    if index := _INDEX.search(base):
        if index["late"]:
            return index["late"]
        base = base[: index.start()]
    stem = _SHARD.sub("", PurePosixPath(base).stem)
    return stem.rpartition(".")[2] if "." in stem else None


def needed(
    names: Iterable[str], *, components: Sequence[str], variant: str | None, allow_pickle: bool, allow_remote_code: bool
) -> list[str]:
    """The files that loading a pipeline needs, of all the files of its repository or folder.

    As diffusers does, a component without the variant gives its plain weights. Pickles are needed only where they are
    allowed and there is nothing else, Python files only where remote code is allowed.
    """
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, _ = name.rpartition("/")
        if folder == "" or folder.split("/")[0] in components:
            folders.setdefault(folder, []).append(name)
    flat = "config.json" in folders.get("", ())
    chosen: list[str] = []
    for folder, inside in folders.items():
        weights = [name for name in inside if is_weights(name)]
        if folder == "":
            weights = [name for name in weights if flat and _ROOT_WEIGHTS.match(name)]
        chosen += _chosen_weights(weights, variant=variant, allow_pickle=allow_pickle)
        kept = {variant_of(name) for name in chosen if name.rpartition("/")[0] == folder}
        for name in inside:
            suffix = PurePosixPath(name).suffix
            is_plain = suffix in PLAIN and (not _INDEX.search(name) or variant_of(name) in kept)
            if is_plain or (suffix == ".py" and allow_remote_code):
                chosen.append(name)
    return sorted(chosen)


def _chosen_weights(weights: Sequence[str], *, variant: str | None, allow_pickle: bool) -> list[str]:
    safe = [name for name in weights if name.endswith(SAFETENSORS)]
    candidates = safe or (list(weights) if allow_pickle else [])
    of_variant = [name for name in candidates if variant is not None and variant_of(name) == variant]
    return of_variant or [name for name in candidates if variant_of(name) is None]


def check_safetensors(path: Path, *, field: str) -> bytes:
    """Its header, once it's sure that the file has the length that the header says. Raises BadConfiguration."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_POINTER))
        if start == _POINTER:
            raise BadConfiguration(
                f"{path} is a Git LFS pointer, not the weights", field=field, remedy="run `git lfs pull`"
            )
        file.seek(0)
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else size
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise _broken(path, "its header is not whole", field)
        file.seek(8)
        header = file.read(length)
    try:
        tensors = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise _broken(path, "its header can't be read", field) from None
    if max(ends, default=0) != size - 8 - length:
        raise _broken(
            path, f"its header speaks of {max(ends, default=0):,} bytes and it holds {size - 8 - length:,}", field
        )
    return header


def _broken(path: Path, why: str, field: str) -> BadConfiguration:
    return BadConfiguration(
        f"{path} is no whole safetensors file: {why}", field=field, remedy="copy or download it again"
    )
