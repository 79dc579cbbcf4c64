"""Reading a job file: every mistake names its field and the way out."""

from __future__ import annotations

import contextlib
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import job_of, load_job
from frazil_jobs.base.exits import CONFIG, BadConfiguration

MINIMAL = """
apiVersion: frazil.dev/v1alpha1
kind: GenerationJob
metadata: {name: pictures}
spec:
  model: {uri: hf://org/model}
  prompts: {inline: [a red ring]}
"""


@pytest.mark.parametrize("path", sorted(Path("examples").rglob("*.yaml")), ids=str)
def test_every_example_is_a_valid_job(path: Path) -> None:
    assert load_job(path).metadata.name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["0 documents"]),
        ("{", ["not YAML"]),
        ("- 1", ["not a mapping"]),
        (MINIMAL + "---" + MINIMAL, ["2 documents"]),
        (MINIMAL.replace("v1alpha1", "v1"), ["apiVersion", "frazil.dev/v1alpha1"]),
        (MINIMAL.replace("GenerationJob", "GenerationJobs"), ["kind", "GenerationJob"]),
        (MINIMAL.replace("hf://org/model}", "hf://org/model, revison: main}"), ["spec.model.revison", "'revision'"]),
        (MINIMAL + "  sampling: {guidanceScale: 5.0}", ["spec.sampling.guidanceScale", 'quotes: "5.0"']),
        (MINIMAL + "  sampling: {guidanceScale: '-1'}", ["spec.sampling.guidanceScale"]),
        (MINIMAL + "  sampling: {steps: 0}", ["spec.sampling.steps", "greater than or equal to 1"]),
        (MINIMAL + "  parallelism: {mode: exact}", ["spec.parallelism.mode", "'Exact'"]),
        (MINIMAL + "  parallelism: {conditioning: 1}", ["spec.parallelism", "gpusPerNode"]),
        (MINIMAL.replace("name: pictures", "name: Pictures"), ["metadata.name"]),
        (MINIMAL.replace("  prompts: {inline: [a red ring]}\n", ""), ["spec.prompts", "required"]),
        (MINIMAL + "  sampling: {steps: 0, seed: -1}", ["2 problems", "spec.sampling.steps", "spec.sampling.seed"]),
    ],
)
def test_a_mistake_names_its_field_and_the_way_out(text: str, parts: list[str]) -> None:
    with pytest.raises(BadConfiguration) as caught:
        load_job(text)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.exit_code == CONFIG


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"nothing\.yaml can't be read"):
        load_job(tmp_path / "nothing.yaml")
    (tmp_path / "raw.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfiguration, match="UTF-8"):
        load_job(tmp_path / "raw.yaml")


words = st.text(string.printable, min_size=1, max_size=40).filter(str.strip)
jobs = st.fixed_dictionaries(
    {
        "apiVersion": st.just("frazil.dev/v1alpha1"),
        "kind": st.just("GenerationJob"),
        "metadata": st.fixed_dictionaries({"name": st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)}),
        "spec": st.fixed_dictionaries(
            {
                "model": st.fixed_dictionaries(
                    {"uri": words}, optional={"dtype": st.sampled_from(["Auto", "float16"])}
                ),
                "prompts": st.fixed_dictionaries({"inline": st.lists(words, min_size=1, max_size=5)}),
            },
            optional={
                "imagesPerPrompt": st.integers(1, 1024),
                "sampling": st.fixed_dictionaries(
                    {},
                    optional={
                        "steps": st.integers(1, 1000),
                        "guidanceScale": st.decimals(0, 99, places=2).map(str),
                        "seed": st.integers(0, 2**32 - 1),
                        "extra": st.dictionaries(words, st.integers() | words | st.booleans(), max_size=3),
                    },
                ),
            },
        ),
    }
)


@given(jobs)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_valid_job_survives_writing_and_reading(document: dict[str, Any]) -> None:
    job = job_of(document)
    text = yaml.safe_dump(job.model_dump(mode="json", by_alias=True, exclude_none=True), allow_unicode=True)
    assert load_job(text) == job


@given(jobs, st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_mutated_job_is_read_or_refused_and_never_crashes(document: dict[str, Any], data: st.DataObject) -> None:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | words
    junk = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(words, inner))
    place: Any = document
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            place[key] = data.draw(junk)
            break
        place = place[key]
    with contextlib.suppress(BadConfiguration):
        assert isinstance(job_of(document), GenerationJob)
