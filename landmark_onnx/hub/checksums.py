"""Whether a release is the one its card declares, or the one that was there at first sight."""

import itertools
from pathlib import Path

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError
from landmark_onnx.files.tars import TarError, members
from landmark_onnx.hub.resume import Fetched
from landmark_onnx.store.catalogue import source_path
from landmark_onnx.store.records import read_record, write_record

MAX_MEMBERS = 100_000

_COMPRESSED = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"


def accept(card: ModelCard, fetched: Fetched) -> None:
    """Let a file be the release of `card`, and record its hash if it is the first one seen.

    Raises: ModelFileError with wanted and got, or if an unknown file is no tar.
    """
    path = source_path(card.name)
    recorded = str(read_record(path).get("sha256", ""))
    wanted = card.source.sha256.lower() or recorded
    if not wanted:
        check_tar(fetched.path, fetched.url)
    elif fetched.sha256 != wanted:
        since = "as its card declares" if card.source.sha256 else "as at first sight"
        remedy = "" if card.source.sha256 else f"; to trust the new one: landmark-onnx models rm {card.name} --forget"
        raise ModelFileError(f"{fetched.url}: wanted sha256 {wanted}, {since}, got {fetched.sha256}{remedy}")
    if fetched.sha256 != recorded:
        write_record(path, {"url": fetched.url, "sha256": fetched.sha256, "size": fetched.size})


def check_source(card: ModelCard) -> Path:
    """The release of `card` in the store, hashed again. Raises: ModelFileError as `accept` does."""
    path = source_path(card.name)
    accept(card, Fetched.of(path, str(path)))
    return path


def check_tar(path: Path, shown: str) -> None:
    """Follow the headers of a plain tar to its end mark; of a compressed one, look at the first bytes.

    So what a broken server sends instead of a release is not recorded as one. Raises: ModelFileError naming `shown`.
    """
    with path.open("rb") as file:
        if file.read(6).startswith(_COMPRESSED):
            return
        try:
            if sum(1 for _ in itertools.islice(members(file, marked=True), MAX_MEMBERS + 1)) <= MAX_MEMBERS:
                return
        except TarError as error:
            raise ModelFileError(f"{shown}: no tar, or a damaged one: {error}: no release") from error
    raise ModelFileError(f"{shown}: wanted at most {MAX_MEMBERS} members, got more: no release")
