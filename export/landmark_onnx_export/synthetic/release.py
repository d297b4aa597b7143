"""Small releases of our own: the layout and the programs of the real ones, seeded random weights that know nothing."""

import dataclasses
import functools
import itertools
import tarfile
import tempfile
import types
import zlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.types import Float32
from landmark_onnx_export.networks.build import plan
from landmark_onnx_export.paddle.variables import stream_head
from landmark_onnx_export.synthetic.detectors import CLASSES, faster_rcnn_c4
from landmark_onnx_export.synthetic.weights import Weights, calibrate

Writer: TypeAlias = Callable[[BinaryIO], Any]

WIDTH = Fraction(1, 16)
MODIFIED = 1559347200
"""2019-06-01, of every file."""

_QUALITIES = [
    "Old", "New", "Red", "White", "Grey", "Golden", "Stone", "Wooden", "Iron", "Great",
    "Little", "Upper", "Lower", "Northern", "Southern", "Round", "Long", "Hidden", "Silent", "Windy",
]  # fmt: skip
_THINGS = [
    "Arch", "Bridge", "Castle", "Chapel", "Church", "Column", "Dam", "Dome", "Fort", "Fountain",
    "Garden", "Gate", "Hall", "Harbour", "House", "Library", "Lighthouse", "Market", "Mill", "Palace",
    "Square", "Statue", "Temple", "Tower", "Wall",
]  # fmt: skip
LABELS = tuple(map(" ".join, itertools.product(_QUALITIES, _THINGS)))
"""Made-up names of the detector's 500 classes."""


def write_release(
    card: ModelCard,
    folder: Path,
    *,
    width: Fraction | float = WIDTH,
    classes: int = 101,
    embedding: int = 512,
    seed: int = 0,
    heads: Mapping[str, Float32] = types.MappingProxyType({}),
) -> Path:
    """Write `<card.name>.tar` into `folder`: the real layout, at `width` times its channels; returns its path.

    classes: of a classifier; a detector always has 500 and the background. heads: parameters of a detector by their
    names, in place of random ones: its last layers, once they were fitted to what the others see. The same arguments
    give the same bytes.
    Memory stays near that of the largest convolution, whatever the class count.
    """
    if card.task == "det":
        return _write_detector(card, folder, faster_rcnn_c4(Fraction(width)), seed, heads)
    size = embedding if card.task == "retrieval" else classes
    program = plan(card.source.network, card.task, width=width, size=size)
    weights = calibrate(program, _seed(card.name, seed))
    files = {name: functools.partial(_write_stream, weights, name) for name in sorted(weights.shapes)}
    return _write_tar(folder, card.name, files)


def _write_detector(card: ModelCard, folder: Path, program: bytes, seed: int, heads: Mapping[str, Float32]) -> Path:
    weights = calibrate(program, _seed(card.name, seed))
    assert all(values.shape == weights.shapes[name] for name, values in heads.items())
    weights = dataclasses.replace(weights, values={**weights.values, **heads})
    assert len(LABELS) == CLASSES - 1
    text = "".join(f"{label}\t{index}\n" for index, label in enumerate(LABELS, start=1))

    def write_params(out: BinaryIO) -> None:
        for parameter in sorted(weights.shapes):
            _write_stream(weights, parameter, out)

    files: dict[str, Writer] = {
        card.source.labels or "labels.txt": lambda out: out.write(text.encode()),
        "infer_model/model": lambda out: out.write(program),
        "infer_model/params": write_params,
    }
    return _write_tar(folder, card.name, files)


def _seed(name: str, seed: int) -> int:
    """Each release its own weights."""
    return zlib.crc32(f"{name} {seed}".encode())


def _write_tar(folder: Path, name: str, files: Mapping[str, Writer]) -> Path:
    """Write `<name>.tar` with these files below the folder `<name>`, one file at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / f"{name}.tar", folder / f".{name}.tar.tmp"
    parents = dict.fromkeys([name, *(f"{name}/{parent}" for file in files if (parent := file.rpartition("/")[0]))])
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for parent in parents:
            tar.addfile(_member(parent, tarfile.DIRTYPE, 0o755))
        for file, write in files.items():
            with tempfile.TemporaryFile(dir=folder) as spool:
                write(spool)
                member = _member(f"{name}/{file}", tarfile.REGTYPE, 0o644)
                member.size = spool.tell()
                spool.seek(0)
                tar.addfile(member, spool)
    unfinished.replace(path)
    return path


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, MODIFIED
    return member


def _write_stream(weights: Weights, name: str, out: BinaryIO) -> None:
    """One variable as Paddle 1.x writes it; see `fluid`."""
    out.write(stream_head(weights.shapes[name]))
    for rows in weights.rows(name):
        out.write(np.ascontiguousarray(rows, dtype="<f4").data)
