"""Write scikit-learn's handwritten digits (1,797 grey pictures of 8 × 8) as the data set of examples/digits/train.yaml.

    python examples/digits/make.py

Every fifth picture is for validation.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image
from sklearn.datasets import load_digits

HERE = Path(__file__).parent


def main() -> None:
    """Write both splits."""
    digits = load_digits()
    pictures = np.round(digits.images * (255 / 16)).astype(np.uint8)
    rows: dict[str, list[dict[str, object]]] = {"train": [], "validation": []}
    for number, (picture, label) in enumerate(zip(pictures, digits.target, strict=True)):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        rows["validation" if number % 5 == 4 else "train"].append({"image": file.getvalue(), "label": int(label)})
    (HERE / "data").mkdir(exist_ok=True)
    for split, found in rows.items():
        parquet.write_table(pa.Table.from_pylist(found), HERE / "data" / f"{split}.parquet")
        print(f"{len(found)} pictures in {HERE / 'data' / split}.parquet")


if __name__ == "__main__":
    main()
