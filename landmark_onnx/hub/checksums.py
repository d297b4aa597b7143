"""Whether a file is the one that its card declares, or the one that was there at first sight."""

import itertools
from pathlib import Path

from landmark_onnx.cards.releases import TORCH_HEAD
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.files.tars import TarError, members, pack_folder
from landmark_onnx.hub.resume import Fetched
from landmark_onnx.modelfile.onnx_file import is_onnx
from landmark_onnx.store.catalogue import source_path
from landmark_onnx.store.records import read_record, write_record

MAX_MEMBERS = 100_000

_MARKED = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", TORCH_HEAD
"""How compressed tars begin, and state dicts of torch."""


def accept(card: ModelCard, fetched: Fetched) -> None:
    """Let a file be the source of `card`, and record its hash if it is the first one seen.

    Raises: ModelFileError with wanted and got, or if an unknown file is neither a tar nor an ONNX model.
    """
    path = source_path(card.name)
    recorded = str(read_record(path).get("sha256", ""))
    # Of two files, whose hashes the card declares, the store keeps one tar.
    declared = "" if card.source.data_url else card.source.sha256.lower()
    wanted = declared or recorded
    if not wanted:
        _check_kind(fetched.path, fetched.url)
    elif fetched.sha256 != wanted:
        since = "as its card declares" if declared else "as at first sight"
        remedy = "" if declared else f"; to trust the new one: landmark-onnx models rm {card.name} --forget"
        raise ModelFileError(f"{fetched.url}: wanted sha256 {wanted}, {since}, got {fetched.sha256}{remedy}")
    if fetched.sha256 != recorded:
        write_record(path, {"url": fetched.url, "sha256": fetched.sha256, "size": fetched.size})


def accept_folder(card: ModelCard, folder: Path) -> Path:
    """Let a folder's files, as a tar, be the source of `card` in the store. Raises: ModelFileError, as `accept`."""
    target = source_path(card.name)
    with atomic_write(target) as file:
        try:
            pack_folder(folder, card.name, file)
        except TarError as error:
            raise ModelFileError(f"{folder}: {error}") from error
        file.flush()
        accept(card, Fetched.of(Path(file.name), str(folder)))
    return target


def check_source(card: ModelCard) -> Path:
    """The source of `card` in the store, hashed again. Raises: ModelFileError as `accept` does."""
    path = source_path(card.name)
    accept(card, Fetched.of(path, str(path)))
    return path


def _check_kind(path: Path, shown: str) -> None:
    """An ONNX model passes, and a plain tar whose headers lead to its end mark; of other forms, the first bytes.

    So what a broken server sends instead is not recorded as a model. Raises: ModelFileError naming `shown`.
    """
    if is_onnx(path):
        return
    with path.open("rb") as file:
        if file.read(len(TORCH_HEAD)).startswith(_MARKED):
            return
        try:
            if sum(1 for _ in itertools.islice(members(file, marked=True), MAX_MEMBERS + 1)) <= MAX_MEMBERS:
                return
        except TarError as error:
            what = f"no ONNX model and no tar, or a damaged one: {error}: no release"
            raise ModelFileError(f"{shown}: {what}") from error
    raise ModelFileError(f"{shown}: wanted at most {MAX_MEMBERS} members, got more: no release")
