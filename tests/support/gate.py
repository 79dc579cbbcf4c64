"""A gate before a server: shut, nobody gets through."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack

from servers import free_port


class Gate:
    """A TCP proxy of this process: shut, it refuses connections and breaks those that are there, or leaves them.

    Left: as when names can't be resolved for a while.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = free_port()
        self._server: socket.socket | None = None
        self._open: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        """Let them in."""
        self._server = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def shut(self, *, leave: bool = False) -> None:
        """Refuse whoever comes; `leave` alone who is in."""
        assert self._server is not None
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        if leave:
            return
        for one in self._open:
            with ExitStack() as stack:
                stack.callback(one.close)
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        self._open.clear()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # nobody is at home just now
                near.close()
                continue
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return
