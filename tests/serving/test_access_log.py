"""Lines on standard error: who does not read them stops nobody, and is told what is missing."""

import io
import logging
import threading

import pytest

from landmark_onnx.serving import access_log
from landmark_onnx.serving.access_log import ServiceLog
from serving_client import PATIENCE, until


class Slow(io.StringIO):
    """A stream whose reader takes nothing until it is let go."""

    def __init__(self):
        super().__init__()
        self.begun, self.over = threading.Event(), threading.Event()

    def write(self, text):
        self.begun.set()
        assert self.over.wait(PATIENCE)
        return super().write(text)


@pytest.fixture
def slow():
    made = Slow()
    yield made
    made.over.set()


def test_what_finds_no_room_is_dropped_and_the_next_line_says_how_many(monkeypatch, slow):
    monkeypatch.setattr(access_log, "LINES", 3)
    log = ServiceLog("text", slow)
    with log.hearing():
        log.event("info", "first")
        assert slow.begun.wait(PATIENCE)
        for number in range(3):
            log.event("info", f"kept-{number}")
        log.event("info", "lost")
        logging.getLogger("landmark_onnx").warning("lost")
        slow.over.set()
        until(lambda: "kept-2" in slow.getvalue())
        log.access({"status": 200})
        log.access({"status": 201})
    said = [line.split(" ", 2)[2] for line in slow.getvalue().splitlines()]
    kept = [f"event=kept-{number}" for number in range(3)]
    assert said == ["event=first", *kept, "status=200 dropped=2", "status=201"]


def test_the_end_waits_for_the_last_lines_and_not_for_a_reader_that_never_comes(monkeypatch, slow):
    monkeypatch.setattr(access_log, "LAST", 0.05)
    with ServiceLog("text", slow).hearing():
        logging.getLogger("landmark_onnx").warning("heard")
    assert slow.getvalue() == ""
    quick = io.StringIO()
    monkeypatch.setattr(access_log, "LAST", PATIENCE)
    with ServiceLog("text", quick).hearing():
        logging.getLogger("landmark_onnx").warning("heard")
    assert "event=heard" in quick.getvalue()


def test_what_others_write_of_the_librarys_log_goes_the_same_way_meanwhile():
    logger, other, stream = logging.getLogger("landmark_onnx"), logging.StreamHandler(io.StringIO()), io.StringIO()
    logger.addHandler(other)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        with ServiceLog("text", stream).hearing():
            logger.debug("within")
        logger.debug("after")
    finally:
        logger.removeHandler(other)
        logger.setLevel(level)
    assert "event=within" in stream.getvalue()
    assert other.stream.getvalue() == "after\n"
