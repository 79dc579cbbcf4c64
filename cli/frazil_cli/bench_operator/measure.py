"""Runs many small GenerationJobs through the operator, and says what it cost.

First a few, one after the other: how long from an event to a write on a quiet day. Then all at once, twice: once in
peace, where all jobs are held in Running for a while to see what an idle set costs; once with the operator killed again
and again. Both must end alike.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from kubernetes.aio import client as official
from kubernetes.aio import config as official_config

from frazil_cli.bench_operator.plane import GPU, NODE_LABEL, Plane, plane
from frazil_jobs.api.base import API_VERSION
from frazil_jobs.api.crd import crd
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import FrazilError
from frazil_operator.kube.client import Kube, KubeError
from frazil_operator.kube.paths import path_of

Say = Callable[[str], None]
RESYNCS: Final = 10
_PORT: Final = 18080
_AT_ONCE: Final = 16
_POLL_SECONDS: Final = 1.0
_NODES: Final = 20
_PACED: Final = 60
_PACE_SECONDS: Final = 0.3
_UNCOUNTED: Final = ("event", "lease")
_FINAL: Final = ("Complete", "Failed")


@dataclass(frozen=True)
class Load:
    """How much. `kills`: how often the operator is killed in the second run; 0 leaves that out."""

    jobs: int
    workers: int
    kills: int
    seconds: float
    """After which a run that doesn't end is given up."""
    logs: Path | None = None


@dataclass(frozen=True)
class Sample:
    """The operator's metrics at one time."""

    at: float
    values: Mapping[str, float]

    def total(self, name: str, *, without: tuple[str, ...] = ()) -> float:
        """A metric, its series added up, without those that have one of these words in their labels."""
        found = 0.0
        for series, value in self.values.items():
            if series.partition("{")[0] == name and not any(f'"{word}"' in series for word in without):
                found += value
        return found

    def quantile(self, name: str, q: float) -> float:
        """A quantile of a histogram, interpolated in its bucket as Prometheus does it. NaN without observations."""
        buckets = sorted(
            (float(found.group(1)), value)
            for series, value in self.values.items()
            if (found := re.fullmatch(name + r'_bucket\{le="(.*)"\}', series))
        )
        count = buckets[-1][1] if buckets else 0.0
        lower, below = 0.0, 0.0
        for upper, upto in buckets:
            if count and upto >= q * count:
                if upper == float("inf"):
                    return lower
                return lower + (upper - lower) * (q * count - below) / max(upto - below, 1e-12)
            lower, below = upper, upto
        return float("nan")


def parse(text: str, *, at: float) -> Sample:
    """Prometheus' text format."""
    values = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            values[series] = float(value)
    return Sample(at, values)


def measure(load: Load, say: Say) -> dict[str, Any]:
    """All of it; one object (the `--json` of `frazil bench operator`). Raises FrazilError."""
    with plane(port=_PORT, keep=load.logs) as found:
        return asyncio.run(_Bench(found, load, say).run())


