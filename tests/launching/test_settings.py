"""What the launcher is told, and what a rank may see of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.launching.settings import LauncherSettings, RankSettings, allowed, cores_here, rank_environ

RANK = RankSettings(
    spool=Path("/spool"),
    run=Path("/spool/run/x"),
    rank=1,
    local_rank=1,
    local_ranks=2,
    world=2,
    device="cpu",
    threads=3,
)


def test_the_defaults_are_one_node_and_what_the_machine_has():
    settings = LauncherSettings.from_environ({"FRAZIL_SPOOL": "/spool"})
    assert (settings.ranks, settings.device, settings.threads, settings.nodes) == (None, "auto", None, 1)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FRAZIL_SPOOL", ""),
        ("FRAZIL_RANKS", "0"),
        ("FRAZIL_RANKS", "two"),
        ("FRAZIL_DEVICE", "tpu"),
        ("FRAZIL_THREADS", "-1"),
        ("FRAZIL_GRACE_SECONDS", "soon"),
        ("FRAZIL_NODE_RANK", "1"),
    ],
)
def test_a_wrong_variable_is_named(variable, value):
    with pytest.raises(BadConfiguration, match=variable):
        LauncherSettings.from_environ({"FRAZIL_SPOOL": "/spool", variable: value})


def test_several_nodes_need_an_address_where_they_meet():
    environ = {"FRAZIL_SPOOL": "/spool", "FRAZIL_NODES": "2"}
    with pytest.raises(BadConfiguration, match="FRAZIL_RENDEZVOUS"):
        LauncherSettings.from_environ(environ)
    settings = LauncherSettings.from_environ(
        {**environ, "FRAZIL_NODE_RANK": "1", "FRAZIL_RENDEZVOUS": "node-0.job:29500"}
    )
    assert (settings.nodes, settings.node_rank) == (2, 1)


def test_a_rank_reads_what_the_launcher_wrote():
    for rank in (RANK, dataclasses.replace(RANK, replay=Path("/plans.json"), spool_bytes=7)):
        assert RankSettings.from_environ(rank.to_environ()) == rank


def test_a_rank_sees_an_allowlist_and_nothing_that_opens_anything():
    secrets = {
        "FRAZIL_S3_SECRET_KEY": "x",
        "FRAZIL_S3_ACCESS_KEY": "x",
        "FRAZIL_REDIS_URL": "x",
        "FRAZIL_STORE": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_PROFILE": "x",
        "KUBERNETES_SERVICE_HOST": "x",
        "HF_TOKEN": "x",
        "HTTP_PROXY": "x",
        "SOMETHING_NEW": "x",
        "CUDA_API_KEY": "x",
        "TORCH_TOKEN": "x",
    }
    useful = {"PATH": "/bin", "HOME": "/root", "LANG": "C", "CUDA_VISIBLE_DEVICES": "0,1", "NCCL_DEBUG": "INFO"}
    assert allowed({**secrets, **useful}) == useful
    assert not secrets.keys() & rank_environ({**secrets, **useful}, RANK).keys()


def test_a_rank_has_its_threads_and_reaches_for_no_hub():
    environ = rank_environ({"OMP_NUM_THREADS": "64"}, RANK)
    assert (environ["OMP_NUM_THREADS"], environ["MKL_NUM_THREADS"]) == ("3", "3")
    assert (environ["HF_HUB_OFFLINE"], environ["TRANSFORMERS_OFFLINE"]) == ("1", "1")


def test_ranks_of_one_node_talk_over_the_loopback_only():
    assert rank_environ({}, RANK)["GLOO_SOCKET_IFNAME"] == "lo"
    several = RankSettings(**{**vars(RANK), "rendezvous": "node-0:29500"})
    assert "GLOO_SOCKET_IFNAME" not in rank_environ({}, several)


def test_the_cores_of_a_container_are_those_of_its_limit(tmp_path):
    limit = tmp_path / "cpu.max"
    limit.write_text("max 100000\n")
    unlimited = cores_here(limit)
    limit.write_text("100000 100000\n")
    assert cores_here(limit) == 1
    limit.write_text("50000 100000\n")
    assert cores_here(limit) == 1
    assert cores_here(tmp_path / "absent") == unlimited
