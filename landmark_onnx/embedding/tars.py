"""The images in a tar, found by its headers and read where they lie: nothing is ever unpacked.

GLDv2 comes as `images_NNN.tar`, with `md5.images_NNN.txt` beside it: where that file is, the tar is checked against it.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from landmark_onnx.embedding.item import Item
from landmark_onnx.errors import FeatureError, shown
from landmark_onnx.files.tars import TarError, TarMember, members
from landmark_onnx.images.decode import MAX_BYTES
from landmark_onnx.images.ids import IdRule, as_text, image_id
from landmark_onnx.images.walk import SUFFIXES, Walk

_BLOCK = 1 << 20


def tar_items(path: str, rule: IdRule, on_stage: Callable[[str], None], walk: Walk) -> Iterator[Item]:
    """The members that are called like images, in their order; links, devices and names that lead out are refused.

    A refused member is an item that fails, as any damaged image. on_stage: a tar that is hashed first. walk:
    counts the other members.
    Raises: FeatureError if the tar is missing, damaged, compressed, or not what its md5 says.
    """
    try:
        _check_md5(Path(path), on_stage)
        with open(path, "rb") as file:  # noqa: PTH123
            for member in members(file):
                name = PurePosixPath(member.name)
                if member.kind == tarfile.DIRTYPE or name.name.startswith("."):
                    continue
                if name.suffix.lower() in SUFFIXES:
                    yield _item(path, member, rule)
                else:
                    walk.pass_over(member.name)
    except OSError as error:
        raise FeatureError(f"{path}: {error.strerror or error}") from error
    except TarError as error:
        raise FeatureError(f"{path}: not a whole, uncompressed tar ({error}); fetch it again, or gunzip it") from error


def _item(path: str, member: TarMember, rule: IdRule) -> Item:
    refusal = ""
    if member.odd:
        refusal = f"refused: {shown(member.odd)} in its header"
    elif member.kind not in tarfile.REGULAR_TYPES or member.sparse:
        refusal = "refused: a link, a device or a sparse file in a tar, not plain bytes"
    elif member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        refusal = "refused: its name leads out of the tar"
    elif member.size > MAX_BYTES:
        refusal = f"larger than {MAX_BYTES >> 20} MiB"
    source = f"{as_text(path)}:{as_text(member.name)}"
    place = os.path.abspath(path)  # noqa: PTH100  # as given, links and all
    return Item(image_id(member.name, rule), source, place, member.offset, max(member.size, 0), refusal)


def _check_md5(path: Path, on_stage: Callable[[str], None]) -> None:
    notes = path.with_name(f"md5.{path.stem}.txt")
    if not notes.is_file():
        return
    found = re.match(r"\s*([0-9a-fA-F]{32})\b", notes.read_text(encoding="ascii", errors="replace")[:4096])
    if not found:
        raise FeatureError(f"{notes}: wanted an md5 of {path.name}; fetch it again, or remove it to go without")
    on_stage(str(path))
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != found[1].lower():
        raise FeatureError(f"{path}: damaged: wanted md5 {found[1].lower()}, got {digest.hexdigest()}; fetch it again")
