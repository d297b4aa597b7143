"""`features.json`: which models made a folder of features, from which list of images, and whether it is whole."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from landmark_onnx.errors import FeatureError
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.files.documents import VersionError, read_versioned
from landmark_onnx.files.structure import Count, DocumentError, Sha256, Within, structure
from landmark_onnx.precision import Precision

if TYPE_CHECKING:
    from landmark_onnx.cards.schema import ModelCard, Postprocess, Preprocess

FILE = "features.json"
VERSION = 2
MAX_SHARDS = 500_000
MAX_BYTES = 64 << 20
"""Of the manifest: enough for so many shards."""
ROW_COLUMNS = ("id", "source", "error")
"""The columns of each shard beside one for each model; no model may be called so, nor like the following."""
RECORDS = ("content", "stamp")
"""Columns of a shard that was made of images: SHA-256 of an image's bytes, and its file's time and size (`Item.stamp`).

They are null where an image could not be read.
"""
POSITION = "position"
"""Column of a shard of a `ListPart`: an image's place in the whole list, from 0."""

DType: TypeAlias = Literal["float16", "float32"]
Dim: TypeAlias = Annotated[int, Within(1, 2**24)]


@dataclasses.dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What makes embeddings comparable: those of two equal identities are of one space.

    name: of the card. sha256: the model file's seal. dim: values of a vector. preprocess: `card_digest` of the card.
    precision: what it computes in: a file of fp32 runs in bf16 too. Files that do not say it are older, and refused.
    """

    name: str
    sha256: str
    dim: Dim
    preprocess: str
    precision: Precision = "fp32"

    def describe(self) -> str:
        """The same for people, in a line."""
        return (
            f"{self.name}, {self.dim} values, file {self.sha256[:12]}, preprocessing {self.preprocess[:12]}, "
            f"{self.precision}"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ListPart:
    """Which part of a list of images: `number`, from 1, of `of`. rows: of the whole list, once it is known.

    An image is in the part that the SHA-256 of its id says, wherever it stands in the list.
    """

    number: Annotated[int, Within(1, 2**31)]
    of: Annotated[int, Within(1, 2**31)]
    rows: Count = 0

    def __post_init__(self) -> None:
        """Raises: FeatureError for a number beyond that of the parts."""
        if self.number > self.of:
            raise FeatureError(f"part {self}: wanted a number from 1 to {self.of}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, name: str) -> bool:
        """Whether the image of this id is in it."""
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8]) % self.of == self.number - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FeatureManifest:
    """The facts of a folder. inputs: SHA-256 of the list of images, the whole of it.

    Known once it is complete: failed, of `rows`; shard_sha256, of the contents of each shard (`shards.Footer`).
    base: the folder that sources are relative to, unless they are absolute; not known of older folders. damaged: what
    becomes of images that are cut or overwritten. recorded: whether its shards have RECORDS; not those of older
    folders, or of vectors that were there before. part: of the list, if the rows are not of the whole.
    """

    models: tuple[ModelIdentity, ...]
    dtype: DType
    shard_size: Annotated[int, Within(1, 2**31)]
    inputs: str
    rows: Count
    failed: Count = 0
    complete: bool = False
    shard_sha256: tuple[Sha256, ...] = ()
    base: str = ""
    damaged: Literal["refuse", "accept"] = "refuse"
    recorded: bool = False
    part: ListPart | None = None

    def __post_init__(self) -> None:
        """Raises: FeatureError for no model, two of one name or one called like another column, and too many shards."""
        names = [model.name for model in self.models]
        if not names:
            raise FeatureError("no model was given: features need at least one")
        for name in names:
            if names.count(name) > 1:
                raise FeatureError(f"two models are called {name!r}, and a folder has one column of each name")
            if name in (*ROW_COLUMNS, *RECORDS, POSITION):
                raise FeatureError(f"a model may not be called {name!r}: a column of the folder is; rename its card")
        if self.shards > MAX_SHARDS:
            raise FeatureError(f"{self.shards:,} files, at most {MAX_SHARDS:,}: choose a larger --shard-size")

    @property
    def shards(self) -> int:
        """How many files the rows are in."""
        return -(-self.rows // self.shard_size)

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The columns of its shards beside one for each model."""
        return ROW_COLUMNS + (RECORDS if self.recorded else ()) + ((POSITION,) if self.part else ())

    def rows_of(self, shard: int) -> int:
        """The rows of a shard: all have `shard_size` but the last."""
        return min(self.shard_size, self.rows - shard * self.shard_size)

    def differences(self, other: "FeatureManifest") -> list[str]:
        """Why work on `self` cannot go on as `other`: one phrase each, then and now."""
        then = {model.name: model for model in self.models}
        found = []
        if [model.name for model in self.models] != [model.name for model in other.models]:
            found.append(f"models: {', '.join(then)}; now {', '.join(model.name for model in other.models)}")
        for model in other.models:
            before = then.get(model.name, model)
            if before.sha256 != model.sha256 or before.dim != model.dim:
                found.append(f"{model.name}: file {before.sha256[:12]}; now {model.sha256[:12]}")
            if before.preprocess != model.preprocess:
                found.append(f"{model.name}: another preprocessing or normalisation")
            if before.precision != model.precision:
                found.append(f"{model.name}: --precision {before.precision}; now {model.precision}")
        for option, was, now in (
            ("--dtype", self.dtype, other.dtype),
            ("--shard-size", self.shard_size, other.shard_size),
            ("--damaged", self.damaged, other.damaged),
        ):
            if was != now:
                found.append(f"{option} {was}; now {now}")
        parts = [str(each.part and str(each.part)) for each in (self, other)]
        if parts[0] != parts[1]:
            found.append(f"--shard-of {parts[0]}; now {parts[1]}")
        if self.inputs != other.inputs:
            found.append(f"other images or ids: {self.rows:,}; now {other.rows:,}")
        return found

    def write(self, folder: Path) -> None:
        """Write the folder's manifest, whole or not at all."""
        with atomic_write(folder / FILE) as file:
            data = {"version": VERSION, **dataclasses.asdict(self)}
            file.write(json.dumps(data, indent=1).encode() + b"\n")


