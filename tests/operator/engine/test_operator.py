"""The operator as a process, on an API server of a few routes: it leads, and ends as it should.

The server stands in for discovery of the CRDs and for the Lease; what is watched and made is in tests/cluster.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml
from aiohttp import web
from operator_world import merge
from servers import RealRedis, free_port

from frazil_operator.engine.handlers import register
from frazil_operator.engine.operator import until_served_otherwise
from frazil_operator.engine.queue import WorkQueue
from frazil_operator.engine.state import State
from frazil_operator.engine.watching import watch, watch_settings
from frazil_operator.kube.client import Unavailable
from frazil_operator.kube.discovery import served
from frazil_operator.reconcile.plan import Key

GROUPS = {
    "/apis/frazil.dev/v1alpha1": {"generationjobs": "GenerationJob", "trainingjobs": "TrainingJob"},
    "/apis/batch/v1": {"jobs": "Job"},
    "/api/v1": {"pods": "Pod", "namespaces": "Namespace", "events": "Event"},
}
KINDS = {plural: kind for resources in GROUPS.values() for plural, kind in resources.items()}


class Server:
    """Objects by collection and name."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.version = 10
        self.hangs = False
        self.port = free_port()

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.add_routes([web.route("*", "/{path:.*}", self.handle)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        return runner

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "me", "user": {"token": "secret"}}],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.hangs:
            await asyncio.sleep(600)
        path = request.path.rstrip("/")
        if path == "/apis":
            return web.json_response({"groups": []})
        if path.count("/") <= 3 and request.method == "GET" and path.rpartition("/")[2].startswith("v1"):
            return self._discover(path)
        collection, name = self._place(path)
        if name is None and request.method == "GET":
            return _missing()
        held = self.objects[collection]
        if request.method == "GET":
            return web.json_response(held[name]) if name in held else _missing()
        body = json.loads(await request.text() or "{}")
        if request.method == "POST":
            name = body["metadata"].get("name") or f"event-{self.version}"
        elif request.method == "DELETE":
            return web.json_response(held.pop(name, {}))
        if request.method == "PUT" and body["metadata"]["resourceVersion"] != held[name]["metadata"]["resourceVersion"]:
            return web.json_response({"reason": "Conflict", "message": "it has changed", "code": 409}, status=409)
        there = held.get(name, {}) if request.method == "PATCH" else {}
        merge(there, {key: value for key, value in body.items() if key != "metadata"})
        merge(there.setdefault("metadata", {}), {k: v for k, v in body["metadata"].items() if k != "resourceVersion"})
        return web.json_response(self.put(collection, {**there, "metadata": {**there["metadata"], "name": name}}))

    def put(self, collection: str, thing: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        thing["metadata"] = {**thing["metadata"], "resourceVersion": str(self.version)}
        self.objects[collection][thing["metadata"]["name"]] = thing
        return thing

    @staticmethod
    def _discover(path: str) -> web.Response:
        if path not in GROUPS:
            return _missing()
        found = [
            {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": VERBS}
            for plural, kind in GROUPS[path].items()
        ]
        return web.json_response({"kind": "APIResourceList", "groupVersion": path.split("/", 2)[2], "resources": found})

    @staticmethod
    def _place(path: str) -> tuple[str, str | None]:
        """`/apis/batch/v1/namespaces/team/jobs/ice-a0/status`: the collection's plural, and a name."""
        parts = path.strip("/").split("/")
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        rest = rest[2:] if rest[0] == "namespaces" else rest
        return rest[0], rest[1] if len(rest) > 1 else None


VERBS = ["create", "delete", "get", "list", "patch", "watch"]


def _missing() -> web.Response:
    return web.json_response({"reason": "NotFound", "message": "no such thing", "code": 404}, status=404)


class Standing(Server):
    """Lists one job, which is at "before". Its first watch stands still while it changes; the next tells what `told`
    says."""

    def __init__(self, told: str) -> None:
        super().__init__()
        self.told = told
        self.watches = 0
        self.job = self.at("before", 10)

    @staticmethod
    def at(spec: str, version: int) -> dict[str, Any]:
        meta = {"name": "ice", "namespace": "team", "uid": "u1", "resourceVersion": str(version)}
        return {"apiVersion": "frazil.dev/v1alpha1", "kind": "GenerationJob", "metadata": meta, "spec": {"is": spec}}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        collection = request.path.rpartition("/")[2]
        if collection == "api":
            return web.json_response({"versions": ["v1"]})
        if collection == "apis":
            named = [path.split("/")[2:] for path in GROUPS if path.startswith("/apis/")]
            versions = {group: {"groupVersion": f"{group}/{version}", "version": version} for group, version in named}
            groups = [{"name": group, "versions": [one], "preferredVersion": one} for group, one in versions.items()]
            return web.json_response({"groups": groups})
        if request.method != "GET" or collection not in KINDS:
            return await super().handle(request)
        ours = collection == "generationjobs"
        if "watch" not in request.query:
            version = self.job["metadata"]["resourceVersion"]
            items = [self.job] if ours else []
            return web.json_response({"kind": "List", "metadata": {"resourceVersion": version}, "items": items})
        stream = web.StreamResponse()
        await stream.prepare(request)
        self.watches += ours
        if ours:
            if self.watches > 1:
                await stream.write(self.event().encode() + b"\n")
            self.job = self.at("after", 12)
        await asyncio.sleep(600)
        return stream

    def event(self) -> str:
        gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        return json.dumps(
            {"type": "ERROR", "object": gone} if self.told == "ERROR" else {"type": self.told, "object": self.job}
        )


class Running:
    """The operator's process, and what is around it."""

    def __init__(self, server: Server, folder: Path, broker: str, **settings: Any) -> None:
        self.server, self.folder, self.port = server, folder, free_port()
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "FRAZIL_REDIS_URL": broker}
        self.env["KUBECONFIG"] = str(server.kubeconfig(folder))
        config = folder / "operator.yaml"
        given = {"destinations": [{"uri": "s3://frazil/results"}], "leaseNamespace": "system", "leaseSeconds": 3}
        config.write_text(yaml.safe_dump(given | settings))
        self.arguments = ["-m", "frazil_operator", "--config", str(config), "--port", str(self.port)]

    async def __aenter__(self) -> Running:
        self.runner = await self.server.start()
        with (self.folder / "log").open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *self.arguments, env=self.env, stdout=log, stderr=log
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self.runner.cleanup()

    async def until(self, what: str, holds: Any) -> None:
        for _ in range(1200):
            if holds():
                return
            assert self.process.returncode is None, self.log
            await asyncio.sleep(0.2)
        raise AssertionError(f"{what}:\n{self.log}")

    async def leading(self) -> None:
        await self.until("it leads", lambda: '"this replica acts"' in self.log)

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), timeout=200)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()[-6000:]

    @property
    def holder(self) -> str:
        return str(self.server.objects["leases"]["frazil-operator"]["spec"]["holderIdentity"])

    async def ask(self, path: str) -> str:
        def asked() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(asked)


