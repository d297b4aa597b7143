"""MLPerf's scenarios without its load generator: the same definitions, for where that has no wheel.

Source: mlcommons/inference, loadgen/loadgen.cc and issue_query_controller.cc.
"""

import collections
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from landmark_onnx.benchmark.contestants import Scenario, Workload
from landmark_onnx.benchmark.windows import Window

Answer: TypeAlias = Callable[[Sequence[int]], Iterator[int]]
"""Samples by their index -> how many of them have got their answer, each time some have; in their order."""

SEED = 2019


class Clock:
    """When the first query came and the last answer went."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def query(self) -> None:
        """A query came."""
        self.first = self.first or time.perf_counter()

    def answer(self) -> None:
        """An answer went."""
        self.last = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Between the two."""
        return self.last - self.first


class Batcher:
    """The serving side of scenario "server": one thread that runs together what waits, up to `batch_size` images."""

    def __init__(self, answer: Answer, batch_size: int, done: Callable[[list[tuple[int, int]]], None]) -> None:
        """done: gets the (query, sample) pairs of each batch when it is answered."""
        self._waiting: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._answer, self._size, self._done = answer, batch_size, done
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="batcher", daemon=True)
        self._thread.start()

    def put(self, query: int, sample: int) -> None:
        """A query of one image."""
        self._waiting.put((query, sample))

    def finish(self) -> None:
        """Answer what waits, and stop. Raises: what answering raised."""
        self._waiting.put(None)
        self._thread.join()
        if self._error:
            raise self._error

    def _serve(self) -> None:
        open_ = True
        while open_:
            batch = [self._waiting.get()]
            while len(batch) < self._size and batch[-1] is not None and not self._waiting.empty():
                batch.append(self._waiting.get())
            open_ = batch[-1] is not None
            members = [item for item in batch if item is not None]
            try:
                if members and not self._error:
                    collections.deque(self._answer([sample for _, sample in members]), maxlen=0)
            except Exception as error:  # it goes to the thread that waits in finish()
                self._error = error
            self._done(members)  # whatever came of it: the other side counts answers, and would wait for ever


def sample_order(count: int, samples: int, seed: int = SEED) -> list[int]:
    """`count` samples drawn with replacement from `samples`, as the load generator draws them."""
    return [int(index) for index in np.random.default_rng(seed).integers(0, samples, count)]


def offline_count(work: Workload, batch_size: int, rate: float) -> int:
    """Images of the one query that keeps a contestant of `rate` images per second busy for the window."""
    wanted = work.queries * batch_size if work.queries else rate * work.seconds
    return max(1, round(wanted / batch_size)) * batch_size


def single_stream(work: Workload, answer: Answer, batch_size: int, samples: int, rate: float) -> Window:
    """Query after query of `batch_size` images until the window's time, or number of queries, is reached."""
    order = sample_order(997 * batch_size, samples)
    latencies: list[float] = []
    begun = time.perf_counter()
    while len(latencies) < work.queries if work.queries else time.perf_counter() - begun < work.seconds:
        at = len(latencies) * batch_size % len(order)
        start = time.perf_counter()
        collections.deque(answer(order[at : at + batch_size]), maxlen=0)
        latencies.append(time.perf_counter() - start)
    seconds = time.perf_counter() - begun
    return Window(images=len(latencies) * batch_size, seconds=seconds, latencies=tuple(latencies))


def offline(work: Workload, answer: Answer, batch_size: int, samples: int, rate: float) -> Window:
    """One query of as many images as the window has time for."""
    order = sample_order(offline_count(work, batch_size, rate), samples)
    start = time.perf_counter()
    collections.deque(answer(order), maxlen=0)
    seconds = time.perf_counter() - start
    return Window(images=len(order), seconds=seconds, latencies=(seconds,))


def server(work: Workload, answer: Answer, batch_size: int, samples: int, rate: float) -> Window:
    """Queries of one image at exponential intervals; a latency runs from when the query was due."""
    count = work.queries or max(1, round(work.target_qps * work.seconds))
    due = np.cumsum(np.random.default_rng(SEED).exponential(1 / work.target_qps, count))
    latencies = [0.0] * count
    clock = Clock()

    def done(members: list[tuple[int, int]]) -> None:
        clock.answer()
        for query, _ in members:
            latencies[query] = clock.last - start - due[query]

    batcher = Batcher(answer, batch_size, done)
    start = time.perf_counter()
    clock.query()
    for query, sample in enumerate(sample_order(count, samples)):
        time.sleep(max(0.0, start + due[query] - time.perf_counter()))
        batcher.put(query, sample)
    batcher.finish()
    return Window(images=count, seconds=clock.seconds, latencies=tuple(map(float, latencies)))


BUILT_IN: Mapping[Scenario, Callable[[Workload, Answer, int, int, float], Window]] = {
    Scenario.SINGLE_STREAM: single_stream,
    Scenario.OFFLINE: offline,
    Scenario.SERVER: server,
}
"""Each takes a workload, what answers, its batch size, the number of samples, and images per second of the warm-up."""
