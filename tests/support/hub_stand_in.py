"""A stand-in for the Hugging Face hub, which tests can't reach: the same paths, headers and error codes, on localhost.

It serves folders as repositories, in the shape that `huggingface_hub` asks for: `/api/models/<repo>/revision/<revision>` and
`/<repo>/resolve/<revision>/<file>` with `X-Repo-Commit`, `ETag` and ranges. It can be slow, fail a few times, ask for a
token, or send damaged bytes; and it remembers what it was asked.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit


def commit_of(folder: Path) -> str:
    """A commit id that changes with any byte of the folder."""
    digest = hashlib.sha1(usedforsecurity=False)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()


@dataclass
class HubStandIn(AbstractContextManager["HubStandIn"]):
    """Repositories by name; `with` starts and stops the server."""

    repositories: dict[str, Path] = field(default_factory=dict)
    token: str | None = None
    """Asked for where it's set."""
    gated: bool = False
    failures: int = 0
    """Answers of 503 still to be given."""
    bytes_per_second: float | None = None
    damaged: str | None = None
    """A file whose bytes arrive wrong."""
    extra_names: tuple[str, ...] = ()
    """Names that are listed without being there."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and range of every request."""

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port: from now on, nobody answers."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT would be."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def downloads(self) -> list[str]:
        """Files whose bytes were asked for."""
        return [
            path.partition("/resolve/")[2].partition("/")[2]
            for method, path, _ in self.asked
            if method == "GET" and "/resolve/" in path
        ]


class _Handler(BaseHTTPRequestHandler):
    owner: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        hub = self.owner
        path = unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if hub.failures > 0:
            hub.failures -= 1
            self._send(503, b"busy")
            return
        is_api = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models" if is_api else "").strip("/").split("/")
        folder = hub.repositories.get("/".join(parts[:2]))
        allowed = hub.token is None or self.headers.get("Authorization") == f"Bearer {hub.token}"
        if folder is None or not allowed:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif hub.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif (revision := parts[3] if len(parts) > 3 else "main") not in ("main", commit_of(folder)):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif is_api:
            self._send(200, self._listing("/".join(parts[:2]), folder, revision), {"Content-Type": "application/json"})
        else:
            self._file(folder, "/".join(parts[4:]), with_body=with_body)

    def _listing(self, name: str, folder: Path, revision: str) -> bytes:
        siblings = []
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            size, digest = file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()
            entry = {"rfilename": file.relative_to(folder).as_posix(), "size": size, "blobId": digest[:40]}
            if file.suffix in (".safetensors", ".bin"):
                entry["lfs"] = {"sha256": digest, "size": size, "pointerSize": 130}
            siblings.append(entry)
        siblings += [{"rfilename": extra, "size": 2, "blobId": "0" * 40} for extra in self.owner.extra_names]
        return json.dumps({"id": name, "sha": commit_of(folder), "siblings": siblings}).encode()

    def _file(self, folder: Path, name: str, *, with_body: bool) -> None:
        path = folder / name
        if not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = path.read_bytes()
        if name == self.owner.damaged:
            data = bytes(len(data))
        etag = hashlib.sha256(path.read_bytes()).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit_of(folder), "Accept-Ranges": "bytes"}
        start = (
            int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if with_body and self.headers.get("Range")
            else 0
        )
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], headers, with_body=with_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD" or not with_body:
            return
        try:
            for position in range(0, len(body), 1 << 16):
                piece = body[position : position + (1 << 16)]
                self.wfile.write(piece)
                if self.owner.bytes_per_second is not None and "/resolve/" in self.path:
                    time.sleep(len(piece) / self.owner.bytes_per_second)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
