"""Plain windows, where MLPerf's load generator is not installed: the next query comes with the last answer."""

import collections
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from landmark_onnx_bench.statistics import Window
from landmark_onnx_bench.targets import Workload

Responder: TypeAlias = Callable[[Sequence[int]], Iterator[int]]
"""Samples by their index -> how many of them have got their answer, each time some have; in their order."""

SEED = 2019
DRAWN = 997
"""Queries whose samples are drawn; a longer window asks them once more."""


def single_stream(work: Workload, answer: Responder, batch_size: int, samples: int) -> Window:
    """Query after query of `batch_size` images until the window's time, or number of queries, is reached.

    samples: how many there are; drawn with replacement, in every window the same ones.
    """
    order = np.random.default_rng(SEED).integers(0, samples, DRAWN * batch_size).tolist()
    latencies: list[float] = []
    begun = time.perf_counter()
    while len(latencies) < work.queries if work.queries else time.perf_counter() - begun < work.seconds:
        at = len(latencies) * batch_size % len(order)
        start = time.perf_counter()
        collections.deque(answer(order[at : at + batch_size]), maxlen=0)
        latencies.append(time.perf_counter() - start)
    seconds = time.perf_counter() - begun
    return Window(images=len(latencies) * batch_size, seconds=seconds, latencies=tuple(latencies))