def read_manifest(folder: Path) -> FeatureManifest:
    """A folder's manifest. Raises: FeatureError if it is missing, damaged or of a version that is not ours."""
    path = folder / FILE
    try:
        return structure(FeatureManifest, read_versioned(path, "version", VERSION, limit=MAX_BYTES))
    except FileNotFoundError:
        raise FeatureError(f"{folder}: no {FILE}: not a folder of features; make one: landmark-onnx embed") from None
    except OSError as error:
        raise FeatureError(f"{path}: {error.strerror}") from error
    except VersionError as error:
        why = "does not say in which precision its models ran" if error.found == 1 else "is of another landmark-onnx"
        raise FeatureError(f"{path}: {error}: it {why}; rebuild it with landmark-onnx embed --restart") from error
    except DocumentError as error:
        raise FeatureError(f"{path}: damaged ({error}): embed again with --restart") from error


LATER = ("antialias", "rounding", "offset", "pad", "pad_place", "pool", "decoder")
"""Keys of a card that count where they are set: those made before there were such keys keep their digest."""


def card_digest(card: "ModelCard") -> str:
    """SHA-256 of what a card says of preprocessing and postprocessing, as hexadecimal digits."""
    facts = [_deciding(card.preprocess), _deciding(card.postprocess)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _deciding(rule: "Preprocess | Postprocess") -> dict[str, Any]:
    """What vectors depend on; `dimension` is a check alone."""
    defaults = {field.name: field.default for field in dataclasses.fields(rule)}
    found = {key: value for key, value in dataclasses.asdict(rule).items() if key != "dimension"}
    return {key: value for key, value in found.items() if key not in LATER or value != defaults[key]}
