"""The cards there are: the shipped ones and the user's, by name."""

import functools
import os
import stat
import types
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import platformdirs

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import CardError, UnknownModelError
from landmark_onnx.files.documents import MAX_TOML_BYTES, parse_toml, read_bytes
from landmark_onnx.files.structure import DocumentError

PACKAGE = "landmark_onnx_models"


CARDS_VARIABLE = "LANDMARK_ONNX_CARDS"


def read_card(path: Path) -> ModelCard:
    """Read one TOML file. Raises: CardError that names the file and the key."""
    return _parsed(card_data(path), path)


def card_data(path: Path) -> bytes:
    """What is in the file of a card; a pipe has it only once. Raises: CardError."""
    try:
        return read_bytes(path, MAX_TOML_BYTES, pipes=True)
    except OSError as error:
        raise CardError(f"{path}: {error.strerror}") from error
    except DocumentError as error:
        raise CardError(f"{path}: {error}") from error


def cards() -> Mapping[str, ModelCard]:
    """Every card by name, in alphabetical order: the shipped ones, and the user's of `users_folder()`.

    Raises: CardError that names the user's file, if it is malformed or takes the name of a shipped card.
    """
    return _merged(tuple(map(_version, _users_files())))


def card(name: str) -> ModelCard:
    """The card called `name`. Raises: UnknownModelError that lists the names there are.

    >>> card("res152_arcmargin").preprocess.size
    448
    """
    try:
        return cards()[name]
    except KeyError:
        raise UnknownModelError(f"no model is called {name!r}; there are: {', '.join(cards())}") from None


@functools.cache
def shipped_cards() -> Mapping[str, ModelCard]:
    """The cards that come with this package, by name, in alphabetical order: the original's and the ready ones."""
    return types.MappingProxyType(dict(sorted({**original_cards(), **_packaged(ready_folder())}.items())))


@functools.cache
def original_cards() -> Mapping[str, ModelCard]:
    """The cards of the models that Baidu released in 2019, by name, in alphabetical order."""
    return types.MappingProxyType(_packaged(resources.files(PACKAGE)))


def ready_folder() -> Path:
    """Where the ready cards are, and beside them the class names that cards may want."""
    return Path(str(resources.files(PACKAGE) / "ready"))


def _packaged(folder: Traversable) -> dict[str, ModelCard]:
    found: dict[str, ModelCard] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            card = ModelCard.from_dict(parse_toml(entry.read_bytes()), entry.name)
            if entry.name != f"{card.name}.toml":
                raise CardError(f"{entry.name}: name: the card is called {card.name!r}; wanted the file's name")
            found[card.name] = card
    return found


def users_folder() -> Path:
    """Where the user's cards are: $LANDMARK_ONNX_CARDS, or `landmark-onnx/cards` in the platform's config folder."""
    chosen = os.environ.get(CARDS_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return platformdirs.user_config_path("landmark-onnx", appauthor=False) / "cards"


def users_card(data: bytes, path: Path) -> ModelCard:
    """A card that is to be one of the user's. Raises: CardError, also if its name is a shipped card's."""
    card = _parsed(data, path)
    if card.name in shipped_cards():
        raise CardError(f"{path}: name: {card.name!r} is the name of a shipped card; give yours another one")
    return card


def _parsed(data: bytes, path: Path) -> ModelCard:
    try:
        table = parse_toml(data)
    except DocumentError as error:
        raise CardError(f"{path}: {error}") from error
    return ModelCard.from_dict(table, str(path))


def _users_files() -> list[Path]:
    folder = users_folder()
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".toml" and not path.name.startswith("."))
    except FileNotFoundError as error:
        if os.environ.get(CARDS_VARIABLE):
            raise CardError(f"{folder}: {CARDS_VARIABLE} names a folder that is not there") from error
        return []
    except OSError as error:
        raise CardError(f"{folder}: {error.strerror}") from error


def _version(path: Path) -> tuple[Path, int, int]:
    """What changes when the file does, so that the cards are read again then, and only then."""
    try:
        status = path.stat()
    except OSError as error:
        raise CardError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CardError(f"{path}: not a plain file: nothing else may be called like a card in this folder")
    return path, status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=1)
def _merged(versions: tuple[tuple[Path, int, int], ...]) -> Mapping[str, ModelCard]:
    found = dict(shipped_cards())
    for path, *_ in versions:
        card = users_card(card_data(path), path)
        if path.name != f"{card.name}.toml":
            raise CardError(f"{path}: name: the card is called {card.name!r}; wanted the file to be {card.name}.toml")
        found[card.name] = card
    return types.MappingProxyType(dict(sorted(found.items())))
