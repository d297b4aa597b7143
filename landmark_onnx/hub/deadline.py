"""A limit in time for connections, where a timeout for each read is none: a server may send a byte now and then."""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self


class Deadline:
    """Cuts every connection of the block off when the time is over that was last allowed.

    A context manager; `trace` is an httpx request's extension of that name, by which the connections are seen, before
    any TLS. Whoever waits for them then gets an error of the transport. expired: whether that has happened.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._over = threading.Event()
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="landmark-onnx-deadline", daemon=True)

    def allow(self, seconds: float) -> None:
        """From now on, so many seconds."""
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Called by httpx at every step."""
        if event.endswith("connect_tcp.complete"):
            # TLS will take the socket itself away.
            copy = info["return_value"].get_extra_info("socket").dup()
            with self._lock:
                self._sockets.append(copy)
                if self.expired:
                    _cut(copy)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        for connection in self._sockets:
            connection.close()

    def _watch(self) -> None:
        while not self._over.wait(max(0.0, self._end - time.monotonic())):
            if time.monotonic() >= self._end:
                with self._lock:
                    self.expired = True
                    for connection in self._sockets:
                        _cut(connection)
                return


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        connection.shutdown(socket.SHUT_RDWR)
