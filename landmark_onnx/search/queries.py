"""What is asked of an index: images to embed, or rows of features, as vectors of the index's ensemble."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from landmark_onnx.embedding.folder import Features
from landmark_onnx.embedding.identity import identify
from landmark_onnx.model import Retriever
from landmark_onnx.results import Embedding, Failure
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.feed import Feed
from landmark_onnx.search.neighbours import Float32

AT_ONCE = 256
"""Queries that are searched together: exact search is fast for many, and answers should not wait for all."""


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
) -> Iterator[Queries | Failure]:
    """Embed images by every model of the ensemble, in their order; one that fails yields a `Failure`.

    retrievers: by the name of the member's model; `check_retrievers` says whether they fit.
    """
    remaining = iter(images)
    while chunk := list(itertools.islice(remaining, AT_ONCE)):
        answers = {name: list(retriever.stream(chunk)) for name, retriever in retrievers.items()}
        failures = [
            next((each for each in results if isinstance(each, Failure)), None)
            for results in zip(*answers.values(), strict=True)
        ]
        for failed, group in itertools.groupby(range(len(chunk)), key=lambda at: failures[at] is not None):
            rows = list(group)
            if failed:
                yield from (failure for failure in (failures[at] for at in rows) if failure)
            else:
                names = [chunk[at] for at in rows]
                vectors = {name: _stacked(results, rows) for name, results in answers.items()}
                yield Queries(names, names, ensemble(vectors))


def _stacked(results: Sequence[Embedding | Failure], rows: Sequence[int]) -> Float32:
    return np.stack([each.vector for each in (results[at] for at in rows) if not isinstance(each, Failure)])


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


def joined(parts: Iterable[Queries | Failure]) -> Iterator[Queries | Failure]:
    """All failures, then all queries as one, if there are any."""
    kept: list[Queries] = []
    for part in parts:
        if isinstance(part, Failure):
            yield part
        else:
            kept.append(part)
    if kept:
        names = [name for part in kept for name in part.names]
        sources = [source for part in kept for source in part.sources]
        vectors = np.concatenate([part.vectors for part in kept])
        yield Queries(names, sources, vectors, are_ids=all(part.are_ids for part in kept))


def check_retrievers(ensemble: Ensemble, retrievers: Mapping[str, Retriever], name: str) -> None:
    """Raises: SearchError unless each loaded model is the one that the index `name` was made with."""
    ensemble.check([identify(retriever) for retriever in retrievers.values()], name, "the query's model")
