"""Which landmark each image of an index shows, from the files people have, or from the folders they sort photos in."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from landmark_onnx.errors import SearchError, TableError
from landmark_onnx.evaluation.csv_rows import read_header, read_rows, shown_header
from landmark_onnx.images.ids import IdRule, image_id

FORMS = (("id", "landmark_id"), ("id", "landmark"), ("id", "label"), ("images", "landmark_id"))
"""Columns, the first of which holds one id, or several with spaces between (train_clean.csv)."""


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
