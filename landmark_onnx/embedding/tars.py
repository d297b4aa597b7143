"""The images in a tar, found by its headers and read where they lie: nothing is ever unpacked.

GLDv2 comes as `images_NNN.tar`, with `md5.images_NNN.txt` beside it: where that file is, the tar is checked against it.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from landmark_onnx.embedding.items import Item
from landmark_onnx.errors import FeatureError
from landmark_onnx.folders import SUFFIXES
from landmark_onnx.ids import IdRule, as_text, image_id
from landmark_onnx.images import MAX_BYTES

_BLOCK = 1 << 20


def tar_items(path: str, rule: IdRule, checking: Callable[[str], None]) -> Iterator[Item]:
    """The members that are called like images, in their order; links, devices and names that lead out are refused.

    A refused member is an item that fails, as any damaged image. checking: told of a tar that is hashed first.
    Raises: FeatureError if the tar is missing, damaged, compressed, or not what its md5 says.
    """
    try:
        size = Path(path).stat().st_size
        _check_md5(Path(path), checking)
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                # The list of all members would grow with the tar.
                tar.members = []  # type: ignore[attr-defined]
                if _is_image(member):
                    yield _item(path, member, rule, size)
            _check_end(tar, path, size)
    except OSError as error:
        raise FeatureError(f"{path}: {error.strerror or error}") from error
    except (tarfile.TarError, ValueError, RecursionError, MemoryError) as error:
        raise FeatureError(f"{path}: not a whole, uncompressed tar ({error}); fetch it again, or gunzip it") from error


def _is_image(member: tarfile.TarInfo) -> bool:
    name = PurePosixPath(member.name)
    return name.suffix.lower() in SUFFIXES and not member.isdir() and not name.name.startswith(".")


def _item(path: str, member: tarfile.TarInfo, rule: IdRule, tar_size: int) -> Item:
    refusal = ""
    if not member.isreg() or member.sparse is not None:
        refusal = "refused: a link, a device or a sparse file in a tar, not plain bytes"
    elif member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        refusal = "refused: its name leads out of the tar"
    elif member.size > MAX_BYTES:
        refusal = f"larger than {MAX_BYTES >> 20} MiB"
    elif member.offset_data + member.size > tar_size:
        raise tarfile.ReadError(f"{member.name} is cut")
    source = f"{as_text(path)}:{as_text(member.name)}"
    place = os.path.abspath(path)  # noqa: PTH100  # as given, links and all
    return Item(image_id(member.name, rule), source, place, member.offset_data, member.size, refusal)


def _check_end(tar: tarfile.TarFile, path: str, size: int) -> None:
    """`tarfile` takes a header that it cannot read for the end: only zeros, or no byte more, are one."""
    at = tar.offset
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(at)
        block = file.read(tarfile.BLOCKSIZE)
    if at > size or block.strip(b"\0"):
        raise tarfile.ReadError(f"no header at byte {at}")


def _check_md5(path: Path, checking: Callable[[str], None]) -> None:
    notes = path.with_name(f"md5.{path.stem}.txt")
    if not notes.is_file():
        return
    found = re.match(r"\s*([0-9a-fA-F]{32})\b", notes.read_text(encoding="ascii", errors="replace")[:4096])
    if not found:
        raise FeatureError(f"{notes}: wanted an md5 of {path.name}; fetch it again, or remove it to go without")
    checking(str(path))
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != found[1].lower():
        raise FeatureError(f"{path}: damaged: wanted md5 {found[1].lower()}, got {digest.hexdigest()}; fetch it again")