@pytest.fixture
def broker(redis_server: RealRedis) -> str:
    return redis_server.url


def story(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, timeout=280))


def test_it_leads_answers_its_probes_and_gives_the_lease_back_when_told_to_stop(tmp_path, broker):
    async def work() -> None:
        async with Running(Server(), tmp_path, broker) as running:
            await running.leading()
            assert running.holder
            assert await running.ask("/healthz") == "ok"
            assert await running.ask("/readyz") == "leading"
            assert "frazil_leader 1.0" in await running.ask("/metrics")
            running.process.send_signal(signal.SIGTERM)
            assert await running.ended() == 0, running.log
            assert running.holder == ""

    story(work())


def test_one_that_loses_its_lease_to_another_ends(tmp_path, broker):
    async def work() -> None:
        server = Server()
        async with Running(server, tmp_path, broker) as running:
            await running.leading()
            lease = server.objects["leases"]["frazil-operator"]
            taken = {**lease["spec"], "holderIdentity": "another", "renewTime": "2999-01-01T00:00:00.000000Z"}
            server.put("leases", {**lease, "spec": taken})
            assert await running.ended() == 1, running.log
            assert running.holder == "another", "it's not its own to give back"

    story(work())


def test_one_that_the_api_server_leaves_without_an_answer_ends(tmp_path, broker):
    async def work() -> None:
        server = Server()
        async with Running(server, tmp_path, broker) as running:
            await running.leading()
            server.hangs = True
            assert await running.ended() == 1, running.log

    story(work())


