import socket
import time

import pytest

from interrupts import assert_ends
from landmark_onnx.hub.deadline import Deadline


class Stream:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self.connection


def test_a_connection_is_cut_off_when_the_time_is_over():
    here, there = socket.socketpair()
    with here, there, Deadline(0.05) as deadline:
        deadline.trace("connection.connect_tcp.complete", {"return_value": Stream(here)})
        start = time.monotonic()
        assert here.recv(1) == b""
        assert time.monotonic() - start < 5
        assert deadline.expired


def test_more_time_can_be_allowed():
    here, there = socket.socketpair()
    with here, there, Deadline(0.05) as deadline:
        deadline.trace("connection.connect_tcp.complete", {"return_value": Stream(here)})
        deadline.allow(60)
        here.settimeout(0.3)
        with pytest.raises(TimeoutError):
            here.recv(1)
        assert not deadline.expired


def test_a_connection_that_comes_too_late_is_cut_off_too():
    here, there = socket.socketpair()
    with here, there, Deadline(0.0) as deadline:
        while not deadline.expired:
            time.sleep(0.01)
        deadline.trace("connection.connect_tcp.complete", {"return_value": Stream(here)})
        assert here.recv(1) == b""


def connect():
    here, there = socket.socketpair()
    with here, there, Deadline(60) as deadline:
        deadline.trace("connection.connect_tcp.complete", {"return_value": Stream(here)})
        deadline.allow(30)


def test_an_interrupt_at_any_moment_leaves_nobody_waiting(tmp_path):
    assert_ends(tmp_path, __file__, "connect")
