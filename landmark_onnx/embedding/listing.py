"""Arguments -> the images they mean, one by one: files, folders, tars, lists of these."""

import dataclasses
import functools
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
    root: str | None = None,
    walk: Walk | None = None,
    on_stage: Callable[[str], None] = lambda path: None,
) -> Iterator[Item]:
    """The images that `arguments` mean, in their order.

    A folder is searched in depth for images and tars. A .tar is read by its members. A .txt, .lst or .list, or - for
    standard input, holds one path a line, of an image or a tar, from the working folder. Anything else is an image,
    there or not. root: the folder that a file's name for its id begins below, however it is given; by default the
    folder that was searched, and else the path as it is given. walk: searches the folders, and counts what it passes
    over. on_stage: each tar that is hashed against its md5.
    Raises: TableError for a list, FeatureError for a tar or a folder that cannot be read, a folder without an image,
    or a file that is not below `root`.
    """
    listing = _Listing(rule, _Root(root) if root is not None else None, walk or Walk(), on_stage)
    for argument in arguments:
        if argument == STDIN or (Path(argument).suffix.lower() in LISTS and not Path(argument).is_dir()):
            for path in read_list(argument):
                yield from listing.file(path, path)
        elif Path(argument).is_dir():
            yield from listing.folder(argument)
        else:
            yield from listing.file(argument, argument)


class _Root:
    """A folder that names begin below."""

    def __init__(self, folder: str) -> None:
        self._given = folder
        self._folder = os.path.abspath(folder)  # noqa: PTH100  # links stay
        self._real = os.path.realpath(folder)
        self._real_folder = functools.lru_cache(1024)(os.path.realpath)

    def name(self, path: str) -> str:
        """The path below it: as it is written, or as its folder is called without links. Raises: FeatureError."""
        place = Path(os.path.abspath(path))  # noqa: PTH100
        if place.is_relative_to(self._folder):
            return place.relative_to(self._folder).as_posix()
        place = Path(self._real_folder(str(place.parent)), place.name)
        if place.is_relative_to(self._real):
            return place.relative_to(self._real).as_posix()
        raise FeatureError(f"{path}: not below --root {self._given}; name a folder that holds all images")


@dataclasses.dataclass(frozen=True, slots=True)
class _Listing:
    """How files and folders become items."""

    rule: IdRule
    root: _Root | None
    walk: Walk
    on_stage: Callable[[str], None]

    def folder(self, folder: str) -> Iterator[Item]:
        """The images and tars in a folder."""
        try:
            os.scandir(folder).close()
        except OSError as error:
            raise FeatureError(f"{folder}: {error.strerror}") from error
        empty = True
        for path in self.walk(folder, SUFFIXES | {TAR}):
            empty = False
            yield from self.file(path, Path(path).relative_to(folder).as_posix())
        if empty:
            words = self.walk.words()
            raise FeatureError(": ".join(filter(None, [folder, "no image and no .tar in this folder", words])))

    def file(self, path: str, name: str) -> Iterator[Item]:
        """An image, or those in a tar. name: what its id is made of, unless there is a root."""
        if path.lower().endswith(TAR):
            return tar_items(path, self.rule, self.on_stage, self.walk)
        if self.root:
            name = self.root.name(path)
        return iter([Item(image_id(name, self.rule), as_text(path), os.path.abspath(path))])  # noqa: PTH100
