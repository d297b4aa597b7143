"""What an image is called: the one rule by which a path becomes an id, wherever ids are made or compared."""

import re
from enum import StrEnum
from pathlib import PurePosixPath

from landmark_onnx.folders import SUFFIXES

GLDV2_ID = re.compile(r"[0-9a-f]{16}")


class IdRule(StrEnum):
    """What an image is called after. AUTO: the stem where it is an id of GLDv2 (16 hexadecimal digits), else PATH."""

    AUTO = "auto"
    STEM = "stem"
    PATH = "path"


def image_id(name: str, rule: IdRule) -> str:
    """The id of an image that is called `name` where it was found: below its folder, in its tar, or as it was given."""
    if rule is not IdRule.PATH:
        stem = image_stem(name)
        if rule is IdRule.STEM or GLDV2_ID.fullmatch(stem):
            name = stem
    return as_text(name)


def image_stem(name: str) -> str:
    """The name without folders and without the suffix of an image; what follows another dot is part of the name."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def as_text(name: str) -> str:
    """A file's name as Unicode, which is all that Parquet holds: bytes that are no text become backslash escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
