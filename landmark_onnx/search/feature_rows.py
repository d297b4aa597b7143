"""Folders of features as one stream of rows, and the ensemble that they are asked to be."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from landmark_onnx.embedding.feature_folder import Batch, Features
from landmark_onnx.errors import SearchError
from landmark_onnx.search.ensemble import Ensemble, Member

ROWS_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Feed:
    """The rows of several folders, one folder after the other; their sources as paths that hold from anywhere."""

    folders: Sequence[Features]

    @property
    def count(self) -> int:
        """Rows in all."""
        return sum(folder.count for folder in self.folders)

    def check(self, ensemble: Ensemble, name: str) -> None:
        """Raises: SearchError unless each folder has every model of the ensemble called `name`."""
        for folder in self.folders:
            ensemble.check(folder.models, name, str(folder.folder))

    def batches(
        self, ensemble: Ensemble, on_bad: Callable[[str, str], None] = lambda name, reason: None
    ) -> Iterator[Batch]:
        """The rows; `on_bad` gets id and reason of those where a value of the ensemble's models is not finite."""
        for folder in self.folders:
            for batch in folder.batches(ROWS_AT_ONCE):
                fine = np.ones(len(batch.ids), bool)
                for model in ensemble.models:
                    finite = np.isfinite(batch.vectors[model.name]).all(axis=1)
                    for at in np.flatnonzero(fine & ~finite).tolist():
                        on_bad(batch.ids[at], f"its embedding by {model.name} has a value that is not finite")
                    fine &= finite
                yield _kept(batch, np.flatnonzero(fine).tolist(), folder.manifest.base)


def choose(features: Features, names: Sequence[str] = (), weights: Sequence[float] = ()) -> Ensemble:
    """An ensemble of the models called `names`, by default all of the folder's, in its order.

    weights: one each, or none for 1. Raises: SearchError for a model that is not there, or another number of weights.
    """
    there = {model.name: model for model in features.models}
    names = names or tuple(there)
    if missing := [name for name in names if name not in there]:
        raise SearchError(f"{features.folder}: no embeddings of {', '.join(missing)}; there: {', '.join(there)}")
    if weights and len(weights) != len(names):
        raise SearchError(f"wanted a weight for each of {', '.join(names)}, got {len(weights)}")
    return Ensemble(
        tuple(Member(there[name], weight) for name, weight in zip(names, weights or [1.0] * len(names), strict=True))
    )


def _kept(batch: Batch, rows: list[int], base: str) -> Batch:
    whole = len(rows) == len(batch.ids)
    return Batch(
        [batch.ids[at] for at in rows],
        # Path would tidy up the names of a tar's members too.
        [os.path.join(base, batch.sources[at]) for at in rows],  # noqa: PTH118
        {name: vectors if whole else vectors[rows] for name, vectors in batch.vectors.items()},
    )
