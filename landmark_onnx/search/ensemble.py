"""What the vectors of an index are made of: models, weights, L2, concatenation, PCA whitening, L2 again."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from landmark_onnx.embedding.manifest import ModelIdentity
from landmark_onnx.errors import SearchError
from landmark_onnx.files.sealed import write_sealed
from landmark_onnx.files.structure import DocumentError, FileName, Within, structure
from landmark_onnx.search.sealed import read_sealed
from landmark_onnx.search.whitening import FLOOR, Whitening, fit_whitening, load_whitening
from landmark_onnx.types import Float32

Vectors: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Model name -> (N, D) embeddings of the same N images."""

FILE = "ensemble.json"
FORMAT = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A model of an ensemble. weight: what its unit vectors are multiplied by; in scores it counts squared."""

    model: ModelIdentity
    weight: Annotated[float, Within(0, over=True)] = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Recipe:
    """An ensemble as JSON has it. whitening: the name of a file beside."""

    members: tuple[Member, ...]
    whitening: FileName | None


@dataclasses.dataclass(frozen=True, slots=True)
class Ensemble:
    """Call it with embeddings of its members: each L2-normalised, weighted, concatenated, whitened, L2-normalised.

    Without whitening, inner products of results are the means of the members' cosines, weighted by weight squared.
    Raises: SearchError without members, for two of one name, or a weight that is not positive and finite.
    """

    members: tuple[Member, ...]
    whitening: Whitening | None = None

    def __post_init__(self) -> None:
        names = [member.model.name for member in self.members]
        if not names or len(set(names)) != len(names):
            raise SearchError(f"an ensemble needs one or more models, each once; got {', '.join(names) or 'none'}")
        for member in self.members:
            if not (np.isfinite(member.weight) and member.weight > 0):
                raise SearchError(f"{member.model.name}: wanted a weight over 0, got {member.weight}")
        if self.whitening and len(self.whitening.mean) != self.width:
            raise SearchError(f"a whitening of {len(self.whitening.mean)} values for an ensemble of {self.width}")

    def __call__(self, vectors: Vectors) -> Float32:
        """Embeddings -> (N, dim) float32 of norm 1; an embedding of zeros stays one.

        Raises: SearchError for a missing member, another dimension or a value that is not finite.
        """
        rows = self.concatenate(vectors)
        if self.whitening:
            rows = self.whitening(rows)
        return unit(rows).astype(np.float32)

    @property
    def width(self) -> int:
        """Values of a concatenated row, before whitening."""
        return sum(member.model.dim for member in self.members)

    @property
    def dim(self) -> int:
        """Values of a finished row."""
        return self.whitening.projection.shape[1] if self.whitening else self.width

    @property
    def models(self) -> tuple[ModelIdentity, ...]:
        """The members' models."""
        return tuple(member.model for member in self.members)

    def concatenate(self, vectors: Vectors) -> npt.NDArray[np.float64]:
        """Embeddings -> (N, width) float64: what whitening is fitted to, and takes."""
        parts = []
        for member in self.members:
            rows = np.asarray(vectors.get(member.model.name, np.empty(0)))
            if rows.ndim != 2 or rows.shape[1] != member.model.dim:
                raise SearchError(f"{member.model.name}: wanted embeddings (N, {member.model.dim}), got {rows.shape}")
            if not np.isfinite(rows).all():
                raise SearchError(f"{member.model.name}: an embedding has values that are not finite")
            parts.append(unit(rows) * member.weight)
        return np.concatenate(parts, axis=1)

    def fit(self, batches: Iterable[Vectors], dims: int, *, floor: float = FLOOR) -> "Ensemble":
        """The same members with a whitening to `dims`, fitted to all batches. Raises: SearchError."""
        return dataclasses.replace(
            self, whitening=fit_whitening((self.concatenate(batch) for batch in batches), dims, floor=floor)
        )

    def check(self, models: Sequence[ModelIdentity], ours: str, theirs: str) -> None:
        """Raises: SearchError unless each member is among `models`: the same file, precision and preprocessing.

        ours, theirs: what the error calls the two sides.
        """
        found = {model.name: model for model in models}
        for wanted in self.models:
            got = found.get(wanted.name)
            if got is None:
                raise SearchError(
                    f"{theirs}: no embeddings of {wanted.name}, which {ours} has; there: {', '.join(found)}"
                )
            for what in _DIFFERENCES:
                one, other = (str(getattr(model, what))[:12] for model in (wanted, got))
                if getattr(wanted, what) != getattr(got, what):
                    remedy = f"give --precision {one}" if what == "precision" else "embed with one model file and card"
                    raise SearchError(
                        f"{wanted.name}: {ours} has {_DIFFERENCES[what]} {one}, {theirs} has {other}: "
                        f"their embeddings do not compare; {remedy}"
                    )

    def describe(self) -> str:
        """What a row is, in a few words."""
        members = " + ".join(
            member.model.name + (f" x {member.weight:g}" if member.weight != 1 else "") for member in self.members
        )
        if not self.whitening:
            return f"{self.dim} values: {members}"
        return f"{self.dim} values: {members}, PCA {self.width} to {self.dim} ({self.explained:.1%} of the variance)"

    @property
    def explained(self) -> float | None:
        """Share of the variance that whitening keeps, None without."""
        return float(self.whitening.explained.sum()) if self.whitening else None

    def facts(self) -> dict[str, Any]:
        """The same as JSON-ready data for people; `to_json` is for programs."""
        models = [
            f"{member.model.name} x {member.weight:g}, {member.model.dim} values, file {member.model.sha256[:12]}, "
            f"preprocessing {member.model.preprocess[:12]}"
            for member in self.members
        ]
        return {"dim": self.dim, "models": models, "pca_from": self.width if self.whitening else None} | {
            "pca_explained": self.explained
        }

    def to_json(self, folder: Path) -> dict[str, Any]:
        """JSON-ready data; a whitening goes into a file in `folder`, which they name."""
        return {
            "members": [dataclasses.asdict(member) for member in self.members],
            "whitening": self.whitening.save(folder) if self.whitening else None,
        }

    @classmethod
    def from_json(cls, data: Any, folder: Path) -> Self:
        """What `to_json` wrote. Raises: DocumentError; SearchError for a whitening that is missing or damaged."""
        recipe = structure(_Recipe, data, "ensemble")
        whitening = load_whitening(folder / recipe.whitening) if recipe.whitening else None
        try:
            return cls(recipe.members, whitening)
        except SearchError as error:
            raise DocumentError(f"ensemble: {error}") from error

    def save(self, folder: Path) -> Path:
        """Write `ensemble.json`, and a whitening beside it; its path."""
        folder.mkdir(parents=True, exist_ok=True)
        write_sealed(folder / FILE, FORMAT, self.to_json(folder))
        return folder / FILE


_DIFFERENCES = {"precision": "precision", "sha256": "model file", "dim": "dimension", "preprocess": "preprocessing"}
"""Precision first: its file is another one too."""


def load_ensemble(folder: Path) -> Ensemble:
    """What `Ensemble.save` wrote into `folder`. Raises: SearchError if it is missing or damaged."""
    with read_sealed(folder / FILE, FORMAT, "save the ensemble again") as facts:
        return Ensemble.from_json(facts, folder)


def unit(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(N, D) -> (N, D) float64, each row over its L2 norm; rows of zeros stay as they are."""
    rows = np.asarray(rows, np.float64)
    norms = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return rows / np.where(norms > 0, norms, 1)
