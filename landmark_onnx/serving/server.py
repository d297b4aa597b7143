"""Serve until a signal ends it: everything that was accepted is answered first."""

import asyncio
import contextlib
import dataclasses
import errno
import functools
import gc
import ipaddress
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, cast

import uvicorn

from landmark_onnx.errors import LandmarkError
from landmark_onnx.serving.guard import Guard
from landmark_onnx.serving.protocol import ServiceProtocol

DELAY = 5.0
"""Seconds in which a server that others can reach still accepts: until a balancer has seen that it is not ready."""
LAST = 1.0
"""Seconds to say that the time is over, to those who would have waited longer than `drain_timeout`."""
SAME = 0.2
"""Seconds in which another signal is the first one again: `timeout` sends it to the process and to its group."""
TICK = 0.02
ROUNDS = 5
"""Of the event loop, from when a connection is accepted until what it has sent is read, and some more."""
MAX_PORT = 65535

logger = logging.getLogger(__name__)


class AddressError(LandmarkError):
    """An address that cannot be listened on; names it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Binding:
    """Where to listen. port: 0 takes a free one. ready_fd: a descriptor that gets one byte once requests are taken."""

    host: str = "127.0.0.1"
    port: int = 8080
    ready_fd: int | None = None


def serve(guard: Guard, binding: Binding) -> int:
    """Answer requests until SIGTERM, SIGINT or `Lifecycle.stop`; the address is one line on standard output.

    In the main thread the signals are taken over while it lasts: the first ends it with what was accepted answered, a
    second one at once with exit code 1, and SIGHUP calls `Lifecycle.on_hangup`. Returns: the exit code, 0.
    Raises: AddressError.
    """
    with contextlib.closing(listening(binding)) as listener, guard.log.hearing():
        server = _Server(guard, binding, listener)
        with _signals(server), _frozen():
            asyncio.run(server.serve(sockets=[listener]))
    return 0


def listening(binding: Binding, option: str = "--port") -> socket.socket:
    """A socket bound to the address. option: what chooses another port. Raises: AddressError."""
    where = f"{binding.host} port {binding.port}"
    if not 0 <= binding.port <= MAX_PORT:
        raise AddressError(f"{where}: a port is a number up to {MAX_PORT}")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            binding.host, binding.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except (OSError, UnicodeError) as error:
        raise AddressError(f"{where}: {getattr(error, 'strerror', None) or error}") from error
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        reason = f"taken by another program: choose another {option}" if taken else error.strerror or error
        raise AddressError(f"{where}: {reason}") from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server with our own beginning and end."""

    def __init__(self, guard: Guard, binding: Binding, listener: socket.socket) -> None:
        protocol = cast("type[asyncio.Protocol]", functools.partial(ServiceProtocol, guard=guard))
        super().__init__(
            uvicorn.Config(
                guard,
                http=protocol,
                loop="asyncio",
                ws="none",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                # The protocol's own clock is the shorter one.
                timeout_keep_alive=int(guard.rules.limits.header_seconds) + 60,
            )
        )
        self.guard, self.lifecycle = guard, guard.lifecycle
        self._limits, self._log = guard.rules.limits, guard.log
        self._ready_fd = binding.ready_fd
        self._address = listener.getsockname()
        self._begun = time.monotonic()
        self._signalled: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: they are `serve`'s."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._loop = loop = asyncio.get_running_loop()
        self.lifecycle.call_at_stop(functools.partial(_soon, loop, self._drain))
        host, port = self._address[:2]
        self.lifecycle.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        print(self.lifecycle.url, flush=True)  # noqa: T201 - the answer
        if self._ready_fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._ready_fd, b"1")
                os.close(self._ready_fd)

    def _drain(self) -> None:
        if self.lifecycle.draining:
            return
        delay = self._limits.drain_delay
        if delay is None:
            delay = 0 if ipaddress.ip_address(self._address[0].partition("%")[0]).is_loopback else DELAY
        self.lifecycle.draining = True
        self._log.event("info", "draining", accepting_for=delay, connections=self.lifecycle.connections)
        asyncio.get_running_loop().call_later(delay, setattr, self, "should_exit", True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take what has come already, listen no more, and wait until all of it is answered."""
        await asyncio.sleep(0)  # who waits in the listener's queue
        for each in sockets or ():
            with contextlib.suppress(NotImplementedError):  # another kind of loop, on Windows
                asyncio.get_running_loop().remove_reader(each)
        # Whoever is being accepted gets a connection and is read: asyncio loses them if the server is closed before.
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if not await self._emptied(self._limits.drain_timeout):
            for task in self.server_state.tasks:
                task.cancel()
            await self._emptied(LAST)
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        await self.lifespan.shutdown()
        state = self.lifecycle
        self._log.event(
            "info",
            "stopped",
            accepted=state.accepted,
            answered=state.answered,
            abandoned=state.abandoned,
            seconds=round(time.monotonic() - self._begun, 3),
        )

    async def _emptied(self, seconds: float) -> bool:
        """Whether every request is answered, and every answer taken, within so many seconds."""
        last = time.monotonic() + seconds
        while self.server_state.connections or self.server_state.tasks:
            if time.monotonic() > last:
                return False
            await asyncio.sleep(TICK)
        return True

    def end(self, number: int, frame: FrameType | None) -> None:
        """The first signal drains, another one ends at once."""
        now = time.monotonic()
        if self._signalled is None:
            self._signalled = now
            self.lifecycle.stop()
        elif now - self._signalled > SAME:
            os._exit(1)

    def hang_up(self, number: int, frame: FrameType | None) -> None:
        """Call whoever wants to know of a SIGHUP, in a thread: they read files."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._loop.run_in_executor, None, self._call_all)

    def _call_all(self) -> None:
        for each in self.lifecycle.on_hangup:
            try:
                each()
            except Exception:
                logger.exception("a callback of SIGHUP failed")


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing to end
        loop.call_soon_threadsafe(call)


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """Within this block what is there already is no garbage: to look through it took the loop 30 ms each time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _signals(server: _Server) -> Iterator[None]:
    """Within this block signals are the server's; after it, as they were. What is ignored, as under nohup, stays so."""
    former: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name, handler in (("SIGINT", server.end), ("SIGTERM", server.end), ("SIGHUP", server.hang_up)):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                former[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
