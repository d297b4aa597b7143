"""Rules on what is no landmark, as people write them, and what they say of a detector's boxes."""

import dataclasses
import importlib.resources
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from landmark_onnx.errors import RuleError
from landmark_onnx.files.documents import parse_toml, read_toml
from landmark_onnx.files.structure import DocumentError, Some, Within, structure
from landmark_onnx.results import Detections

DEFAULT = "no_landmark.toml"
"""Beside this file: rules of our own."""

Share: TypeAlias = Annotated[float, Within(0, 1, over=True)]
Classes: TypeAlias = frozenset[str | int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Boxes of `classes` with at least `score` that cover at least `area` of the image: no landmark.

    classes: names, in lower case, or indices of the detector. score: 0..1. area: share of the image, 0..1, of all such
    boxes together. unless: classes one of whose boxes, with that score, makes the rule void.
    """

    name: str
    classes: Annotated[Classes, Some()]
    score: Share
    area: Share
    unless: Classes = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class _Rules:
    """A file of rules."""

    rule: Annotated[tuple[Rule, ...], Some()]


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A box that counted. bbox: x, y, width, height in pixels. score: of the detector."""

    name: str
    score: float
    bbox: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class RuleHit:
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
            data = parse_toml(importlib.resources.files(__package__).joinpath(DEFAULT).read_bytes())
        else:
            data = read_toml(path)
        rules = structure(_Rules, data).rule
    except OSError as error:
        raise RuleError(f"{origin}: {error.strerror}") from error
    except DocumentError as error:
        raise RuleError(f"{origin}: {error}") from error
    return tuple(
        dataclasses.replace(rule, classes=_lowered(rule.classes), unless=_lowered(rule.unless)) for rule in rules
    )


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


def apply_rules(rules: Iterable[Rule], found: Detections, width: float, height: float) -> tuple[RuleHit, ...]:
    """The rules that hold of an image of width x height pixels."""
    hits = []
    for rule in rules:
        sure = found.scores >= rule.score
        chosen = np.flatnonzero(sure & _of(rule.classes, found))
        share = covered(found.boxes[chosen], width, height)
        if len(chosen) and share >= rule.area and not (sure & _of(rule.unless, found)).any():
            hits.append(RuleHit(rule.name, share, tuple(_box(found, at) for at in chosen.tolist())))
    return tuple(hits)


def covered(boxes: npt.NDArray[np.float32], width: float, height: float) -> float:
    """(N, 4) x, y, width, height -> the share of the image that they cover together, 0..1.

    Exact: on the grid of all their edges, which is at most (2 N)^2 cells.

    >>> covered(np.array([[0, 0, 50, 100], [25, 0, 50, 100]], np.float32), 100, 100)
    0.75
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


def _of(classes: Classes, found: Detections) -> npt.NDArray[np.bool_]:
    rows = zip(found.names, found.classes.tolist(), strict=True)
    return np.array([(name or "").lower() in classes or index in classes for name, index in rows], np.bool_)


def _box(found: Detections, at: int) -> Box:
    name = found.names[at] or f"class {found.classes[at]}"
    return Box(name, float(found.scores[at]), tuple(found.boxes[at].tolist()))


def _lowered(classes: Classes) -> Classes:
    return frozenset(each.lower() if isinstance(each, str) else each for each in classes)
