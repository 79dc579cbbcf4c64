"""What an install says: the next commands, which are right for that release."""

from __future__ import annotations

import shlex

import pytest
import yaml
from typer.main import get_command

from frazil_cli.main import app

from .conftest import CHART

SYSTEM = "a-system"


def notes(helm, values: dict, release: str = "frazil") -> str:
    ended = helm.run("install", values, release, str(CHART), "-n", SYSTEM, "--dry-run=client")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.partition("\nNOTES:\n")[2]


def commands(said: str) -> list[list[str]]:
    """The lines that stand apart, as a shell reads them."""
    return [shlex.split(line, comments=True) for line in said.splitlines() if line.startswith("  ")]


def test_the_next_command_is_named_first_of_those_for_a_tenant(helm):
    said = notes(helm, {"tenants": ["team-b", "team-a"]})
    assert "Jobs may run in: team-b, team-a. Your next command" in said
    after = said.partition("Your next command")[2]
    assert commands(after)[0] == ["kubectl", "-n", "team-b", "apply", "-f", "job.yaml"]


@pytest.mark.parametrize("release", ["frazil", "pictures"])
def test_every_command_that_is_named_is_right_for_the_release(helm, release):
    values = {"tenants": ["team-b"]}
    ended = helm.run("template", values, release, str(CHART), "-n", SYSTEM)
    objects = [one for one in yaml.safe_load_all(ended.stdout) if one]
    deployments = {one["metadata"]["name"] for one in objects if one["kind"] == "Deployment"}
    plurals = {one["spec"]["names"]["plural"] for one in objects if one["kind"] == "CustomResourceDefinition"}
    frazil = get_command(app).commands
    named = commands(notes(helm, values, release))
    assert [words[0] for words in named] == ["kubectl", "helm", "kubectl", "kubectl", "frazil", "frazil"]
    for program, *words in named:
        match program, *words:
            case "kubectl", "-n", "a-system", "rollout", "status", target:
                assert target.removeprefix("deployment/") in deployments
            case "helm", "-n", "a-system", "test", name:
                assert name == release
            case "kubectl", "-n", "team-b", "apply", "-f", _:
                pass
            case "kubectl", "-n", "team-b", "get", plural, "-w":
                assert plural in plurals
            case "frazil", name, *given:
                assert frazil[name].make_context(name, given).params["namespace"] == "team-b"
            case other:
                pytest.fail(f"what does this do? {shlex.join(other)}")


def test_without_tenants_it_says_what_is_to_be_done_first(helm):
    said = notes(helm, {"tenants": []})
    assert "name some in `tenants`, and upgrade" in said
    assert ["frazil", "fetch", "NAME", "-n", "NAMESPACE"] in commands(said)


def test_it_warns_of_a_store_that_keeps_nothing(helm):
    assert "results are lost" in notes(helm, {"minio": {"persistence": {"enabled": False}}})
    assert "results are lost" not in notes(helm, {})
