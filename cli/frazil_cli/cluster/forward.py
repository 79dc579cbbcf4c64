"""A port of this machine that leads to a pod of a Service, through the API server: what `kubectl port-forward` does.

Each connection is one WebSocket of the protocol v4.channel.k8s.io: channel 0 carries bytes both ways, channel 1 the error.
One thread a connection reads whichever side is ready and writes it to the other before it reads on, so that a slow reader
slows the sender and memory stays flat.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from frazil_cli.cluster.client import Cluster, Object, path_of
from frazil_jobs.base.exits import BadConfiguration, FrazilError, TryAgain

CONNECT_SECONDS: Final = 10.0
_PIECE: Final = 64 << 10
_HEAD: Final = 3
"""Each channel opens with its number and the port."""


@dataclass(frozen=True)
class ServiceAddress:
    """A Service by its name within the cluster."""

    name: str
    namespace: str
    port: int


def service_of(endpoint: str) -> ServiceAddress | None:
    """The Service that an endpoint (http://name.namespace.svc:9000) names; None for any other host."""
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").removesuffix(".").removesuffix(".cluster.local")
    words = host.split(".")
    if len(words) != 3 or words[2] != "svc":
        return None
    port = parts.port or {"https": 443, "redis": 6379, "rediss": 6379}.get(parts.scheme, 80)
    return ServiceAddress(words[0], words[1], port)


def pod_port(service: Object, pod: Object, port: int) -> int:
    """The port of a pod that a port of its Service leads to. Raises LookupError when the Service has no such port."""
    for one in service["spec"].get("ports", ()):
        if one["port"] == port:
            target = one.get("targetPort", port)
            if isinstance(target, int):
                return target
            for container in pod["spec"]["containers"]:
                for named in container.get("ports", ()):
                    if named.get("name") == target:
                        return int(named["containerPort"])
    raise LookupError(f"{service['metadata']['name']} has no port {port}")


def is_ready(pod: Object) -> bool:
    """Whether a pod takes connections."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


@contextlib.contextmanager
def forwarded(cluster: Cluster, address: ServiceAddress) -> Iterator[int]:
    """A port of this machine's loopback that leads to the Service, while the context lasts.

    Raises TryAgain when no pod of it is ready, and NotFound or Forbidden as the server says.
    """
    tunnel = _Tunnel(cluster, address)
    with tunnel.open() as port:
        yield port


class _Tunnel:
    """Listens, and carries every connection to a pod of the Service: to another one, when that has gone."""

    def __init__(self, cluster: Cluster, address: ServiceAddress) -> None:
        self._cluster = cluster
        self._address = address
        self._ended = threading.Event()
        self._url = self._find()

    def _find(self) -> str:
        """Where a pod that is ready takes connections. Raises FrazilError."""
        cluster, address = self._cluster, self._address
        service = cluster.get(path_of("v1", "services", namespace=address.namespace, name=address.name))
        labels = ",".join(f"{key}={value}" for key, value in (service["spec"].get("selector") or {}).items())
        pods = cluster.items(path_of("v1", "pods", namespace=address.namespace), labelSelector=labels) if labels else []
        pod = next(filter(is_ready, pods), None)
        if pod is None:
            raise TryAgain(
                f"no pod of the Service {address.namespace}/{address.name} is ready ({len(pods)} in all)",
                remedy="`frazil doctor` says why",
            )
        try:
            port = pod_port(service, pod, address.port)
        except LookupError as error:
            raise BadConfiguration(f"the Service {error}", remedy="correct the endpoint in the Secret") from None
        path = path_of("v1", "pods", namespace=address.namespace, name=pod["metadata"]["name"], part="portforward")
        return f"{cluster.server.rstrip('/').replace('http', 'ws', 1)}{path}?{urlencode({'ports': port})}"

    @contextlib.contextmanager
    def open(self) -> Iterator[int]:
        self._connect().close()  # no right, no pod: said before anything relies on it
        with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
            server.settimeout(0.2)
            threading.Thread(target=self._accept, args=(server,), name="port-forward", daemon=True).start()
            try:
                yield int(server.getsockname()[1])
            finally:
                self._ended.set()

    def _connect(self) -> Any:
        """One WebSocket. Raises FrazilError."""
        import websocket
        from kubernetes.stream.ws_client import create_websocket

        websocket.setdefaulttimeout(CONNECT_SECONDS)
        try:
            return create_websocket(self._cluster.configuration, self._url, self._cluster.headers())
        except websocket.WebSocketBadStatusException as error:
            raise FrazilError(
                f"the cluster refuses to forward a port: {error.status_code} {_words(error)}",
                remedy="you need the right to create pods/portforward there; or ask for a publicEndpoint of the store",
            ) from None
        except (OSError, websocket.WebSocketException) as error:
            raise TryAgain(f"a port can't be forwarded: {error}", remedy="try again in a while") from None

    def _connect_anew(self) -> Any:
        """As `_connect`; where the pod has gone since, to the one that took its place."""
        try:
            return self._connect()
        except FrazilError:
            self._url = self._find()
            return self._connect()

    def _accept(self, server: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                local, _ = server.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._carry, args=(local,), name="port-forward", daemon=True).start()

    def _carry(self, local: socket.socket) -> None:
        """One connection, to its end. What goes wrong is a connection that breaks: its user tries again."""
        with contextlib.closing(local):
            try:
                remote = self._connect_anew()
            except FrazilError:
                return
            with contextlib.closing(remote), contextlib.suppress(Exception):
                pump(local, remote, self._ended)


def pump(local: socket.socket, remote: Any, ended: threading.Event) -> None:
    """Carry bytes between a socket and a WebSocket (of the package websocket-client) until either ends."""
    local.settimeout(None)
    opened: set[int] = set()
    while not ended.is_set():
        pending = isinstance(remote.sock, ssl.SSLSocket) and remote.sock.pending() > 0
        ready = [remote] if pending else select.select([local, remote.sock], [], [], 0.5)[0]
        if local in ready:
            data = local.recv(_PIECE)
            if not data:
                return
            remote.send_binary(b"\0" + data)
        if remote in ready or remote.sock in ready:
            frame = remote.recv()
            if not frame or isinstance(frame, str):
                return
            channel = frame[0]
            if channel not in opened and len(frame) == _HEAD:
                opened.add(channel)
            elif channel == 0:
                local.sendall(frame[1:])
            else:
                return  # channel 1: the pod refused or dropped the connection


def _words(error: Any) -> str:
    body = getattr(error, "resp_body", None)
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    return text.strip()[:300]
