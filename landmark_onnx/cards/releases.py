"""Which card a file belongs to: the one that its user names, else the one that its file or folder is called after."""

from pathlib import Path

from landmark_onnx.cards.catalogue import card, cards
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import CardError, UnknownModelError

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

TORCH_HEAD = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""How a file of torch's older form begins: the pickle of its magic number."""

PROGRAM_FOLDER = "infer_model"
"""Paddle's usual name of a binary model's folder, which says nothing of the model."""


def said_card(name: str | None, given: ModelCard | None, file: Path | None) -> ModelCard | None:
    """The card that a user names, by a name, by the card that was read from `file`, or not at all.

    Raises: CardError if the two disagree, UnknownModelError.
    """
    if given and name and name != given.name:
        raise CardError(f"{file}: the card is called {given.name!r}, not {name!r}")
    return given or (card(name) if name else None)


def card_of(path: Path, said: ModelCard | None) -> ModelCard:
    """The card of a tar, a folder or a program file. said: the one that its user names, if any.

    Raises: UnknownModelError if its name is that of no card.
    """
    if said:
        return said
    if name := recognised(path):
        return card(name)
    raise UnknownModelError(f"{path}: which model is it? Give its name; there are: {', '.join(cards())}")


def recognised(path: Path) -> str | None:
    """The model that a tar, a folder or a program file is called after, None if no card is called so.

    NAME, or NAME and anything behind a dot; the longest name fits best. Where a file's own name says nothing, that of
    its folder counts, and where a folder is called `infer_model`, the one around it.
    """
    places = [path.absolute()]
    if path.is_file():
        places.append(places[0].parent)
    if places[-1].name == PROGRAM_FOLDER:
        places.append(places[-1].parent)
    return next((name for place in places if (name := _called(place.name))), None)


def releases_in(folder: Path) -> list[tuple[str, Path]]:
    """Each model and its release in `folder`: a tar rather than a folder, and of several the one of the shortest name.

    Raises: OSError if the folder cannot be read.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), len(path.name), path.name)):
        if not (path.is_dir() or path.name.endswith(TAR_ENDINGS)):
            continue
        if name := _called(path.name):
            found.setdefault(name, path)
    return sorted(found.items())


def _called(file: str) -> str | None:
    fitting = [name for name in cards() if file == name or file.startswith(f"{name}.")]
    return max(fitting, key=len, default=None)
