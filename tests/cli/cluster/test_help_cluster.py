"""The help of the commands on a cluster, under both names, without loading what it doesn't need."""

import sys

import pytest

from frazil_cli import main


@pytest.mark.parametrize("command", ["push", "watch", "doctor"])
def test_every_command_has_examples_its_exit_codes_and_kubectls_options(frazil, command):
    ended = frazil(command, "--help")
    assert ended.returncode == 0
    assert f"frazil {command} " in ended.stdout.split("Examples:")[1]
    for words in ("Exit codes: 0 ", "--context", "--namespace", "--kubeconfig"):
        assert words in ended.stdout


def test_the_top_names_the_commands_of_a_cluster(frazil):
    ended = frazil("--help")
    assert "On a cluster" in ended.stdout
    for command in ("push", "watch", "doctor"):
        assert f" {command} " in ended.stdout


def test_help_loads_neither_the_kubernetes_client_nor_yaml(frazil):
    frazil.env = {"PYTHONPROFILEIMPORTTIME": "1"}
    ended = frazil("watch", "--help")
    imported = {
        line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")
    }
    assert "typer" in imported
    assert not imported & {"kubernetes", "urllib3", "websocket", "yaml", "redis", "minio"}


@pytest.mark.parametrize(
    ("called_as", "name"), [("/usr/bin/kubectl-frazil", "kubectl frazil"), ("/usr/bin/frazil", "frazil")]
)
def test_the_usage_has_the_name_that_it_was_called_by(monkeypatch, capsys, called_as, name):
    monkeypatch.setattr(sys, "argv", [called_as, "watch", "--help"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0
    assert f"Usage: {name} watch" in capsys.readouterr().out


def test_a_missing_client_says_how_to_install_it(monkeypatch):
    from frazil_cli.cluster.access import Access, reach
    from frazil_jobs.base.exits import BadConfiguration

    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(BadConfiguration, match="the Kubernetes client is not installed") as caught:
        reach(Access(), {})
    assert "pip install" in caught.value.remedy
