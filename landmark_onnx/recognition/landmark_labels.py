"""Which landmark each image of an index shows, from the files people have, or from the folders they sort photos in."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Self

from landmark_onnx.errors import SearchError, TableError
from landmark_onnx.evaluation.csv_rows import read_header, read_rows, shown_header
from landmark_onnx.images.ids import IdRule, check_ids, image_id

FORMS = (("id", "landmark_id"), ("id", "landmark"), ("id", "label"), ("images", "landmark_id"))
"""Columns, the first of which holds one id, or several with spaces between (train_clean.csv)."""

FOLDERS = "folders"
"""In place of a CSV: each image shows what the folder that holds it is called. A file of that name is ./folders."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LandmarkLabels:
    """Landmarks of an index's images. labels: the CSV that they are from, or FOLDERS. known: id -> landmark, of a CSV.

    rule: what is made of an id before `known` is asked.
    """

    labels: str
    known: Mapping[str, str] | None = None
    rule: IdRule = IdRule.PATH

    @classmethod
    def read(cls, labels: str, rule: IdRule | None = None) -> Self:
        """labels: a CSV, or FOLDERS. rule: of both sides, by default PATH. Raises: TableError."""
        rule = rule or IdRule.PATH
        known = None if labels == FOLDERS else read_landmarks(Path(labels), rule)
        return cls(labels=labels, known=known, rule=rule)

    def landmark(self, name: str) -> str | None:
        """The landmark of the image with this id, None if it has none."""
        return folder_landmark(name) if self.known is None else self.known.get(image_id(name, self.rule))

    def check(self, ids: Iterable[str], index: str) -> str:
        """What there is to say of ids without a landmark: nothing if there are none, else a warning.

        index: what it is called. Raises: TableError if a CSV has none of the ids; SearchError if no id has a folder.
        """
        if self.known is None:
            return check_folders(ids, index)
        remedy = "--ids stem compares names without folders and suffix"
        found = (image_id(name, self.rule) for name in ids)
        warning = check_ids(found, self.known, f"ids of {index}", self.labels, remedy)
        return warning and f"{warning}: they have no landmark; {remedy}"


def read_landmarks(path: Path, rule: IdRule = IdRule.PATH) -> Mapping[str, str]:
    """Image id -> landmark, from train.csv, train_clean.csv, index_image_to_landmark.csv or columns id,label.

    rule: what is made of an id before it counts; PATH takes it as it is. An image of several landmarks keeps its first.
    Each id takes about 150 bytes of memory: 0.6 GB for GLDv2's train.
    Raises: TableError.
    """
    columns = read_header(path)
    header = {name.lower() for name in columns}
    form = next((form for form in FORMS if set(form) <= header), None)
    if form is None:
        forms = "; ".join(",".join(form) for form in FORMS)
        raise TableError(f"{path}: wanted columns {forms}; its first line has: {shown_header(columns)}")
    landmarks: dict[str, str] = {}
    for name, landmark in _pairs(path, form):
        landmarks.setdefault(image_id(name, rule), landmark)
    return landmarks


def folder_landmark(name: str) -> str | None:
    """The folder that holds an image, by its id: a path below what was embedded, in a tar too. None if it names none.

    >>> folder_landmark("paris/eiffel/1.jpg")
    'eiffel'
    >>> folder_landmark("1.jpg") is None
    True
    """
    folder = PurePosixPath(name).parent.name
    return None if folder in ("", "..") else folder


def check_folders(ids: Iterable[str], index: str) -> str:
    """What there is to say of ids without a folder: nothing if there are none, else a warning.

    index: what it is called. Raises: SearchError, which says the same, if not a single id has a folder.
    """
    total = missing = 0
    example = ""
    for name in ids:
        total += 1
        if folder_landmark(name) is None:
            missing += 1
            example = example or name
    if not missing:
        return ""
    text = (
        f"{missing:,} of {total:,} ids of {index} have no folder, such as {example!r}: they have no landmark; "
        "embed --ids path PHOTOS keeps folders below PHOTOS in ids"
    )
    if missing == total:
        raise SearchError(text)
    return text


def _pairs(path: Path, form: tuple[str, str]) -> Iterator[tuple[str, str]]:
    for _, (names, landmark) in read_rows(path, form):
        if landmark:
            landmark = sys.intern(landmark)
            for name in names.split() if form[0] == "images" else [names]:
                yield name, landmark
