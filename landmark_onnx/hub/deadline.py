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
    any TLS. To wait for them then is an error of the transport. expired: whether that has happened.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._over = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.RLock()  # its `with` is one step, into which no interrupt comes; a Condition's is not
        self._changed = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._watch, name="landmark-onnx-deadline", daemon=True)

    def allow(self, seconds: float) -> None:
        """From now on, so many seconds."""
        end = time.monotonic() + seconds
        with self._lock:
            sooner = end < self._end
            self.seconds, self._end = seconds, end
            if sooner:  # else the thread sees it when it would have been over
                self._changed.notify()

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
        with self._lock:
            self._over = True
            self._changed.notify()
        self._thread.join()
        for connection in self._sockets:
            connection.close()

    def _watch(self) -> None:
        with self._lock:
            while not self._over and (left := self._end - time.monotonic()) > 0:
                self._changed.wait(left)
            if not self._over:
                self.expired = True
                for connection in self._sockets:
                    _cut(connection)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        connection.shutdown(socket.SHUT_RDWR)
