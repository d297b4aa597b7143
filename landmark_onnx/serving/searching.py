"""From the queries of a request to their neighbours: images, rows of an index, or vectors."""

import asyncio
import concurrent.futures
import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request

from landmark_onnx.inference.pipeline import Pipeline
from landmark_onnx.inference.requests import ImageOutcome
from landmark_onnx.results import Failure
from landmark_onnx.search.answers import Hit
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.index import Index
from landmark_onnx.search.rerank.state import Step
from landmark_onnx.serving.answering import AnsweredImage
from landmark_onnx.serving.asking import ask, client_of, note, seconds_of
from landmark_onnx.serving.indexed import chosen, indexed_row
from landmark_onnx.serving.live_index import Snapshot
from landmark_onnx.serving.payload import Payload, Upload
from landmark_onnx.serving.problems import ProblemError, pointer
from landmark_onnx.serving.query_steps import query_steps
from landmark_onnx.serving.schema import RequestOptions
from landmark_onnx.serving.schema_search import HowToSearch
from landmark_onnx.serving.search_stage import SearchStage, Wanted
from landmark_onnx.serving.service import Service
from landmark_onnx.serving.waiting import answered, withdrawing
from landmark_onnx.types import Float32

STAGE = SearchStage()
SOONEST = 1e-3
"""Seconds: a deadline that has passed is the scheduler's to refuse."""
UNIT = 1e-3
"""How far the length of a query's vector may be from 1."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What is asked of an index. top: how many neighbours. deadline: of the answer, as `time.monotonic` has it."""

    snapshot: Snapshot
    top: int
    deadline: float
    approximate: bool = False
    steps: tuple[Step, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SearchQuery:
    """A query and its vector, (D,) float32 of norm 1; None where its image has a problem."""

    image: AnsweredImage
    vector: Float32 | None


def plan_of(
    service: Service, request: Request, index: str | None, options: RequestOptions, *, top: int = 1
) -> SearchPlan:
    """Where and how to search. top: unless the options say it.

    Raises: ProblemError for an index that is not there, and for what it or a request cannot do.
    """
    snapshot = chosen(service, index)
    note(request, index=snapshot.name)
    deadline = time.monotonic() + seconds_of(service, options)
    if not isinstance(options, HowToSearch):
        return SearchPlan(snapshot=snapshot, top=top, deadline=deadline)
    steps = query_steps(options.steps)
    local = isinstance(snapshot.index, Index)
    if steps and (options.approximate or not local):
        why = "steps search exactly" if local else f"the vectors of index {snapshot.name} are in Qdrant: no steps"
        raise ProblemError("invalid", f"option {'approximate' if local else 'steps'}: {why}")
    if options.approximate and isinstance(snapshot.index, Index) and snapshot.index.manifest.approximate is None:
        raise ProblemError("invalid", f"option approximate: index {snapshot.name} has no approximate index")
    return SearchPlan(
        snapshot=snapshot, top=options.top, deadline=deadline, approximate=options.approximate, steps=steps
    )


async def queries_of(
    service: Service,
    request: Request,
    payload: Payload,
    options: RequestOptions,
    plan: SearchPlan,
    *,
    pipelines: Sequence[Pipeline[Any]],
) -> list[SearchQuery]:
    """The queries of a request, in its order. pipelines: what looks at images, those of the ensemble first.

    Raises: ProblemError, AdmissionError, DeadlineError, ClientDisconnect.
    """
    if payload.vectors is not None:
        rows = await asyncio.to_thread(_checked_vectors, payload.vectors, plan.snapshot.ensemble.dim, service)
        return [SearchQuery(_unseen(at, Upload("")), vector) for at, vector in enumerate(rows)]
    # Of an image of the index as a whole, the vector is known; of a part of it, it is not.
    sent = [at for at, upload in enumerate(payload.images) if upload.id is None or upload.crop]
    found: dict[int, SearchQuery] = {}
    if sent:
        part = dataclasses.replace(payload, images=tuple(_of_index(payload.images[at], plan) for at in sent))
        images = await ask(service, request, part, options, pipelines)
        numbered = [dataclasses.replace(image, position=at) for at, image in zip(sent, images, strict=True)]
        # Whitening takes milliseconds for each.
        found |= zip(sent, await asyncio.to_thread(_seen, numbered, plan.snapshot.ensemble), strict=True)
    for at, upload in enumerate(payload.images):
        if at not in found:
            found[at] = await asyncio.to_thread(_stored, service, at, upload, plan.snapshot)
    return [found[at] for at in range(len(payload.images))]


async def hits_of(
    service: Service, request: Request, plan: SearchPlan, queries: Sequence[SearchQuery]
) -> tuple[Mapping[int, Sequence[Hit]], float]:
    """Position of each query that has a vector -> its neighbours; and the seconds that it took.

    Raises: ProblemError, AdmissionError, DeadlineError, ClientDisconnect.
    """
    client = client_of(request)
    begun = time.monotonic()
    left = max(plan.deadline - begun, SOONEST)
    found = [(query.image, query.vector) for query in queries if query.vector is not None]
    # What a model has looked at has waited its turn: to refuse it now would throw that away.
    again = any(image.answers() for image, _ in found)
    futures: list[concurrent.futures.Future[Sequence[Hit] | Failure]] = []
    with withdrawing(service.searches, request, futures):
        for _, vector in found:
            wanted = Wanted(plan.snapshot, vector, plan.top, plan.approximate, plan.steps)
            futures.append(service.searches.submit_ready(STAGE, wanted, client=client, timeout=left, again=again))
        answers = await answered(request, futures) if futures else []
    hits: dict[int, Sequence[Hit]] = {}
    for position, answer in zip((image.position for image, _ in found), answers, strict=True):
        if isinstance(answer, Failure):
            # It is not of the request's making, and may name folders or a server.
            logger.error("a search in index %s failed: %s", plan.snapshot.name, answer.error)
            raise ProblemError("internal", "the search failed; the server's log has more")
        hits[position] = answer
    seconds = time.monotonic() - begun
    service.metrics.searched(plan.snapshot.name, "+".join(step.name for step in plan.steps), seconds)
    return hits, seconds


def stored_query(snapshot: Snapshot, name: str) -> SearchQuery:
    """An image of the index itself. Raises: ProblemError if it is not there."""
    return SearchQuery(_unseen(0, Upload("", id=name)), indexed_row(snapshot, name).vector)


def _of_index(upload: Upload, plan: SearchPlan) -> Upload:
    """An id without an index is one of the index that is searched."""
    if upload.id is None or upload.index:
        return upload
    return dataclasses.replace(upload, index=plan.snapshot.name)


def _stored(service: Service, position: int, upload: Upload, searched: Snapshot) -> SearchQuery:
    """An image of an index, by its row; one without a row has its own problem."""
    assert upload.id is not None
    try:
        source = chosen(service, upload.index) if upload.index else searched
        if source.name == searched.name:
            source = searched
        elif not _alike(source.ensemble, searched.ensemble):
            detail = f"index {source.name} has vectors of other models or whitening than index {searched.name}"
            raise ProblemError("invalid", f"{pointer('images', position)}: {detail}")
        query = stored_query(source, upload.id)
    except ProblemError as problem:
        return SearchQuery(AnsweredImage(position, upload, problem), None)
    return SearchQuery(_unseen(position, upload), query.vector)


def _alike(one: Ensemble, other: Ensemble) -> bool:
    """Whether vectors of one may be compared with those of the other."""
    files = [each.whitening.file if each.whitening else None for each in (one, other)]
    return one.members == other.members and files[0] == files[1]


def _seen(images: Sequence[AnsweredImage], ensemble: Ensemble) -> list[SearchQuery]:
    return [_embedded(image, ensemble) for image in images]


def _embedded(image: AnsweredImage, ensemble: Ensemble) -> SearchQuery:
    try:
        answers = image.answers()
    except ProblemError:
        return SearchQuery(image, None)
    names = [model.name for model in ensemble.models]
    rows: dict[str, Any] = {name: answers[at].vector[None] for at, name in enumerate(names)}  # type: ignore[attr-defined]
    return SearchQuery(image, ensemble(rows)[0])


def _unseen(position: int, upload: Upload) -> AnsweredImage:
    """A query that no model has looked at."""
    return AnsweredImage(position, upload, ImageOutcome((), None, 0.0))


def _checked_vectors(given: list[Any], dim: int, service: Service) -> list[Float32]:
    """Raises: ProblemError unless there are some, not too many, and each is `dim` finite numbers of length 1."""
    limit = service.limits.images
    if not 1 <= len(given) <= limit:
        raise ProblemError("invalid", f"wanted 1 to {limit} vectors, got {len(given)}", limit=limit, got=len(given))
    return [_checked_vector(each, dim, at) for at, each in enumerate(given)]


def _checked_vector(given: object, dim: int, position: int) -> Float32:
    place = pointer("vectors", position)
    if not isinstance(given, list) or len(given) != dim or any(type(value) not in (int, float) for value in given):
        raise _wrong(place, f"wanted a list of {dim} numbers")
    vector = np.array(given, np.float64)
    with np.errstate(over="ignore"):
        length = float(np.sqrt((vector * vector).sum()))
    if not abs(length - 1) <= UNIT:  # so written, NaN is refused too
        raise _wrong(place, f"wanted a vector of length 1, got {length:.6g}")
    return vector.astype(np.float32)


def _wrong(place: str, detail: str) -> ProblemError:
    return ProblemError("invalid", f"{place}: {detail}", errors=[{"detail": detail, "pointer": place}])
