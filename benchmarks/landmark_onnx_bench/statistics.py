"""The statistics of a benchmark: windows of work, when they are stable, and how two contestants compare."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

PERCENTILES = (50, 90, 99)

STABLE_WINDOWS = 3
STABLE_LIMIT = 1.10
"""perf_analyzer's rule: latency and throughput of the last three windows lie within 10 % of each other."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one contestant did in its turn.

    images: answered. seconds: from the first query to the last answer. latencies: seconds of each query, as the
    scenario defines them; a query may hold several images.
    """

    images: int
    seconds: float
    latencies: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    @property
    def cost(self) -> float:
        """Seconds of an image in the median query: what ratios are taken of."""
        return percentile(self.latencies, 50) * len(self.latencies) / self.images

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data, times in milliseconds."""
        return {
            "images": self.images,
            "queries": len(self.latencies),
            "seconds": round(self.seconds, 6),
            "images_per_second": digits(self.rate),
            "cost_ms": digits(self.cost * 1000),
            **latencies_json(self.latencies),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A contestant's cost by another's, window by window of the same rounds: below 1 it is the faster one.

    low, high: of all rounds; a ratio is beyond the noise of its run if 1 is not between them.
    """

    median: float
    geometric: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, costs: Sequence[float], baseline: Sequence[float]) -> Self:
        """Costs of the same rounds, in their order. Raises: ValueError if there are none, or not as many."""
        ratios = [ours / theirs for ours, theirs in zip(costs, baseline, strict=True)]
        if not ratios:
            raise ValueError("no round was run by both")
        return cls(
            median=statistics.median(ratios),
            geometric=math.exp(statistics.fmean(map(math.log, ratios))),
            low=min(ratios),
            high=max(ratios),
            rounds=len(ratios),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {name: digits(value) for name, value in dataclasses.asdict(self).items()}


def percentile(values: Sequence[float], percent: int) -> float:
    """The least value that at least `percent` of 100 of all do not exceed (nearest rank, no interpolation).

    Raises: ValueError without values.
    """
    if not values:
        raise ValueError("no values")
    rank = max(1, -(-percent * len(values) // 100))
    return sorted(values)[rank - 1]


def stable(windows: Sequence[Window], *, limit: float = STABLE_LIMIT, needed: int = STABLE_WINDOWS) -> bool:
    """Whether the last `needed` windows agree in median latency and in throughput: largest by smallest <= `limit`.

    Source: perf_analyzer, docs/measurements_metrics.md (Triton Inference Server), time windows.
    """
    last = windows[-needed:]
    if len(last) < needed:
        return False
    series = ([window.cost for window in last], [window.rate for window in last])
    return all(max(values) <= limit * min(values) for values in series)


def settled(windows: Sequence[Window]) -> Sequence[Window]:
    """The windows that count: the last three if those are stable, else all."""
    return windows[-STABLE_WINDOWS:] if stable(windows) else windows


def summary(windows: Sequence[Window]) -> dict[str, Any]:
    """The figures of the windows that count, taken together; JSON-ready."""
    counted = settled(windows)
    latencies = [latency for window in counted for latency in window.latencies]
    return {
        "stable": stable(windows),
        "images_per_second": digits(statistics.median(window.rate for window in counted)),
        "cost_ms": digits(1000 * statistics.median(window.cost for window in counted)),
        **latencies_json(latencies),
    }


def latencies_json(latencies: Iterable[float]) -> Mapping[str, float]:
    """{"p50_ms": ..., "p90_ms": ..., "p99_ms": ...} of seconds."""
    values = list(latencies)
    return {f"p{percent}_ms": digits(1000 * percentile(values, percent)) for percent in PERCENTILES}


def digits(value: float) -> float:
    """To five significant digits: the rest is noise of the machine."""
    return value if isinstance(value, int) else float(f"{value:.5g}")