class _Bench:
    def __init__(self, found: Plane, load: Load, say: Say) -> None:
        self._plane = found
        self._load = load
        self._say = say
        self._kube: Kube
        self._api: official.ApiClient
        self._http: aiohttp.ClientSession

    async def run(self) -> dict[str, Any]:
        configuration = official.Configuration()
        await official_config.load_kube_config(
            config_file=str(self._plane.kubeconfig), client_configuration=configuration
        )
        configuration.connection_pool_maxsize = _AT_ONCE * 2
        self._api = official.ApiClient(configuration)
        self._kube = Kube(self._api)
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        try:
            await self._prepare()
            paced = await self._paced("bench-paced")
            peace, ends = await self._in_peace("bench-peace")
            killed: dict[str, Any] = {}
            if self._load.kills:
                killed, others = await self._with_kills("bench-kills")
                killed["same_end_state"] = ends == others
        finally:
            await self._http.close()
            await self._api.close()
        return {
            "jobs": self._load.jobs,
            "workers": self._load.workers,
            **peace,
            **paced,
            "operator_kills": killed.get("kills", 0),
            "kills": killed,
            "end_states": {json.dumps(json.loads(state)): count for state, count in ends.items()},
        }

    async def _prepare(self) -> None:
        """CRDs, fake nodes, kwok."""
        for kind in (GenerationJob, TrainingJob):
            await self._apply("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd(kind))
        capacity = {"cpu": "10000", "memory": "100Ti", "pods": "5000", "ephemeral-storage": "1000Ti", GPU: "5000"}
        for number in range(_NODES):
            node = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": f"fake-{number}", "labels": {NODE_LABEL: "fake"}},
                "spec": {"taints": [{"key": NODE_LABEL, "effect": "NoSchedule"}]},
            }
            await self._apply("/api/v1/nodes", node)
            status = {"status": {"capacity": capacity, "allocatable": capacity}}
            await self._kube.request(
                "PATCH", f"/api/v1/nodes/fake-{number}/status", body=status, content_type="application/merge-patch+json"
            )
        self._plane.start_kwok(complete=False)

    async def _apply(self, collection: str, thing: Mapping[str, Any]) -> None:
        path = f"{collection}/{thing['metadata']['name']}"
        await self._kube.request(
            "PATCH",
            path,
            body=thing,
            content_type="application/apply-patch+yaml",
            query={"fieldManager": "frazil-bench", "force": "true"},
        )

    async def _paced(self, namespace: str) -> dict[str, Any]:
        """A job now and then, as on a quiet day: how long from an event to what is written for it."""
        await self._apply("/api/v1/namespaces", _namespace(namespace))
        self._plane.start_operator(self._settings(namespace, resync_seconds=300))
        await self._metrics_until(lambda sample: sample.total("frazil_leader") == 1, "the operator to lead")
        for number in range(_PACED):
            await self._create_one(namespace, f"paced-{number:05d}")
            await asyncio.sleep(_PACE_SECONDS)
        await self._phases_until(namespace, lambda phases: phases["Running"] == _PACED, "the paced jobs to run")
        await asyncio.sleep(_POLL_SECONDS)
        return self._delays(await self._sample(), "paced")

    @staticmethod
    def _delays(sample: Sample, name: str) -> dict[str, Any]:
        return {
            f"{name}_event_to_write_p{percent}_seconds": round(
                sample.quantile("frazil_event_to_write_seconds", percent / 100), 5
            )
            for percent in (50, 99)
        }

    async def _in_peace(self, namespace: str) -> tuple[dict[str, Any], Counter[str]]:
        """Apply, hold all in Running, resync, let go; figures and end states."""
        await self._apply("/api/v1/namespaces", _namespace(namespace))
        self._plane.start_operator(self._settings(namespace, resync_seconds=300))
        await self._metrics_until(lambda sample: sample.total("frazil_leader") == 1, "the operator to lead")
        started = time.monotonic()
        await self._create(namespace)
        applied = time.monotonic()
        await self._phases_until(namespace, lambda phases: phases["Running"] == self._load.jobs, "all jobs to run")
        running = time.monotonic()
        await asyncio.sleep(2 * _POLL_SECONDS)
        loaded = await self._sample()
        memory = _memory(self._plane.operator_pid())
        idle = await self._idle(namespace)
        before = await self._sample()
        self._plane.start_kwok(complete=True)
        let_go = time.monotonic()
        await self._ended(namespace)
        ended = time.monotonic()
        await asyncio.sleep(2 * _POLL_SECONDS)
        after = await self._sample()
        to_running = loaded.total("frazil_api_writes_total", without=_UNCOUNTED)
        to_end = after.total("frazil_api_writes_total", without=_UNCOUNTED) - before.total(
            "frazil_api_writes_total", without=_UNCOUNTED
        )
        return {
            "apply_seconds": round(applied - started, 2),
            "apply_to_running_seconds": round(running - started, 2),
            "running_to_complete_seconds": round(ended - let_go, 2),
            "apply_to_complete_seconds": round(running - started + ended - let_go, 2),
            "jobs_per_second": round(self._load.jobs / (running - started + ended - let_go), 2),
            "writes_per_job_to_running": to_running / self._load.jobs,
            "writes_to_running_by_kind": {
                series.partition("{")[2].rstrip("}"): value
                for series, value in loaded.values.items()
                if series.startswith("frazil_api_writes_total")
            },
            "writes_per_job_running_to_complete": to_end / self._load.jobs,
            "events_per_job": (loaded.total("frazil_api_writes_total", without=("lease",)) - to_running)
            / self._load.jobs,
            **idle,
            **self._delays(loaded, "burst"),
            "reconciles_to_running_per_job": loaded.total("frazil_reconcile_total") / self._load.jobs,
            "memory_bytes": memory,
            "memory_peak_bytes": _memory(self._plane.operator_pid(), field="VmHWM"),
        }, await self._ends(namespace)

    async def _idle(self, namespace: str) -> dict[str, Any]:
        """The operator starts anew among running jobs and looks at all of them, again and again: nothing may be written."""
        self._plane.start_operator(self._settings(namespace, resync_seconds=0.1))
        await self._metrics_until(
            lambda sample: sample.total("frazil_reconcile_total") >= 2 * self._load.jobs,
            "the operator to know all jobs",
        )
        first = await self._sample()
        wanted = first.total("frazil_reconcile_total") + RESYNCS * self._load.jobs
        await self._metrics_until(
            lambda sample: sample.total("frazil_reconcile_total") >= wanted, f"{RESYNCS} resyncs", pause=0.1
        )
        last = await self._sample()
        count = last.total("frazil_reconcile_total") - first.total("frazil_reconcile_total")
        busy = last.total("frazil_reconcile_seconds_sum") - first.total("frazil_reconcile_seconds_sum")
        return {
            "idle_resyncs": count / self._load.jobs,
            "idle_writes": last.total("frazil_api_writes_total", without=_UNCOUNTED)
            - first.total("frazil_api_writes_total", without=_UNCOUNTED),
            "reconciles_per_second": round(count / (last.at - first.at), 1),
            "reconcile_bound_per_second": round(count / busy, 1),
        }

    async def _with_kills(self, namespace: str) -> tuple[dict[str, Any], Counter[str]]:
        """The same jobs, pods that end at once, and an operator that is killed; figures and end states."""
        await self._apply("/api/v1/namespaces", _namespace(namespace))
        self._plane.start_kwok(complete=True)
        settings = self._settings(namespace, resync_seconds=300)
        self._plane.start_operator(settings)
        await self._metrics_until(lambda sample: sample.total("frazil_leader") == 1, "the operator to lead")
        started = time.monotonic()
        creating = asyncio.create_task(self._create(namespace))
        at = []
        for number in range(self._load.kills):
            # Not by the clock: once so many jobs have ended, so that every kill falls among work.
            share = (number + 0.5) / (self._load.kills + 1)
            await self._phases_until(
                namespace,
                lambda phases, share=share: sum(phases[one] for one in _FINAL) >= share * self._load.jobs,  # type: ignore[misc]
                "the next kill",
            )
            self._plane.kill_operator()
            at.append(round(time.monotonic() - started, 2))
            self._say(f"operator killed ({number + 1} of {self._load.kills})")
            self._plane.start_operator(settings)
        await creating
        await self._ended(namespace)
        seconds = round(time.monotonic() - started, 2)
        return {"kills": len(at), "killed_at_seconds": at, "apply_to_complete_seconds": seconds}, await self._ends(
            namespace
        )

    def _settings(self, namespace: str, *, resync_seconds: float) -> dict[str, Any]:
        return {
            "namespaces": [namespace],
            "leaseNamespace": namespace,
            "workers": self._load.workers,
            "resyncSeconds": resync_seconds,
            "destinations": [{"uri": "s3://bench/results"}],
        }

    async def _create(self, namespace: str) -> None:
        names = iter(f"job-{number:05d}" for number in range(self._load.jobs))

        async def some() -> None:
            for name in names:
                await self._create_one(namespace, name)

        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))

    async def _create_one(self, namespace: str, name: str) -> None:
        path = path_of(API_VERSION, "GenerationJob", namespace)
        await self._kube.create("GenerationJob", path, _job(namespace, name))

    async def _phases(self, namespace: str) -> Counter[str]:
        """How many jobs are in each phase, by the API server's table: without the objects."""
        parameters = await self._api.param_serialize(
            method="GET",
            resource_path=path_of(API_VERSION, "GenerationJob", namespace),
            query_params=[("includeObject", "None")],
            header_params={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
            auth_settings=["BearerToken"],
        )
        async with asyncio.timeout(60):
            answer = await self._api.call_api(*parameters)
            table = json.loads(await answer.read())
        column = [one["name"].lower() for one in table["columnDefinitions"]].index("phase")
        return Counter(str(row["cells"][column] or "New") for row in table["rows"])

    async def _phases_until(self, namespace: str, holds: Callable[[Counter[str]], bool], what: str) -> None:
        async def there() -> bool:
            phases = await self._phases(namespace)
            self._say(f"{what}: " + ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items())))
            return holds(phases)

        await self._until(there, what, pause=max(_POLL_SECONDS, self._load.jobs / 2000))  # a look costs too

    async def _ended(self, namespace: str) -> None:
        jobs = self._load.jobs
        await self._phases_until(
            namespace, lambda phases: sum(phases[one] for one in _FINAL) == jobs, "all jobs to end"
        )

    async def _sample(self) -> Sample:
        async with self._http.get(f"http://127.0.0.1:{self._plane.port}/metrics") as answer:
            return parse(await answer.text(), at=time.monotonic())

    async def _metrics_until(self, holds: Callable[[Sample], bool], what: str, *, pause: float = 0.3) -> None:
        async def there() -> bool:
            try:
                return holds(await self._sample())
            except (aiohttp.ClientError, TimeoutError):
                return False

        await self._until(there, what, pause=pause)

    async def _until(self, holds: Callable[[], Awaitable[bool]], what: str, *, pause: float) -> None:
        end = time.monotonic() + self._load.seconds
        while time.monotonic() < end:
            self._plane.check()
            try:
                if await holds():
                    return
            except KubeError as error:
                self._say(f"{what}: {error}")
            await asyncio.sleep(pause)
        raise FrazilError(f"after {self._load.seconds:.0f} s still waiting for {what}; see the logs (--logs DIR)")

    async def _ends(self, namespace: str) -> Counter[str]:
        """What the jobs have ended as, but for names and times: how many in each way."""
        found: Counter[str] = Counter()
        token = ""
        while True:
            query = {"limit": "500", **({"continue": token} if token else {})}
            page = await self._kube.get(path_of(API_VERSION, "GenerationJob", namespace), **query)
            found.update(end_state(job) for job in page["items"])
            token = page["metadata"].get("continue", "")
            if not token:
                return found


