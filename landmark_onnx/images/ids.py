"""What an image is called: the one rule by which a path becomes an id, wherever ids are made or compared."""

import re
from collections.abc import Collection, Iterable
from enum import StrEnum
from pathlib import PurePosixPath

from landmark_onnx.errors import TableError
from landmark_onnx.images.walk import SUFFIXES

GLDV2_ID = re.compile(r"[0-9a-f]{16}")


class IdRule(StrEnum):
    """What an image is called after. AUTO: the stem where it is an id of GLDv2 (16 hexadecimal digits), else PATH."""

    AUTO = "auto"
    STEM = "stem"
    PATH = "path"


def image_id(name: str, rule: IdRule) -> str:
    """The id of an image that is called `name` where it was found: below its folder, in its tar, or as it was given.

    >>> image_id("paris/0a1b2c3d4e5f6071.jpg", IdRule.AUTO)
    '0a1b2c3d4e5f6071'
    >>> image_id("paris/tower.jpg", IdRule.AUTO)
    'paris/tower.jpg'
    >>> image_id("paris/tower.jpg", IdRule.STEM)
    'tower'
    """
    if rule is not IdRule.PATH:
        stem = image_stem(name)
        if rule is IdRule.STEM or GLDV2_ID.fullmatch(stem):
            name = stem
    return as_text(name)


def image_stem(name: str) -> str:
    """The name without folders and without the suffix of an image; what follows another dot is part of the name."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def check_ids(ids: Iterable[str], known: Collection[str], what: str, where: str, remedy: str) -> str:
    """What there is to say of `ids` that are not `known`: nothing if all are, a warning if some are not.

    what, where: what both are called. remedy: what to do if they are called differently.
    Raises: TableError, which says the same, if not a single one is known.
    """
    total = missing = 0
    example = ""
    for name in ids:
        total += 1
        if name not in known:
            missing += 1
            example = example or name
    if not missing:
        return ""
    there = next(iter(known), None)
    text = f"{missing:,} of {total:,} {what} are not among the {len(known):,} of {where}, such as {example!r}"
    text += "" if there is None else f" (one there: {there!r})"
    if missing == total:
        raise TableError(f"{text}; {remedy}")
    return text


def as_text(name: str) -> str:
    """A file's name as Unicode, which is all that Parquet holds: bytes that are no text become backslash escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
