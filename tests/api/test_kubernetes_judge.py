"""The same jobs before Kubernetes' own code: it must take the CRDs, and decide of each object as our types do.

`kubernetes_judge/` is a small Go program around k8s.io/apiextensions-apiserver: CRD validation with the estimated cost of
each rule, pruning, defaulting, structure and CEL. The first build takes a minute or two: this is one of the slow tests.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crd_server import admit
from job_cases import CREATE, MAY_CHANGE, MINIMAL, PATTERNS, STRUCTURE, UPDATE, VALID, changed, random_job, repaired

from frazil_jobs.api import crd as generator
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import job_of
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SOURCE = Path(__file__).parent / "kubernetes_judge"
CRDS = {kind.__name__: generator.crd(kind) for kind in (GenerationJob, TrainingJob)}
Judge = Callable[[list[tuple[dict[str, Any], dict[str, Any] | None]]], list[list[str]]]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs Go 1.26 (https://go.dev/dl) to build Kubernetes' own CRD code; there is no `go` on the PATH")
    modules = subprocess.run([go, "mod", "download"], cwd=SOURCE, capture_output=True, text=True, timeout=300)
    if modules.returncode:
        pytest.skip(f"Kubernetes' Go modules can't be downloaded: {modules.stderr.strip().splitlines()[-1]}")
    target = tmp_path_factory.mktemp("judge") / "judge"
    subprocess.run([go, "build", "-o", target, "."], cwd=SOURCE, check=True, timeout=600)
    return target


@pytest.fixture(scope="session")
def judge(program: Path) -> Judge:
    files = {kind: str(generator.FOLDER / f"{kind.lower()}s.yaml") for kind in CRDS}

    def decide(pairs: list[tuple[dict[str, Any], dict[str, Any] | None]]) -> list[list[str]]:
        lines = [json.dumps({"crd": files[new["kind"]], "new": new, "old": old}) for new, old in pairs]
        ended = subprocess.run(
            [program, *files.values()], input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    return decide


def paths_of(problems: list[str]) -> set[str]:
    return {re.sub(r"\[\d+\]", "[]", problem.split(": ")[0]).removeprefix("<nil>") for problem in problems}


def test_the_api_server_takes_the_crds(program: Path) -> None:
    files = sorted(generator.FOLDER.glob("*.yaml"))
    assert len(files) == 2
    ended = subprocess.run([program, *files], input="", capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_api_server_refuses_a_default_that_breaks_a_rule(program: Path, tmp_path: Path) -> None:
    """What this test is for: the first CRDs had `default: {}`, which no offline check of ours saw."""
    bad = (generator.FOLDER / "generationjobs.yaml").read_text()
    bad = re.sub(r"capPercent: 30\n(?!.*minimum)", "capPercent: 99\n", bad, count=1)
    (tmp_path / "bad.yaml").write_text(bad)
    ended = subprocess.run([program, tmp_path / "bad.yaml"], input="", capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "must not exceed 100" in ended.stderr


def test_it_admits_what_is_valid_once_and_again(judge: Judge) -> None:
    for document, problems, again in zip(
        VALID.values(),
        judge([(document, None) for document in VALID.values()]),
        judge([(document, document) for document in VALID.values()]),
        strict=True,
    ):
        assert problems == again == [], document


def test_it_refuses_what_breaks_a_rule_with_our_message(judge: Judge) -> None:
    found = judge([(changed(MINIMAL[case.kind], case.changes), None) for case in CREATE])
    for case, problems in zip(CREATE, found, strict=True):
        assert len(problems) == 1, (case, problems)
        assert case.message in problems[0], case
        assert paths_of(problems) == {case.path}, case
    assert len(CREATE) >= 40


def test_it_refuses_changes_of_what_is_immutable_with_our_message(judge: Judge) -> None:
    found = judge([(changed(MINIMAL[case.kind], case.changes), MINIMAL[case.kind]) for case in UPDATE])
    for case, problems in zip(UPDATE, found, strict=True):
        assert len(problems) == 1, (case, problems)
        assert case.message in problems[0], case


def test_it_sees_changes_deep_within_free_form_parts(judge: Judge) -> None:
    pairs = [
        ("spec.sampling.extra", "sampling is immutable"),
        ("spec.workers.template.affinity", "only replicas and minReplicas"),
    ]
    for path, message in pairs:
        before, after = (changed(MINIMAL["GenerationJob"], {path: {"x": {"y": [value]}}}) for value in (1.5, 2.5))
        ((problem,), same) = judge([(after, before), (before, before)])
        assert message in problem
        assert same == []


def test_it_admits_what_may_change(judge: Judge) -> None:
    found = judge([(changed(MINIMAL[kind], changes), MINIMAL[kind]) for kind, changes in MAY_CHANGE])
    assert found == [[]] * len(MAY_CHANGE)


def test_it_refuses_what_the_structure_refuses(judge: Judge) -> None:
    found = judge([(changed(MINIMAL[kind], changes), None) for kind, changes in STRUCTURE])
    for case, problems in zip(STRUCTURE, found, strict=True):
        assert problems, case


def test_patterns_mean_the_same_to_it(judge: Judge) -> None:
    """Through a CRD field of each pattern, since Go, Rust and Python read regular expressions each in their own way."""
    fields = {
        node["pattern"]: path
        for path, node in _leaves(CRDS["GenerationJob"])
        if path.count(".") <= 3 and "[]" not in path
    }
    tried = 0
    for pattern, (taken, refused) in PATTERNS.items():
        if pattern not in fields:
            continue
        for text in (*taken, *refused):
            document = changed(MINIMAL["GenerationJob"], {fields[pattern].lstrip("."): text})
            (problems,) = judge([(document, None)])
            wrong = [problem for problem in problems if "should match" in problem]
            assert bool(wrong) == (text in refused), (pattern, text, problems)
            tried += 1
    assert tried >= 40


@pytest.mark.parametrize("kind", CRDS)
def test_types_offline_judge_and_kubernetes_decide_alike_of_random_jobs(kind: str, judge: Judge) -> None:
    schema = CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    documents = []
    for seed in range(400):
        wrong = random.Random(seed).choice([0.0, 0.005, 0.02])
        document = random_job(kind, schema, seed, wrong=wrong)
        documents.append(repaired(document) if wrong == 0.0 and seed % 2 else document)
    admitted = 0
    for document, problems in zip(documents, judge([(document, None) for document in documents]), strict=True):
        assert bool(problems) == bool(admit(CRDS[kind], document)), (document, problems)
        assert bool(problems) == _refused(document), (document, problems)
        admitted += not problems
    assert admitted >= 40


def _refused(document: dict[str, Any]) -> bool:
    try:
        job_of(document)
    except BadConfiguration:
        return True
    return False


def _leaves(crd: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    from crd_server import every_schema

    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return [(path, node) for path, node in every_schema(schema["properties"]["spec"], ".spec") if "pattern" in node]
