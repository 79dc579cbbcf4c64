"""Draw the data set that examples/shapes/train.yaml learns from: pictures with their sentences, as parquet.

    python examples/shapes/pictures.py

Writes pictures/train.parquet (no combination that is kept out) and pictures/validation.parquet (only those).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from draw import HELD_OUT, TRAINING, Scene, draw
from PIL import Image

A_GROUP = 1000


def rows(scenes: Sequence[Scene], count: int, seed: int) -> Iterator[dict[str, object]]:
    """`count` pictures of `scenes`, drawn at random: PNG bytes and the sentence."""
    rng = np.random.default_rng(seed)
    for index in rng.integers(len(scenes), size=count):
        file = io.BytesIO()
        Image.fromarray(draw(scenes[index], rng)).save(file, "PNG")
        yield {"image": file.getvalue(), "caption": scenes[index].prompt}


def write(path: Path, scenes: Sequence[Scene], count: int, seed: int) -> None:
    """One parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("image", pa.binary()), ("caption", pa.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        group: list[dict[str, object]] = []
        for row in rows(scenes, count, seed):
            group.append(row)
            if len(group) == A_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
    print(f"{count} pictures in {path}")


def main() -> None:
    """Draw both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "pictures")
    parser.add_argument("--count", type=int, default=20000, help="pictures to train on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.to / "train.parquet", TRAINING, args.count, args.seed)
    write(args.to / "validation.parquet", sorted(HELD_OUT), max(1, args.count // 40), args.seed + 1)


if __name__ == "__main__":
    main()
