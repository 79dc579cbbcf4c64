"""A door in front of a server: connections that are open stay, and new ones are refused while it is shut.

That is what a worker sees when names can't be resolved for a while, or a Service has lost its rule.
"""

from __future__ import annotations

import contextlib
import socket
import threading


class Doorkeeper:
    """Listens on a port of its own and passes on what comes, both ways."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._open = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.refused = 0
        threading.Thread(target=self._welcome, daemon=True).start()

    def shut(self) -> None:
        """From now on who comes is sent away."""
        self._open = False

    def open(self) -> None:
        """Let them in again."""
        self._open = True

    def close(self) -> None:
        """The door is taken away."""
        self._listener.close()

    def _welcome(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                guest, _ = self._listener.accept()
                try:
                    host = socket.create_connection(("127.0.0.1", self._server)) if self._open else None
                except OSError:
                    host = None
                if host is None:
                    self.refused += 1
                    guest.close()
                    continue
                for source, target in ((guest, host), (host, guest)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