def end_state(job: Mapping[str, Any]) -> str:
    """A job's end without what differs from job to job (names, uids) and from run to run (times)."""
    status = job.get("status") or {}
    kept = {
        "phase": status.get("phase"),
        "attempt": status.get("attempt", 0),
        "restarts": status.get("restarts", 0),
        "shards": status.get("shards"),
        "progress": (status.get("progress") or {}).get("summary"),
        "conditions": sorted(
            f"{one['type']}={one['status']} ({one['reason']})" for one in status.get("conditions", ())
        ),
        "why": [one["message"] for one in status.get("conditions", ()) if one["type"] == "Failed"],
    }
    return json.dumps(kept, sort_keys=True)


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _job(namespace: str, name: str) -> dict[str, Any]:
    """One shard of one picture on one GPU."""
    tolerations = [{"key": NODE_LABEL, "operator": "Exists"}]
    return {
        "apiVersion": API_VERSION,
        "kind": "GenerationJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"uri": "s3://bench/model"},
            "prompts": {"inline": ["a large red ring on the left"]},
            "parallelism": {"conditioning": 1},
            "workers": {
                "gpusPerNode": 1,
                "template": {"nodeSelector": {NODE_LABEL: "fake"}, "tolerations": tolerations},
            },
        },
    }


def _memory(pid: int, *, field: str = "VmRSS") -> int:
    """A process's memory in bytes; 0 where the kernel doesn't tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0
