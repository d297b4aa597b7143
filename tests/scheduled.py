"""What holds a scheduler at a place of one's choice, and what tells where it is."""

import threading
import time

from landmark_onnx.inference.scheduler import Scheduler
from pipelines import FakeSession

PATIENCE = 30
"""Seconds after which a test gives up: never reached where nothing is wrong."""


def until(condition):
    """Wait until it is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.001)


def reached(event):
    """Wait for an event."""
    assert event.wait(PATIENCE), "it did not come to that"


class Gate:
    """A place to stop at: `entered` when somebody has come, who goes on when it is `opened`."""

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, passing=None):
        self.entered.set()
        reached(self.opened)
        return passing


class SlowFile:
    """An open file whose reading stops at a gate."""

    name = "slow.png"

    def __init__(self, data):
        self.data, self.gate, self.reads = data, Gate(), 0

    def read(self, _):
        self.reads += 1
        return self.gate(self.data)


class SteppedSession(FakeSession):
    """Each run waits until it is let through. started: how many have come."""

    def __init__(self, refuse=()):
        super().__init__(refuse)
        self.started = 0
        self._permits = threading.Semaphore(0)

    def step(self, count=1):
        """Let so many runs through."""
        self._permits.release(count)

    def run(self, feeds):
        self.started += 1
        assert self._permits.acquire(timeout=PATIENCE)
        return super().run(feeds)


class Events:
    """Remembers what it is told."""

    def __init__(self):
        self.decodes, self.runs, self.ends = 0, [], []

    def decoded(self, seconds):
        assert seconds >= 0
        self.decodes += 1

    def ran(self, stage, items, seconds):
        assert seconds >= 0
        self.runs.append((stage, items))

    def ended(self, stages, outcome, place, waited):
        assert stages
        assert waited >= 0
        self.ends.append((outcome, place))


def place_of(scheduler, future):
    """How far a request is."""
    request = scheduler._open.of(future)
    return request.place if request else "answer"


def nothing_is_left(scheduler: Scheduler):
    """Whether a scheduler holds no request and nothing of one."""
    queue, memory = scheduler._queue, scheduler._memory
    return not (scheduler.waiting or scheduler._buckets or queue._clients or queue._inside or memory._used)
