"""The operator as a process, on an API server of a few routes: it leads, makes what a job needs, and ends as it should.

The server stands in for discovery, lists, watches and writes of whole objects; the real one is in tests/cluster.
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

import pytest
import yaml
from aiohttp import web
from operator_world import generation_job, merge
from servers import RealRedis, free_port

GROUPS = {
    "/apis/frazil.dev/v1alpha1": {"generationjobs": "GenerationJob", "trainingjobs": "TrainingJob"},
    "/apis/batch/v1": {"jobs": "Job"},
    "/api/v1": {"pods": "Pod"},
}
NAMES = [
    {
        "name": group,
        "preferredVersion": {"version": version},
        "versions": [{"version": version, "groupVersion": f"{group}/{version}"}],
    }
    for group, version in (path.split("/")[2:] for path in GROUPS if path.startswith("/apis/"))
]
KINDS = {plural: kind for resources in GROUPS.values() for plural, kind in resources.items()}


class Server:
    """Objects by collection and name; every change goes to the watches."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.watches: dict[str, list[asyncio.Queue[dict[str, Any]]]] = defaultdict(list)
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
        if path in ("/api", "/apis"):
            return web.json_response({"versions": ["v1"]} if path == "/api" else {"groups": NAMES})
        if path.count("/") <= 3 and request.method == "GET" and path.rpartition("/")[2].startswith("v1"):
            return self._discover(path)
        collection, name = self._place(path)
        if request.method == "GET" and name is None:
            return await self._list(request, collection)
        held = self.objects[collection]
        if request.method == "GET":
            return web.json_response(held[name]) if name in held else _missing()
        body = json.loads(await request.text() or "{}")
        if request.method == "POST":
            name = body["metadata"].get("name") or f"event-{self.version}"
        elif request.method == "DELETE":
            return web.json_response(held.pop(name, {}))
        there = held.get(name, {}) if request.method == "PATCH" else {}
        merge(there, {key: value for key, value in body.items() if key != "metadata"})
        merge(there.setdefault("metadata", {}), {k: v for k, v in body["metadata"].items() if k != "resourceVersion"})
        return web.json_response(self.put(collection, {**there, "metadata": {**there["metadata"], "name": name}}))

    def put(self, collection: str, thing: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        held = self.objects[collection]
        name = thing["metadata"]["name"]
        kind = "MODIFIED" if name in held else "ADDED"
        thing["metadata"] = {"uid": f"uid-{self.version}", **thing["metadata"], "resourceVersion": str(self.version)}
        held[name] = thing
        for queue in self.watches[collection]:
            queue.put_nowait({"type": kind, "object": thing})
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

    async def _list(self, request: web.Request, collection: str) -> web.StreamResponse:
        if request.query.get("watch") != "true":
            items = list(self.objects[collection].values())
            meta = {"resourceVersion": str(self.version)}
            return web.json_response({"kind": f"{KINDS[collection]}List", "metadata": meta, "items": items})
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        since = int(request.query["resourceVersion"])
        for thing in self.objects[collection].values():
            if int(thing["metadata"]["resourceVersion"]) > since:
                queue.put_nowait({"type": "ADDED", "object": thing})
        self.watches[collection].append(queue)
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(json.dumps(await queue.get()).encode() + b"\n")
        finally:
            self.watches[collection].remove(queue)


VERBS = ["create", "delete", "get", "list", "patch", "watch"]


def _missing() -> web.Response:
    return web.json_response({"reason": "NotFound", "message": "no such thing", "code": 404}, status=404)


class Running:
    """The operator's process, and what is around it."""

    def __init__(self, server: Server, folder: Path, broker: str, **settings: Any) -> None:
        self.server, self.folder, self.port = server, folder, free_port()
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "FRAZIL_REDIS_URL": broker}
        self.env["KUBECONFIG"] = str(server.kubeconfig(folder))
        config = folder / "operator.yaml"
        given = {"destinations": [{"uri": "s3://frazil/results"}], "leaseNamespace": "system"}
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


def test_a_job_is_heard_of_and_its_children_are_made(tmp_path, broker):
    async def work() -> None:
        server = Server()
        async with Running(server, tmp_path, broker) as running:
            await running.leading()
            body = generation_job(suspend=True)
            body["metadata"].pop("resourceVersion")
            server.put("generationjobs", body)
            await running.until(
                "the status says that it's suspended",
                lambda: server.objects["generationjobs"]["ice"].get("status", {}).get("phase") == "Suspended",
            )
            assert "GenerationJob" in await running.ask("/metrics")

    story(work())


def test_one_that_loses_its_lease_to_another_ends(tmp_path, broker):
    async def work() -> None:
        server = Server()
        async with Running(server, tmp_path, broker) as running:
            await running.leading()
            lease = server.objects["leases"]["frazil-operator"]
            lease["spec"] = {**lease["spec"], "holderIdentity": "another", "renewTime": "2999-01-01T00:00:00.000000Z"}
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
