"""Model cards: every fact of a model, declared once as TOML, validated once, used by every layer."""

import dataclasses
import functools
import os
import stat
import types
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

import platformdirs

from landmark_onnx.errors import CardError, UnknownModelError
from landmark_onnx.files.documents import MAX_TOML_BYTES, parse_toml, read_bytes
from landmark_onnx.files.structure import DocumentError, Matches, Within, structure
from landmark_onnx.types import INPUTS, OUTPUTS, Task

T = TypeVar("T")

PACKAGE = "landmark_onnx_models"
CARDS_VARIABLE = "LANDMARK_ONNX_CARDS"
MAX_SIDE = 16384
"""Pixels; with what is beyond, no image fits into memory."""

Side: TypeAlias = Annotated[int, Within(1, MAX_SIDE)]
OptionalSide: TypeAlias = Annotated[int, Within(0, MAX_SIDE)]
Share: TypeAlias = Annotated[float, Within(0, 1)]
Moderate: TypeAlias = Annotated[float, Within(-1e6, 1e6)]
Positive: TypeAlias = Annotated[float, Within(1e-6, 1e6)]
"""Of what is computed in float32: neither it nor its inverse gets infinite."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the released files are and how export rebuilds the network.

    network: a name in `landmark_onnx_export.networks.build.NETWORKS`, or "program" for a binary model that ships its own. A
    model that comes as ONNX needs none.
    labels: file that maps class index to name, if there is one: inside the release; of a user's card also beside it or
    beside the model.
    """

    network: str = "program"
    url: str = ""
    sha256: str = ""
    labels: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How a BGR uint8 image becomes the network's input. `landmark_onnx.inference.preprocess` says what each rule computes.

    size: pixels of the short side, or of both sides for the "exact" rule; width: of that, where it is not square.
    multiple, min_side: each side is floored to a multiple, but not below min_side pixels ("short_side_floor"), or
    padded to one ("short_side_capped").
    max_ratio: images longer than this get a smaller target; 0 for no limit.
    max_side: cap of the long side in pixels, for "short_side_capped".
    crop: side of the centre crop in pixels; 0 for none. mean, std: of the colour-ordered channels, in units of 0..1.
    """

    resize: Literal["short_side_floor", "short_side_capped", "exact"]
    size: Side
    interpolation: Literal["nearest", "linear", "cubic", "area", "lanczos4"]
    width: OptionalSide = 0
    multiple: Annotated[int, Within(1, 4096)] = 1
    min_side: Annotated[int, Within(1, 4096)] = 1
    max_ratio: Annotated[float, Within(0, MAX_SIDE)] = 0.0
    max_side: OptionalSide = 0
    crop: OptionalSide = 0
    colour: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[Moderate, Moderate, Moderate] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Postprocess:
    """What turns outputs into a result.

    normalise: divide embeddings by their L2 norm. softmax: the classifier answers logits, not probabilities.
    score, iou, keep: detection thresholds and the most boxes of an image.
    variances: scale of the box deltas dx, dy, dw, dh.
    """

    normalise: bool = False
    softmax: bool = False
    score: Share = 0.1
    iou: Share = 0.5
    keep: Annotated[int, Within(1, 1_000_000)] = 100
    variances: tuple[Moderate, Moderate, Moderate, Moderate] = (0.1, 0.1, 0.2, 0.2)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Published quality of the release. map100: mAP@100 on the original Kaggle 2019 ground truth."""

    public_map100: float | None = None
    private_map100: float | None = None
    map50: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model's facts. `inputs` and `outputs` map our tensor names to those in the ONNX file, where they differ."""

    name: Annotated[str, Matches(r"[A-Za-z0-9][\w.-]{0,99}", "letters, digits, '.', '_' and '-'")]
    task: Task
    summary: str
    preprocess: Preprocess
    source: Source = Source()
    licence: str = "not stated"
    postprocess: Postprocess = Postprocess()
    scores: Scores = Scores()
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], origin: str) -> Self:
        """Build and validate. Raises: CardError that names `origin` and the key.

        >>> preprocess = {"resize": "exact", "size": 224, "interpolation": "linear"}
        >>> table = {"name": "shops", "task": "retrieval", "summary": "shop fronts", "preprocess": preprocess}
        >>> ModelCard.from_dict(table, "shops.toml").input_names()
        ('image',)
        >>> ModelCard.from_dict(table | {"task": "search"}, "shops.toml")
        Traceback (most recent call last):
        landmark_onnx.errors.CardError: shops.toml: task: wanted one of 'retrieval', 'cls', 'det', got 'search'
        """
        try:
            card = structure(cls, table, origin)
        except DocumentError as error:
            raise CardError(str(error)) from None
        _check(card, origin)
        return card

    def to_dict(self) -> dict[str, Any]:
        """The card as JSON-ready data; `from_dict` reads it back."""
        return _without_none(dataclasses.asdict(self))

    def input_names(self) -> tuple[str, ...]:
        """The ONNX file's input names, in the order of `types.INPUTS`."""
        return tuple(self.inputs.get(name, name) for name in INPUTS[self.task])

    def file_inputs(self, feeds: Mapping[str, T]) -> dict[str, T]:
        """What is fed under our names, under the ONNX file's."""
        return {theirs: feeds[ours] for ours, theirs in zip(INPUTS[self.task], self.input_names(), strict=True)}

    def output_names(self) -> tuple[str, ...]:
        """The ONNX file's output names, in the order of `types.OUTPUTS`."""
        return tuple(self.outputs.get(name, name) for name in OUTPUTS[self.task])


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
    """The cards that come with this package, by name, in alphabetical order."""
    found: dict[str, ModelCard] = {}
    for entry in sorted(resources.files(PACKAGE).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            card = ModelCard.from_dict(parse_toml(entry.read_bytes()), entry.name)
            if card.name in found or entry.name != f"{card.name}.toml":
                raise CardError(f"{entry.name}: the name {card.name!r} is taken or differs from the file's")
            found[card.name] = card
    return types.MappingProxyType(found)


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
    """What changes when the file does, so that the cards are read anew then, and only then."""
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


def _check(card: ModelCard, origin: str) -> None:
    """The rules that no annotation can state."""
    prep = card.preprocess
    # Long images come out smaller where max_ratio is set; else every short side is the floored size.
    floored = 0 if prep.max_ratio else prep.size // prep.multiple * prep.multiple
    shortest = min(prep.size, prep.width or prep.size) if prep.resize == "exact" else max(prep.min_side, floored)
    rules = {
        "preprocess: width: wanted for the exact resize alone": prep.resize == "exact" or not prep.width,
        "preprocess: crop: wanted at most the shortest side that the resize leaves": prep.crop <= shortest,
        "preprocess: max_ratio: wanted 0 or 1 and more": prep.max_ratio == 0 or prep.max_ratio >= 1,
        "preprocess: max_side: wanted at least size for this resize": (
            prep.max_side >= prep.size if prep.resize == "short_side_capped" else prep.max_side == 0
        ),
        "preprocess: resize: wanted short_side_capped for task det alone": (
            (prep.resize == "short_side_capped") == (card.task == "det")
        ),
        f"inputs: wanted keys among {', '.join(INPUTS[card.task])}": set(card.inputs) <= set(INPUTS[card.task]),
        f"outputs: wanted keys among {', '.join(OUTPUTS[card.task])}": set(card.outputs) <= set(OUTPUTS[card.task]),
    }
    for rule, holds in rules.items():
        if not holds:
            raise CardError(f"{origin}: {rule}")


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }
