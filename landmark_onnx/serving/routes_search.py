"""What an index knows of images: search, recognize."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from fastapi import APIRouter, Request, Response

from landmark_onnx.model import Retriever
from landmark_onnx.recognition.recognizer import Recognizer
from landmark_onnx.recognition.votes import combine, neighbour_votes
from landmark_onnx.results import Embedding
from landmark_onnx.search.answers import Hit
from landmark_onnx.serving.answering import JsonObject, respond
from landmark_onnx.serving.asking import asked, options_of
from landmark_onnx.serving.live_index import Snapshot
from landmark_onnx.serving.models import HostedModel
from landmark_onnx.serving.openapi import documented
from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.serving.schema_search import RecognizeAnswer, RecognizeOptions, SearchAnswer, SearchOptions
from landmark_onnx.serving.searching import SearchPlan, SearchQuery, hits_of, plan_of, queries_of
from landmark_onnx.serving.service import Service


def router(service: Service) -> APIRouter:
    """The routes that search with images."""
    routes = APIRouter(prefix="/v1", tags=["indexes"])

    @routes.post("/search", **documented("The nearest of an index", SearchOptions, SearchAnswer, vectors=True))
    async def search(request: Request) -> Response:
        async with asked(service, request) as payload:
            options = options_of(SearchOptions, payload)
            plan = plan_of(service, request, options.index, options)
            pipelines = [each.pipeline for each in hosted_of(service, plan.snapshot)]
            queries = await queries_of(service, request, payload, options, plan, pipelines=pipelines)
            return await neighbours(service, request, plan, queries)

    @routes.post("/recognize", **documented("The landmarks of images", RecognizeOptions, RecognizeAnswer))
    async def recognize(request: Request) -> Response:
        async with asked(service, request) as payload:
            options = options_of(RecognizeOptions, payload)
            plan = plan_of(service, request, options.index, options, top=service.recognition.neighbours)
            if payload.vectors is not None:
                raise ProblemError("invalid", "vectors are searched for, and nothing else: wanted images")
            recognizer = _recognizer(service, plan.snapshot)
            pipelines = [model.pipeline for model in recognizer.models]
            queries = await queries_of(service, request, payload, options, plan, pipelines=pipelines)
            hits, seconds = await hits_of(service, request, plan, queries)

            def tell(query: SearchQuery) -> JsonObject:
                votes = neighbour_votes(hits[query.image.position], plan.snapshot.landmark)
                if answers := query.image.answers():
                    return recognizer.conclude(answers, votes).to_json()
                # No model has looked at it: its neighbours alone decide.
                alone = dataclasses.replace(recognizer, voters=(), detector=None)
                return alone.conclude([Embedding(vector=_vector(query))], votes).to_json()

            names = [model.card.name for model in recognizer.models]
            head = _head(plan.snapshot, [each for each in service.models.models if each.name in names])
            return await told(request, queries, head, tell, seconds=seconds)

    return routes


async def neighbours(service: Service, request: Request, plan: SearchPlan, queries: Sequence[SearchQuery]) -> Response:
    """The response that tells the neighbours of each query, and with labels the votes for each landmark."""
    voters = service.recognition.neighbours if plan.snapshot.labels else 0
    hits, seconds = await hits_of(service, request, dataclasses.replace(plan, top=max(plan.top, voters)), queries)

    def tell(query: SearchQuery) -> JsonObject:
        own = hits[query.image.position]
        found: JsonObject = {"neighbours": [_neighbour(plan.snapshot, hit) for hit in own[: plan.top]]}
        if plan.snapshot.labels:
            found["votes"] = _votes(plan, query, own[:voters], service.recognition.neighbour_weight)
        return found

    head = _head(plan.snapshot, hosted_of(service, plan.snapshot))
    return await told(request, queries, head, tell, seconds=seconds, weight=sum(map(len, hits.values())))


async def told(
    request: Request,
    queries: Sequence[SearchQuery],
    head: JsonObject,
    tell: Callable[[SearchQuery], JsonObject],
    *,
    seconds: float,
    weight: int = 0,
) -> Response:
    """The response that tells of each query. seconds: of the search. weight: how many neighbours there are to tell."""
    of: Mapping[int, SearchQuery] = {query.image.position: query for query in queries}

    def tell_image(image: Any) -> JsonObject:
        if isinstance(image.outcome, ProblemError):
            raise image.outcome
        image.answers()
        return tell(of[image.position])

    images = [query.image for query in queries]
    return await respond(
        request, images, head, tell_image, seconds={"search": round(seconds, 6)}, weight=weight * BYTES
    )


BYTES = 100
"""Of a neighbour in an answer, about."""


def hosted_of(service: Service, snapshot: Snapshot) -> list[HostedModel]:
    """The models of an index's ensemble, in its order."""
    return [service.models.choose("retrieval", model.name) for model in snapshot.ensemble.models]


def _recognizer(service: Service, snapshot: Snapshot) -> Recognizer:
    """What concludes as the command line does."""
    said = service.recognition
    return Recognizer(
        index=snapshot.index,
        retrievers=[cast("Retriever", each.model) for each in hosted_of(service, snapshot)],
        landmark_of=snapshot.landmark,
        voters=said.voters,
        detector=said.detector,
        rules=said.rules,
        neighbours=said.neighbours,
        neighbour_weight=said.neighbour_weight,
        labels=snapshot.labels_name,
    )


def _head(snapshot: Snapshot, hosted: Sequence[HostedModel]) -> JsonObject:
    state = {"name": snapshot.name, "generation": snapshot.generation, "rows": snapshot.rows}
    return {"models": [each.facts() for each in hosted], "index": state}


def _neighbour(snapshot: Snapshot, hit: Hit) -> JsonObject:
    known = {"rank": hit.rank, "id": hit.id, "score": hit.score}
    return known | ({"landmark": snapshot.landmark(hit.id)} if snapshot.labels else {})


def _votes(plan: SearchPlan, query: SearchQuery, hits: Sequence[Hit], weight: float) -> list[JsonObject]:
    """As `recognize` has it without classifiers: of the first neighbours, by their cosines whatever steps scored."""
    if plan.steps:
        hits = [dataclasses.replace(hit, score=_cosine(plan.snapshot, query, hit)) for hit in hits]
    votes = neighbour_votes(hits, plan.snapshot.landmark)
    return [{"landmark": each.landmark, "score": each.score} for each in combine(votes, [], neighbour_weight=weight)]


def _cosine(snapshot: Snapshot, query: SearchQuery, hit: Hit) -> float:
    row = snapshot.find(hit.id)
    assert row, "what was found in an index is in it"
    return float(row.vector.astype(np.float64) @ _vector(query).astype(np.float64))


def _vector(query: SearchQuery) -> Any:
    assert query.vector is not None, "what has an answer has a vector"
    return query.vector
