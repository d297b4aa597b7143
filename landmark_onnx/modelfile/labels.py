"""Class maps: index -> name, from the files people have."""

import contextlib
import csv
import re
from pathlib import Path

from landmark_onnx.errors import ModelFileError
from landmark_onnx.files.documents import read_bytes

MAX_BYTES = 64 << 20


def read_labels(path: Path) -> dict[int, str]:
    """Read a class map. Raises: ModelFileError that names the file and the line."""
    try:
        text = read_bytes(path, MAX_BYTES, pipes=True).decode("utf-8-sig")
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: {error}") from error
    return parse_labels(text, str(path))


def parse_labels(text: str, origin: str) -> dict[int, str]:
    """`name<sep>index` or `index<sep>name` per line; <sep> is tab, comma, colon or the last (or first) space.

    A header such as that of Google Landmarks' train_label_to_category.csv (landmark_id,category) is skipped; there the
    landmark id is taken for the index. Raises: ModelFileError that names the origin and the line.

    >>> parse_labels("Eiffel Tower, Paris,17", "labels.csv")
    {17: 'Eiffel Tower, Paris'}
    """
    names: dict[int, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        pair = _pair(line)
        if pair is None:
            if number == 1:
                continue
            raise ModelFileError(f"{origin}, line {number}: wanted a class index and a name, got {line[:80]!r}")
        index, name = pair
        if names.setdefault(index, name) != name:
            raise ModelFileError(f"{origin}, line {number}: index {index} is {names[index]!r} already, now {name!r}")
    if not names:
        raise ModelFileError(f"{origin}: no line has a class index and a name")
    return names


def _pair(line: str) -> tuple[int, str] | None:
    for fields in _splits(line.strip()):
        if len(fields) == 2:
            first, second = (field.strip() for field in fields)
            if re.fullmatch(r"\d{1,9}", first) and second:
                return int(first), second
            if re.fullmatch(r"\d{1,9}", second) and first:
                return int(second), first
    return None


def _splits(line: str) -> list[list[str]]:
    """Ways to cut the line in two, the strictest separator first; a name may contain the others."""
    cuts = []
    with contextlib.suppress(csv.Error):  # a field too long for it
        cuts.append(next(csv.reader([line]), []))
    for separator in ("\t", ",", ":", " "):
        cuts += [line.split(separator, 1), line.rsplit(separator, 1)]
    return cuts
