"""Two reports beside each other: what became slower, what faster, and what is no more than noise."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from landmark_onnx_bench.report import KEY, markdown_table
from landmark_onnx_bench.statistics import STABLE_WINDOWS, digits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredChange:
    """One measurement in both reports.

    ratio: the second's cost by the first's, above 1 is slower. real: it is beyond the noise of the two runs.
    """

    key: Mapping[str, Any]
    before_ms: float
    after_ms: float
    ratio: float
    real: bool

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        figures = {"before_ms": self.before_ms, "after_ms": self.after_ms, "ratio": digits(self.ratio)}
        return {**self.key, **figures, "beyond_noise": self.real}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[MeasuredChange]:
    """What both reports measured, in the order of the first one."""
    others = {_key(row): row for row in after["rows"]}
    return [_change(row, others[_key(row)]) for row in before["rows"] if _key(row) in others]


def only_in(report: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """Names of the measurements that the other report has not."""
    known = {_key(row) for row in other["rows"]}
    for row in report["rows"]:
        if _key(row) not in known:
            yield ", ".join(str(row[name]) for name in KEY)


def apart(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether the costs of two runs' windows do not overlap at all.

    Of m and n windows of one distribution that happens with probability 2 / C(m + n, n): 1 in 10 for three and three.
    """
    return max(before) < min(after) or max(after) < min(before)


def tabulate(changes: Sequence[MeasuredChange]) -> str:
    """The changes as Markdown, the measurements beyond noise marked."""
    rows = [
        (
            *(str(change.key[name]) for name in KEY[:-1]),
            f"{change.before_ms:.4g}",
            f"{change.after_ms:.4g}",
            f"{change.ratio:.3f}",
            ("slower" if change.ratio > 1 else "faster") if change.real else "",
        )
        for change in changes
    ]
    return "\n".join(markdown_table([*KEY[:-1], "before ms", "after ms", "ratio", "beyond noise"], rows))


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> MeasuredChange:
    costs = [_costs(row) for row in (before, after)]
    return MeasuredChange(
        key={name: before[name] for name in KEY},
        before_ms=before["cost_ms"],
        after_ms=after["cost_ms"],
        ratio=after["cost_ms"] / before["cost_ms"],
        real=apart(*costs),
    )


def _costs(row: Mapping[str, Any]) -> list[float]:
    """Of the windows that counted, which are the last ones where a row is stable."""
    windows = row["windows"][-STABLE_WINDOWS:] if row["stable"] else row["windows"]
    return [window["cost_ms"] for window in windows]


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)