class Groups:
    """An API server that serves these groups, one set of them an answer; None: it doesn't answer."""

    def __init__(self, *answers: set[str] | None) -> None:
        self.answers = list(answers)

    async def serves(self, api_version: str, kind: str) -> bool:
        if self.answers[0] is None:
            del self.answers[0]
            raise Unavailable(503, "ServiceUnavailable", "")
        return api_version in self.answers[0]

    async def get(self, path: str) -> dict[str, Any]:
        """The last question of a look."""
        found = [one for one in self.answers.pop(0) or () if one.startswith("kueue")]
        return {"groups": [{"name": "kueue.x-k8s.io", "versions": [{"groupVersion": one} for one in found]}]}


VOLCANO, NATIVE, KUEUE = "scheduling.volcano.sh/v1beta1", "scheduling.k8s.io/v1beta1", "kueue.x-k8s.io/v1beta2"


@pytest.mark.parametrize(
    ("begun", "answers", "left"),
    [
        (set(), [{VOLCANO}, {VOLCANO}, set()], 1),
        ({VOLCANO}, [set(), set(), set()], 1),
        ({VOLCANO}, [set(), {VOLCANO}, set(), {VOLCANO}, set(), set()], 0),
        ({VOLCANO}, [set(), None, set(), set()], 0),
        ({VOLCANO}, [{NATIVE}, set(), set()], 0),
        ({VOLCANO}, [{VOLCANO}, None, None, {VOLCANO}, {VOLCANO, NATIVE}, {NATIVE}], 0),
    ],
    ids=[
        "installed",
        "removed",
        "a group left out for a moment",
        "an outage between",
        "never twice the same",
        "better",
    ],
)
def test_another_set_of_kinds_counts_once_it_was_answered_twice_in_a_row(monkeypatch, begun, answers, left):
    monkeypatch.setattr("frazil_operator.engine.operator._DISCOVERY_SECONDS", 0)

    async def work() -> None:
        groups = Groups(*answers)
        await until_served_otherwise(groups, await served(Groups(begun)))
        assert len(groups.answers) == left

    story(work())


def test_kueue_that_is_installed_later_is_seen(monkeypatch):
    monkeypatch.setattr("frazil_operator.engine.operator._DISCOVERY_SECONDS", 0)

    class Later(Groups):
        async def serves(self, api_version: str, kind: str) -> bool:
            return kind == "Workload"

    async def work() -> None:
        groups = Later({KUEUE}, {KUEUE})
        await until_served_otherwise(groups, await served(Groups(set())))
        assert groups.answers == []

    story(work())


@pytest.mark.parametrize("told", ["MODIFIED", "ERROR"])
def test_a_watch_that_stands_still_is_begun_anew_and_all_is_listed_where_it_came_too_late(tmp_path, monkeypatch, told):
    async def work() -> None:
        server, state, stop = Standing(told), State(), asyncio.Event()
        runner = await server.start()
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        registry = kopf.OperatorRegistry()
        nothing = {"heard": lambda *_: None, "gone": lambda *_: None, "podgroups": None, "workloads": None}
        register(registry, state=state, queue=WorkQueue(), **nothing)
        settings = watch_settings()
        settings.watching.inactivity_timeout = 1
        watching = asyncio.create_task(watch(registry, namespaces=[], stop=stop, settings=settings))
        seen: list[str] = []
        while seen[-1:] != ["after"]:
            assert not watching.done(), watching
            job = state.job(Key("GenerationJob", "team", "ice"))
            if job is not None and job["spec"]["is"] not in seen:
                seen.append(job["spec"]["is"])
            await asyncio.sleep(0.05)
        assert seen == ["before", "after"]
        assert server.watches >= 2
        stop.set()
        await watching
        await runner.cleanup()

    story(work())
