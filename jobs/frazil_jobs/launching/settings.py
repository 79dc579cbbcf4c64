"""What the launcher and its ranks are told through their environment, and what a rank's environment may hold at all.

The launcher hands each rank an allowlist and nothing else: a rank runs a model's code paths on what people typed, so it
holds no credential, no broker's address and no cluster's. Loads no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.base.log import FORMAT_VARIABLE, LEVEL_VARIABLE

DEVICES: Final = ("auto", "cpu", "cuda")
DECODES: Final = ("auto", "whole")
REPLAY_VARIABLE: Final = "FRAZIL_REPLAY"
DEFAULT_GRACE_SECONDS: Final = 25.0
"""Kubernetes gives a pod 30 s by default between SIGTERM and SIGKILL."""
DEFAULT_DRAIN_SECONDS: Final = 3600.0
"""How long finished work waits for the store before the pod gives up (and is tried again)."""

_ALLOWED: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM", "HOSTNAME"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "XDG_CACHE_HOME", "MALLOC_ARENA_MAX"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONHASHSEED", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"),
        *("PYTHONWARNINGS", "PYTHONFAULTHANDLER", "PYTHONPYCACHEPREFIX", "PYTHONNOUSERSITE"),
        *(FORMAT_VARIABLE, LEVEL_VARIABLE),
    }
)
_ALLOWED_PREFIXES: Final = (
    *("LC_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "UCX_", "FI_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_"),
    *("OMP_", "KMP_", "MKL_", "OPENBLAS_", "HIP_", "HSA_", "ROCR_", "ROCM_", "MIOPEN_"),
)
_NEVER: Final = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|AUTH", re.IGNORECASE)
"""Refused even where the prefix is allowed."""


def allowed(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `environ` that a rank may see."""
    return {
        name: value
        for name, value in environ.items()
        if (name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)) and not _NEVER.search(name)
    }


