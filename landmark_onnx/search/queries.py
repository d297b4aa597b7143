"""What is asked of an index: images to embed, or rows of features, as vectors of the index's ensemble."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from landmark_onnx.embedding.feature_folder import Features
from landmark_onnx.embedding.identity import identify
from landmark_onnx.errors import SearchError
from landmark_onnx.model import Retriever
from landmark_onnx.results import Failure
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.feature_rows import Feed
from landmark_onnx.search.pace import grouped, in_step
from landmark_onnx.types import Float32

AT_ONCE = 256
"""Queries that are searched together at most: exact search is fast for many."""


@dataclasses.dataclass(frozen=True, slots=True)
class Queries:
    """Some queries. names: (Q,) texts. sources: where their images are. vectors: (Q, D) float32 of norm 1.

    are_ids: the names are ids, as features have them, and not the paths of images.
    """

    names: list[str]
    sources: list[str]
    vectors: Float32
    are_ids: bool = False


def embedded(
    images: Iterable[str], ensemble: Ensemble, retrievers: Mapping[str, Retriever]
) -> Iterator[Queries | Failure | None]:
    """Embed images by every model of the ensemble, in their order; one that fails yields a `Failure`.

    Those that came while the last were searched for are searched together. None: all are answered, and `images` is
    silent. retrievers: by the name of the member's model; `check_retrievers` says whether they fit.
    """
    for group in grouped(in_step(list(retrievers.values()), images), AT_ONCE):
        for failed, rows in itertools.groupby(group, key=lambda row: _failure(row) is not None):
            if failed:
                yield from (failure for failure in map(_failure, rows) if failure)
            else:
                yield _queries(list(rows), ensemble, list(retrievers))
        if not group:
            yield None


def _failure(row: Sequence[Any]) -> Failure | None:
    return next((each for each in row if isinstance(each, Failure)), None)


def _queries(rows: Sequence[Sequence[Any]], ensemble: Ensemble, models: Sequence[str]) -> Queries:
    names = [row[0].image for row in rows]
    vectors = {name: np.stack([row[at].vector for row in rows]) for at, name in enumerate(models)}
    return Queries(names, names, ensemble(vectors))


def precomputed(features: Features, ensemble: Ensemble) -> Iterator[Queries | Failure]:
    """The rows of a folder of features; those that are not finite yield a `Failure` before the rows around them."""
    refused: list[Failure] = []
    feed = Feed([features])
    for batch in feed.batches(
        ensemble, lambda name, reason: refused.append(Failure(image=name, error=reason, id=name))
    ):
        yield from refused
        refused.clear()
        if batch.ids:
            yield Queries(list(batch.ids), list(batch.sources), ensemble(batch.vectors), are_ids=True)


def check_retrievers(ensemble: Ensemble, retrievers: Mapping[str, Retriever], name: str) -> None:
    """Raises: SearchError unless the loaded models are those that the index `name` was made with, and no others."""
    names = [model.name for model in ensemble.models]
    if unknown := [each for each in retrievers if each not in names]:
        raise SearchError(f"{name}: has no embeddings of {', '.join(unknown)}; it has {', '.join(names)}")
    ensemble.check([identify(retriever) for retriever in retrievers.values()], name, "the query's model")
