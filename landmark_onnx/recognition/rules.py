"""Rules on what is no landmark, as people write them, and what they say of a detector's boxes."""

import dataclasses
import importlib.resources
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_onnx.errors import RuleError
from landmark_onnx.results import Detections

DEFAULT = "no_landmark.toml"
"""Beside this file: rules of our own."""
KEYS = {"name", "classes", "score", "area", "unless"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Boxes of `classes` with at least `score` that cover at least `area` of the image: no landmark.

    classes: names, in lower case, or indices of the detector. score: 0..1. area: share of the image, 0..1, of all such
    boxes together. unless: classes one of whose boxes, with that score, makes the rule void.
    """

    name: str
    classes: frozenset[str | int]
    score: float
    area: float
    unless: frozenset[str | int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A box that counted. bbox: x, y, width, height in pixels. score: of the detector."""

    name: str
    score: float
    bbox: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """A rule that holds. area: share of the image under its boxes."""

    rule: str
    area: float
    boxes: tuple[Box, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "rule": self.rule,
            "area": self.area,
            "boxes": [{"name": box.name, "score": box.score, "bbox": list(box.bbox)} for box in self.boxes],
        }


def read_rules(path: Path | None = None) -> tuple[Rule, ...]:
    """The rules of a TOML file, or those shipped. Raises: RuleError that names the file and the key."""
    origin = path or DEFAULT
    try:
        if path is None:
            text = importlib.resources.files(__package__).joinpath(DEFAULT).read_text(encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise RuleError(f"{origin}: {getattr(error, 'strerror', None) or error}") from error
    rows = data.get("rule")
    if set(data) != {"rule"} or not isinstance(rows, list) or not rows:
        raise RuleError(f"{origin}: wanted tables [[rule]] and nothing else, got {', '.join(data) or 'nothing'}")
    return tuple(_rule(row, f"{origin}: rule {number}") for number, row in enumerate(rows, start=1))


def unknown_classes(rules: Sequence[Rule], names: Mapping[int, str]) -> list[str]:
    """The rules' classes that a detector does not have, whose classes have these names.

    Raises: RuleError if it has none of a rule's classes: that rule could never hold.
    """
    known = {name.lower() for name in names.values()} | set(names)
    for rule in rules:
        if not rule.classes & known:
            wanted = min(map(str, rule.classes))
            there = ", ".join(list(names.values())[:3]) or "no names at all"
            raise RuleError(
                f"rule {rule.name}: the detector has none of its classes, such as {wanted}; it has, to begin with, "
                f"{there}: give a file of rules with its names or indices"
            )
    return sorted({str(each) for rule in rules for each in (rule.classes | rule.unless) - known})


def apply_rules(rules: Iterable[Rule], found: Detections, width: float, height: float) -> tuple[Hit, ...]:
    """The rules that hold of an image of width x height pixels."""
    hits = []
    for rule in rules:
        sure = found.scores >= rule.score
        chosen = np.flatnonzero(sure & _of(rule.classes, found))
        share = covered(found.boxes[chosen], width, height)
        if len(chosen) and share >= rule.area and not (sure & _of(rule.unless, found)).any():
            hits.append(Hit(rule.name, share, tuple(_box(found, at) for at in chosen.tolist())))
    return tuple(hits)


def covered(boxes: npt.NDArray[np.float32], width: float, height: float) -> float:
    """(N, 4) x, y, width, height -> the share of the image that they cover together, 0..1.

    Exact: on the grid of all their edges, which is at most (2 N)^2 cells.
    """
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float64)
    corners = np.clip(corners, 0, [width, height, width, height])
    xs, ys = np.unique(corners[:, 0::2]), np.unique(corners[:, 1::2])
    inside = np.zeros((max(len(ys) - 1, 0), max(len(xs) - 1, 0)), np.bool_)
    for left, top, right, bottom in corners:
        rows = slice(*np.searchsorted(ys, [top, bottom]))
        inside[rows, slice(*np.searchsorted(xs, [left, right]))] = True
    area = float((np.outer(np.diff(ys), np.diff(xs)) * inside).sum())
    return min(area / (width * height), 1.0)


def _of(classes: frozenset[str | int], found: Detections) -> npt.NDArray[np.bool_]:
    rows = zip(found.names, found.classes.tolist(), strict=True)
    return np.array([(name or "").lower() in classes or index in classes for name, index in rows], np.bool_)


def _box(found: Detections, at: int) -> Box:
    name = found.names[at] or f"class {found.classes[at]}"
    return Box(name, float(found.scores[at]), tuple(found.boxes[at].tolist()))


def _rule(row: Any, where: str) -> Rule:
    if not isinstance(row, dict) or not KEYS - {"unless"} <= row.keys() <= KEYS:
        got = ", ".join(row) if isinstance(row, dict) else repr(row)
        raise RuleError(f"{where}: wanted name, classes, score, area and perhaps unless; got {got}")
    if not isinstance(row["name"], str):
        raise RuleError(f"{where}: name: wanted text")
    for key in ("score", "area"):
        if type(row[key]) not in (int, float) or not 0 < row[key] <= 1:
            raise RuleError(f"{where}: {key}: wanted a number over 0, at most 1; got {row[key]!r}")
    classes, unless = (_classes(row.get(key, []), f"{where}: {key}") for key in ("classes", "unless"))
    if not classes:
        raise RuleError(f"{where}: classes: wanted at least one")
    return Rule(name=row["name"], classes=classes, score=row["score"], area=row["area"], unless=unless)


def _classes(values: Any, where: str) -> frozenset[str | int]:
    if not isinstance(values, list) or not all(type(value) in (str, int) for value in values):
        raise RuleError(f"{where}: wanted a list of class names or indices")
    return frozenset(value.lower() if isinstance(value, str) else value for value in values)
