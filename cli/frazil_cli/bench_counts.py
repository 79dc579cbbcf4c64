"""What `frazil bench counts` prints: each scheme's share of work and its messages, at each size, as rows of one table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from frazil_cli.plandrawing import size_text
from frazil_jobs.base.exits import BadConfiguration

SIZES = (1024, 1536, 2048, 2560)
"""Sides of square pictures, in pixels."""
_FIGURES = ("GPUs", "T MACs", "bound", "with decode", "decode split", "sent a step", "sent an image")
COLUMNS = ("scheme", "setting", *_FIGURES, "guidance", "exact")


def rows(models: Iterable[str], sizes: Iterable[int]) -> Iterator[dict[str, Any]]:
    """One row a scheme, size and model. A model is a name of `costs.models.PUBLISHED` or a pipeline folder."""
    from frazil_jobs.generation.costs.models import PUBLISHED, of_folder, published
    from frazil_jobs.generation.costs.schemes import measured_size, rows_of

    for name in models:
        if name not in PUBLISHED and not (Path(name) / "model_index.json").exists():
            raise BadConfiguration(
                f"{name!r} is neither a published config nor a pipeline folder",
                field="--model",
                remedy=f"use {' or '.join(PUBLISHED)}, or a folder with a model_index.json",
            )
        model = published(name) if name in PUBLISHED else of_folder(Path(name))
        for side in sizes:
            if side % (8 * model.scale):
                raise BadConfiguration(
                    f"{side} pixels don't fit {model.name}",
                    field="--size",
                    remedy=f"use a multiple of {8 * model.scale}",
                )
            size = measured_size(model, side, side)
            for row in rows_of(size):
                yield _document(size, row)


def _document(size: Any, row: Any) -> dict[str, Any]:
    from frazil_jobs.generation.costs.schemes import BRANCHES, STEPS

    one = BRANCHES * STEPS * size.branch
    decode = size.decode
    return {
        "model": size.model.name,
        "size": size.height,
        "scheme": row.scheme,
        "setting": row.setting,
        "gpus": row.gpus,
        "steps": STEPS,
        "macs": row.macs,
        "macs_per_branch": size.branch,
        "bound": one / row.macs,
        "bytes_per_step": row.bytes_per_step,
        "bytes_per_image": row.bytes_per_image,
        "guidance": row.guidance,
        "exact": row.exact,
        "decode_macs": decode,
        "bound_with_decode": (one + decode) / (row.macs + decode) if decode else None,
        "bound_with_split_decode": (one + decode) / (row.macs + decode / row.gpus) if decode else None,
        "source": row.source,
        "note": row.note,
    }


def table(documents: list[dict[str, Any]]) -> Table:
    """The rows of one model at one size."""
    first = documents[0]
    title = (
        f"{first['model']} at {first['size']}², {first['steps']} steps: {tera(first['macs_per_branch'])} T MACs a branch"
        f" and step" + (f", {tera(first['decode_macs'])} T to decode" if first["decode_macs"] else "")
    )
    found = Table(title=title, title_justify="left")
    for name in COLUMNS:
        found.add_column(name, justify="right" if name in _FIGURES else "left")
    for document in documents:
        found.add_row(*cells(document))
    return found


def markdown(documents: Sequence[dict[str, Any]]) -> str:
    """All sizes of one model side by side, for a page: bounds at each size, and what is sent at the first and the last."""
    sizes = list(dict.fromkeys(document["size"] for document in documents))
    by_scheme: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for document in documents:
        by_scheme.setdefault((document["scheme"], document["setting"]), {})[document["size"]] = document
    head = ["scheme", "setting", "GPUs", *(f"{size}²" for size in sizes), f"{sizes[-1]}² with decode, split"]
    head += [f"sent a step, {size}²" for size in dict.fromkeys((sizes[0], sizes[-1]))]
    head += ["guidance", "exact"]
    lines = [f"| {' | '.join(head)} |", f"|---|---|{'---:|' * (len(head) - 4)}---|---|"]
    for (scheme, setting), found in by_scheme.items():
        first, last = found[sizes[0]], found[sizes[-1]]
        sent = [first["bytes_per_step"], *([last["bytes_per_step"]] if len(sizes) > 1 else [])]
        row = [
            scheme,
            setting,
            str(first["gpus"]),
            *(f"{found[size]['bound']:.2f}x" for size in sizes),
            _times(last["bound_with_split_decode"]),
            *(size_text(each) if each else "–" for each in sent),
            first["guidance"],
            "yes" if first["exact"] else "no",
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*_costs(documents), "", *lines, ""])


def _costs(documents: Sequence[dict[str, Any]]) -> list[str]:
    """What a branch and a decode cost at each size, as one sentence a model."""
    by_size = {document["size"]: document for document in documents}
    branch = ", ".join(f"{tera(document['macs_per_branch'])} at {size}²" for size, document in by_size.items())
    decode = ", ".join(
        f"{tera(document['decode_macs'])} at {size}²" for size, document in by_size.items() if document["decode_macs"]
    )
    return [
        f"**{documents[0]['model']}**: T MACs a branch and step {branch}; to decode a picture {decode or 'not counted'}."
    ]


def _times(bound: float | None) -> str:
    return "–" if bound is None else f"{bound:.2f}x"


def cells(document: Mapping[str, Any]) -> list[str]:
    """One row, as text."""
    decodes = [document["bound_with_decode"], document["bound_with_split_decode"]]
    return [
        document["scheme"],
        document["setting"],
        str(document["gpus"]),
        tera(document["macs"]),
        f"{document['bound']:.2f}x",
        *(_times(bound) for bound in decodes),
        size_text(document["bytes_per_step"]) if document["bytes_per_step"] else "–",
        size_text(document["bytes_per_image"]) if document["bytes_per_image"] else "–",
        document["guidance"],
        "yes" if document["exact"] else "no",
    ]


def tera(macs: float) -> str:
    """MACs in units of 10^12."""
    return f"{macs / 1e12:.2f}" if macs >= 1e10 else f"{macs / 1e12:.2g}"


def by_size(documents: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Runs of rows of one model at one size."""
    run: list[dict[str, Any]] = []
    for document in documents:
        if run and (run[-1]["model"], run[-1]["size"]) != (document["model"], document["size"]):
            yield run
            run = []
        run.append(document)
    if run:
        yield run
