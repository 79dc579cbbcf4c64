"""`frazil bench counts`: its rows and tables, on the small model, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from frazil_cli import bench_counts
from frazil_jobs.base.exits import BadConfiguration

MODEL = Path(__file__).parents[3] / "examples" / "shapes" / "model"


@pytest.fixture(scope="module")
def documents() -> list[dict]:
    return list(bench_counts.rows([str(MODEL)], [64, 128]))


def test_every_scheme_is_there_at_every_size_with_its_bound(documents: list[dict]) -> None:
    small, large = ([row for row in documents if row["size"] == size] for size in (64, 128))
    assert [row["scheme"] for row in small] == [row["scheme"] for row in large]
    assert {"one GPU", "Exact", "Hybrid", "Guided", "AsyncDiff", "PipeFusion"} <= {row["scheme"] for row in small}
    for row in documents:
        one = next(other for other in documents if other["size"] == row["size"] and other["scheme"] == "one GPU")
        assert row["bound"] == pytest.approx(one["macs"] / row["macs"])
        assert row["bound_with_decode"] < max(row["bound"], 1.0) + 1e-9


def test_a_shared_decode_is_never_a_worse_bound_than_one_on_the_leader(documents: list[dict]) -> None:
    for row in documents:
        assert row["bound_with_split_decode"] >= row["bound_with_decode"]


def test_the_tables_have_a_row_a_scheme(documents: list[dict]) -> None:
    runs = list(bench_counts.by_size(documents))
    assert [run[0]["size"] for run in runs] == [64, 128]
    assert bench_counts.table(runs[0]).row_count == len(runs[0])
    lines = bench_counts.markdown(documents).splitlines()
    assert sum(line.startswith("| ") for line in lines) == 1 + len(runs[0])
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


@pytest.mark.parametrize(
    ("models", "sizes", "names"), [(["sdxxl"], [64], "published config"), ([str(MODEL)], [60], "60 pixels")]
)
def test_what_cannot_be_counted_is_refused_by_name(models: list[str], sizes: list[int], names: str) -> None:
    with pytest.raises(BadConfiguration, match=names):
        list(bench_counts.rows(models, sizes))