@dataclass(frozen=True, kw_only=True)
class LauncherSettings:
    """One node's part of one replica."""

    spool: Path
    ranks: int | None = None
    """Ranks on this node; None: as many as the job's degrees ask for."""
    device: str = "auto"
    threads: int | None = None
    """CPU threads of each rank; None: the cores of this container, shared evenly."""
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    """From SIGTERM until the image in hand is dropped."""
    drain_seconds: float = DEFAULT_DRAIN_SECONDS
    decode: str = "auto"
    """auto: the ranks share the decode where they can; whole: the leader decodes, bit for bit as one rank does."""
    spool_bytes: int | None = None
    """How much may wait in the spool; None: the spool's own default."""
    replay: Path | None = None
    """The plans.json of an earlier run, whose freezing plans a TrainingJob takes in place of its own."""
    nodes: int = 1
    node_rank: int = 0
    rendezvous: str | None = None
    """`host:port` of node 0, where the ranks of several nodes meet."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> LauncherSettings:
        """Read FRAZIL_SPOOL and its siblings. Raises BadConfiguration naming the variable."""
        spool = environ.get("FRAZIL_SPOOL", "")
        if not spool:
            raise BadConfiguration("is not set", field="FRAZIL_SPOOL", remedy="name the folder that `fetch` prepared")
        device = environ.get("FRAZIL_DEVICE") or "auto"
        if device not in DEVICES:
            raise BadConfiguration(f"{device!r} is no device", field="FRAZIL_DEVICE", remedy="use auto, cpu or cuda")
        decode = environ.get("FRAZIL_DECODE") or "auto"
        if decode not in DECODES:
            raise BadConfiguration(f"{decode!r} is no way to decode", field="FRAZIL_DECODE", remedy="use auto or whole")
        nodes = _whole(environ, "FRAZIL_NODES", least=1) or 1
        node_rank = _whole(environ, "FRAZIL_NODE_RANK", least=0) or 0
        rendezvous = environ.get("FRAZIL_RENDEZVOUS") or None
        if node_rank >= nodes:
            raise BadConfiguration(f"{node_rank} is not below FRAZIL_NODES={nodes}", field="FRAZIL_NODE_RANK")
        if nodes > 1 and not re.fullmatch(r"[^:\s]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", rendezvous or ""):
            raise BadConfiguration(
                f"{rendezvous!r} is not host:port, and FRAZIL_NODES={nodes}",
                field="FRAZIL_RENDEZVOUS",
                remedy="give the address of node 0",
            )
        return cls(
            spool=Path(spool).absolute(),
            ranks=_whole(environ, "FRAZIL_RANKS", least=1),
            device=device,
            threads=_whole(environ, "FRAZIL_THREADS", least=1),
            grace_seconds=_seconds(environ, "FRAZIL_GRACE_SECONDS", DEFAULT_GRACE_SECONDS),
            drain_seconds=_seconds(environ, "FRAZIL_DRAIN_SECONDS", DEFAULT_DRAIN_SECONDS),
            decode=decode,
            spool_bytes=_whole(environ, "FRAZIL_SPOOL_BYTES", least=1),
            replay=_path(environ, REPLAY_VARIABLE),
            nodes=nodes,
            node_rank=node_rank,
            rendezvous=rendezvous,
        )


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    """One rank, as the launcher describes it to the process."""

    spool: Path
    run: Path
    """This start's own folder: where the ranks of one node meet, and where a failing rank leaves its error."""
    rank: int
    local_rank: int
    local_ranks: int
    world: int
    device: str
    threads: int
    rendezvous: str | None = None
    spool_bytes: int | None = None
    replay: Path | None = None
    decode: str = "auto"

    def to_environ(self) -> dict[str, str]:
        """The variables that `from_environ` reads."""
        return {
            "FRAZIL_SPOOL": str(self.spool),
            "FRAZIL_RUN": str(self.run),
            "FRAZIL_RANK": str(self.rank),
            "FRAZIL_LOCAL_RANK": str(self.local_rank),
            "FRAZIL_LOCAL_RANKS": str(self.local_ranks),
            "FRAZIL_WORLD": str(self.world),
            "FRAZIL_DEVICE": self.device,
            "FRAZIL_THREADS": str(self.threads),
            "FRAZIL_DECODE": self.decode,
            **({"FRAZIL_RENDEZVOUS": self.rendezvous} if self.rendezvous else {}),
            **({"FRAZIL_SPOOL_BYTES": str(self.spool_bytes)} if self.spool_bytes else {}),
            **({REPLAY_VARIABLE: str(self.replay)} if self.replay else {}),
        }

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> RankSettings:
        """What `to_environ` wrote."""
        return cls(
            spool=Path(environ["FRAZIL_SPOOL"]),
            run=Path(environ["FRAZIL_RUN"]),
            rank=int(environ["FRAZIL_RANK"]),
            local_rank=int(environ["FRAZIL_LOCAL_RANK"]),
            local_ranks=int(environ["FRAZIL_LOCAL_RANKS"]),
            world=int(environ["FRAZIL_WORLD"]),
            device=environ["FRAZIL_DEVICE"],
            threads=int(environ["FRAZIL_THREADS"]),
            rendezvous=environ.get("FRAZIL_RENDEZVOUS"),
            spool_bytes=_whole(environ, "FRAZIL_SPOOL_BYTES", least=1),
            replay=_path(environ, REPLAY_VARIABLE),
            decode=environ.get("FRAZIL_DECODE") or "auto",
        )


def rank_environ(environ: Mapping[str, str], rank: RankSettings) -> dict[str, str]:
    """The whole environment of one rank's process."""
    threads = str(rank.threads)
    one_node = {} if rank.rendezvous else {"GLOO_SOCKET_IFNAME": "lo"}
    return {
        **one_node,  # ranks of one node need no network, and none can reach them
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # the same sums in the same order on each run
        **allowed(environ),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        "TOKENIZERS_PARALLELISM": "false",
        # Everything is in the spool or in the model's folder: nothing may reach for a hub.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        **rank.to_environ(),
    }


def cores_here(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores this process may use: its affinity, and the container's CPU limit (cgroup v2 `cpu.max`: quota period)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        limit = cores if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        limit = cores
    return max(1, min(cores, limit))


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]).absolute() if environ.get(name) else None


def _whole(environ: Mapping[str, str], name: str, *, least: int) -> int | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < least:
        raise BadConfiguration(f"{text!r} is not a whole number of at least {least}", field=name)
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise BadConfiguration(f"{text!r} is not a number of seconds", field=name)
    return float(text)
