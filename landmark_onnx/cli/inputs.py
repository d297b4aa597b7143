"""Image arguments -> paths of images, one by one: files, patterns, folders, and a list on standard input."""

import glob
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from landmark_onnx.errors import ImageError
from landmark_onnx.files.lists import STDIN, read_list
from landmark_onnx.images.walk import Walk

IMAGES_HELP = "Files, folders (searched in depth, in order), 'patterns*.jpg', or - for a list on standard input."

ImageArguments = Annotated[list[str], typer.Argument(metavar="IMAGE", help=IMAGES_HELP, show_default=False)]


def expand(
    arguments: Sequence[str], on_note: Callable[[str], None] = lambda text: None, *, follow_links: bool = False
) -> Iterator[str]:
    """The images that `arguments` mean, in their order; folders and standard input are read as the images are used.

    A file need not exist: opening it says so. In a folder the files come before the sub-folders, each sorted;
    other suffixes than an image's, hidden names and, unless `follow_links`, linked folders are passed over. Lines of
    standard input are taken as they are. on_note: gets what folders have beside images, at the end.
    Raises: ImageError for a folder without any image, at once; and for no image at all, when that is known.
    """
    paths = [path for argument in arguments for path in matches(argument)]
    for path in paths:
        walk = Walk(follow_links=follow_links)
        if path != STDIN and Path(path).is_dir() and next(walk(path), None) is None:
            raise ImageError(": ".join(filter(None, [path, "no image in this folder", walk.words()])))
    walk = Walk(follow_links=follow_links)
    return _some(itertools.chain.from_iterable(_images(path, walk) for path in paths), walk, on_note)


def _some(images: Iterator[str], walk: Walk, on_note: Callable[[str], None]) -> Iterator[str]:
    first = next(images, None)
    if first is None:
        raise ImageError("no image was given")
    yield first
    yield from images
    if words := walk.words():
        on_note(words)


def matches(argument: str) -> list[str]:
    """A pattern that the shell has left alone -> what it matches; anything else, and a pattern in vain -> itself."""
    if argument == STDIN or not glob.has_magic(argument) or Path(argument).exists():
        return [argument]
    matches = glob.glob(argument, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute pattern
    return sorted(matches) or [argument]


def _images(path: str, walk: Walk) -> Iterator[str]:
    if path == STDIN:
        return read_list(STDIN)
    return walk(path) if Path(path).is_dir() else iter([path])
