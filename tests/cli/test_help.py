"""The help teaches: every command has examples, groups its options, and costs no heavy import."""

import pytest


@pytest.mark.parametrize("command", ["run", "plan", "fetch"])
def test_every_command_has_examples_and_says_its_exit_codes_or_fields(frazil, command):
    ended = frazil(command, "--help")
    assert ended.returncode == 0
    assert f"frazil {command} " in ended.stdout.split("Examples:")[1]
    assert "The object store" in ended.stdout


def test_the_top_names_the_commands_and_the_exit_codes(frazil):
    ended = frazil("--help")
    for word in ("run", "plan", "bench", "fetch", "sysexits", "--install-completion"):
        assert word in ended.stdout


def test_help_imports_neither_torch_nor_celery(frazil):
    frazil.env = {"PYTHONPROFILEIMPORTTIME": "1"}
    ended = frazil("--help")
    imported = {
        line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")
    }
    assert "typer" in imported
    assert not imported & {"torch", "diffusers", "celery", "redis", "minio", "pydantic"}


def test_version(frazil):
    ended = frazil("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("frazil ")
