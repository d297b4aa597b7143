"""Arguments -> the images they mean, one by one: files, folders, tars, lists of these."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from landmark_onnx.embedding.item import Item
from landmark_onnx.embedding.tars import tar_items
from landmark_onnx.errors import FeatureError
from landmark_onnx.files.lists import STDIN, read_list
from landmark_onnx.images.ids import IdRule, as_text, image_id
from landmark_onnx.images.walk import SUFFIXES, Walk

TAR = ".tar"
LISTS = frozenset({".txt", ".lst", ".list"})


def list_items(
    arguments: Iterable[str],
    rule: IdRule = IdRule.AUTO,
    *,
    walk: Walk | None = None,
    on_stage: Callable[[str], None] = lambda path: None,
) -> Iterator[Item]:
    """The images that `arguments` mean, in their order.

    A folder is searched in depth for images and tars. A .tar is read by its members. A .txt, .lst or .list, or - for
    standard input, holds one path a line, of an image or a tar, from the working folder. Anything else is an image,
    there or not. walk: searches the folders, and counts what it passes over.
    on_stage: each tar that is hashed against its md5.
    Raises: TableError for a list, FeatureError for a tar or a folder that cannot be read, or a folder without an image.
    """
    walk = walk or Walk()
    for argument in arguments:
        if argument == STDIN or (Path(argument).suffix.lower() in LISTS and not Path(argument).is_dir()):
            for path in read_list(argument):
                yield from _file(path, path, rule, on_stage, walk)
        elif Path(argument).is_dir():
            yield from _folder(argument, walk, rule, on_stage)
        else:
            yield from _file(argument, argument, rule, on_stage, walk)


def _folder(folder: str, walk: Walk, rule: IdRule, on_stage: Callable[[str], None]) -> Iterator[Item]:
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise FeatureError(f"{folder}: {error.strerror}") from error
    empty = True
    for path in walk(folder, SUFFIXES | {TAR}):
        empty = False
        yield from _file(path, Path(path).relative_to(folder).as_posix(), rule, on_stage, walk)
    if empty:
        raise FeatureError(": ".join(filter(None, [folder, "no image and no .tar in this folder", walk.words()])))


def _file(path: str, name: str, rule: IdRule, on_stage: Callable[[str], None], walk: Walk) -> Iterator[Item]:
    if path.lower().endswith(TAR):
        return tar_items(path, rule, on_stage, walk)
    return iter([Item(image_id(name, rule), as_text(path), os.path.abspath(path))])  # noqa: PTH100  # links stay
