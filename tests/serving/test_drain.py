"""How a server ends: by a signal in a process of its own, and under load at any moment."""

import contextlib
import dataclasses
import fcntl
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import serving_client
from commands import hearing
from landmark_onnx.serving.lifecycle import Lifecycle
from serving_client import PATIENCE, Served, request, running, until

CHILD = Path(serving_client.__file__).with_name("serving_child.py")


@dataclasses.dataclass
class Child:
    """A server that runs in a process, and the lines that it has written on standard error."""

    process: subprocess.Popen
    served: Served
    coming: queue.Queue
    lines: list[dict]

    def line(self, event):
        """The line of an event, once it is there."""
        while not (found := [each for each in self.lines if each.get("event") == event]):
            self.lines.append(json.loads(self.coming.get(timeout=PATIENCE)))
        return found[0]

    def signal(self, number):
        self.process.send_signal(number)

    @property
    def code(self):
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def child(*, log_is_read=True, **limits):
    reader, writer = os.pipe()
    command = [sys.executable, str(CHILD), json.dumps(limits), str(writer)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with hearing():
        started = subprocess.Popen(command, pass_fds=[writer], **pipes)
    with started as process:
        try:
            os.close(writer)
            assert os.read(reader, 9) == b"1"
            assert os.read(reader, 9) == b""
            os.close(reader)
            url = process.stdout.readline()
            assert url.startswith("http://127.0.0.1:")
            port = int(url.rstrip("/\n").rpartition(":")[2])
            coming = queue.Queue()
            thread = threading.Thread(target=lambda: [coming.put(line) for line in process.stderr])
            if log_is_read:
                thread.start()
            yield Child(process, Served(port, None, None, None, []), coming, [])
            assert process.wait(PATIENCE) is not None
            assert process.stdout.read() == ""
        finally:
            process.kill()
            if log_is_read:
                thread.join()


def post(body=b"", **headers):
    return request("POST", "/size", body, **headers)


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_before_the_end(number):
    with child() as server:
        served = server.served
        idle, busy, half = request("GET", "/ready"), post(b"ab", content_length="3"), "GET /ready HTTP/1.1\r\nHo"
        with served.wire(idle) as idle, served.wire(busy) as busy, served.wire(half) as half:
            assert idle.answer().status == 200
            server.signal(number)
            assert server.line("draining")["accepting_for"] == 0
            until(lambda: refuses(served.port))
            assert idle.closed
            assert half.closed
            answer = busy.send("c").answer()
            assert (answer.json, answer.headers["connection"]) == (3, "close")
            assert busy.closed
        assert server.code == 0
        last = server.line("stopped")
        assert (last["accepted"], last["answered"], last["abandoned"]) == (2, 2, 0)
        assert server.line("handlers restored")


def test_new_requests_are_accepted_for_a_while_and_a_second_signal_ends_at_once():
    with child(drain_delay=PATIENCE) as server:
        server.signal(signal.SIGTERM)
        assert server.line("draining")["accepting_for"] == PATIENCE
        answer = server.served.ask("GET", "/ready")
        assert (answer.status, answer.headers["connection"]) == (503, "close")

        def ended():
            server.signal(signal.SIGTERM)
            return server.process.poll() is not None

        until(ended)
        assert server.code == 1


def test_what_takes_too_long_is_told_so():
    with child(drain_timeout=0.2) as server:
        with server.served.wire(post(b"ab", content_length="3")) as wire:
            server.signal(signal.SIGTERM)
            answer = wire.answer()
            assert (answer.kind, answer.headers["connection"]) == ("draining", "close")
            assert wire.closed
        assert server.code == 0
        assert server.line("stopped")["answered"] == 1


def test_a_hang_up_calls_everybody_though_one_fails():
    with child() as server:
        server.signal(signal.SIGHUP)
        assert server.line("hung up")
        assert "ZeroDivisionError" in server.line("a callback of SIGHUP failed")["traceback"]
        assert server.served.ask("GET", "/ready").status == 200
        server.signal(signal.SIGTERM)
        assert server.code == 0


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="this system has no small pipes")
def test_a_log_that_nobody_reads_stops_neither_an_answer_nor_the_end():
    with child(log_is_read=False) as server:
        fcntl.fcntl(server.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        with server.served.wire() as wire:
            for _ in range(60):  # lines of some 200 bytes
                assert wire.send(request("GET", "/ready")).answer().status == 200
        server.signal(signal.SIGTERM)
        assert server.code == 0


def test_a_stop_before_the_start():
    lifecycle = Lifecycle()
    lifecycle.stop()
    with running(None, lifecycle=lifecycle) as server:
        until(lambda: server.codes)


@pytest.mark.parametrize("moment", [1, 20, 60, *[pytest.param(at, marks=pytest.mark.slow) for at in range(2, 200, 10)]])
def test_under_load_everything_that_was_accepted_is_answered(moment):
    """Clients on connections of their own or kept, until the server listens no more."""
    answered = []
    count = threading.Semaphore(0)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def ask(served, keeps):
        with contextlib.suppress(OSError, ConnectionError):
            while True:
                with served.wire() as wire:
                    again = True
                    while again:
                        answer = wire.send(request("GET", "/")).answer()
                        answered.append(answer.status)
                        count.release()
                        again = keeps and answer.headers.get("connection") != "close"

    with running(app) as server:
        clients = [threading.Thread(target=ask, args=(server, keeps)) for keeps in (True, False) * 4]
        for client in clients:
            client.start()
        for _ in range(moment):
            assert count.acquire(timeout=PATIENCE)
        server.lifecycle.stop()
        for client in clients:
            client.join(PATIENCE)
            assert not client.is_alive()
    state = server.lifecycle
    assert (state.accepted, state.abandoned) == (state.answered, 0)
    assert len(answered) == state.answered >= moment
    assert set(answered) == {200}
