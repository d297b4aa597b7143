"""What there is in indexes: facts, neighbours of an image that is there, and its picture."""

import asyncio
import hashlib
import logging
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request, Response

from landmark_onnx.errors import ImageError
from landmark_onnx.serving.asking import note
from landmark_onnx.serving.indexed import GONE, chosen, indexed_row
from landmark_onnx.serving.live_index import Snapshot
from landmark_onnx.serving.openapi import problems
from landmark_onnx.serving.pictures import SIDES, Pictures
from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.serving.routes_search import neighbours
from landmark_onnx.serving.schema_info import IndexFacts
from landmark_onnx.serving.schema_search import ByIdOptions, IndexList, PictureOptions, SearchAnswer
from landmark_onnx.serving.searching import SearchPlan, plan_of, stored_query
from landmark_onnx.serving.service import Service
from landmark_onnx.serving.waiting import answered

PICTURE_SECONDS = 300
"""For which a client may take a picture for what it was."""
_SEARCH: dict[str, Any] = {
    "summary": "The nearest to an image of the index, by its row: no model runs",
    "responses": {
        200: {"description": "Answered", "model": SearchAnswer},
        304: {"description": "The answer is the one that the client has"},
    }
    | problems("not-found", "invalid", "queue-full", "client-queue-full", "too-late", "timeout"),
    "response_model": None,
}
_PICTURE: dict[str, Any] = {
    "summary": "The picture of an image of the index: a JPEG made for this, without what its file says of it",
    "responses": {200: {"description": "The picture", "content": {"image/jpeg": {}}}}
    | problems("not-found", "invalid"),
    "response_class": Response,
}

logger = logging.getLogger(__name__)


def router(service: Service) -> APIRouter:
    """The routes of single indexes."""
    routes = APIRouter(prefix="/v1/indexes", tags=["indexes"])

    @routes.get("", summary="All indexes", responses=problems())
    async def indexes() -> IndexList:
        return IndexList.model_validate({"indexes": [live.current.facts() for live in service.indexes.values()]})

    @routes.get("/{name}", summary="An index", responses=problems("not-found", "invalid"))
    async def index(name: str) -> IndexFacts:
        return IndexFacts.model_validate(chosen(service, name).facts())

    @routes.get("/{name}/search", **_SEARCH)
    async def search(request: Request, name: str, options: Annotated[ByIdOptions, Query()]) -> Response:
        plan, wanted = plan_of(service, request, name, options), exact_id(request)
        headers = (
            {"ETag": _etag(service, plan, wanted), "Cache-Control": "private, no-cache"} if plan.snapshot.digest else {}
        )
        if headers and headers["ETag"] in _known(request):
            return Response(status_code=304, headers=headers)
        query = await asyncio.to_thread(stored_query, plan.snapshot, wanted)
        response = await neighbours(service, request, plan, [query])
        response.headers.update(headers)
        return response

    @routes.get("/{name}/image", **_PICTURE)
    async def image(request: Request, name: str, options: Annotated[PictureOptions, Query()]) -> Response:
        if options.side not in SIDES:
            raise ProblemError("invalid", f"side: wanted {' or '.join(map(str, SIDES))}, got {options.side}")
        snapshot = chosen(service, name)
        note(request, index=snapshot.name)
        making = asyncio.create_task(_picture(service.pictures, snapshot, exact_id(request), options.side))
        [picture] = await answered(request, [making])
        headers = {"Cache-Control": f"private, max-age={PICTURE_SECONDS}"}
        return Response(picture, media_type="image/jpeg", headers=headers)

    return routes


def exact_id(request: Request) -> str:
    """The id in a query as the index has it: also one whose bytes are no text, which the framework replaces."""
    query: bytes = request.scope["query_string"]
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="surrogateescape")
    found = [value for key, value in pairs if key == "id"]
    if len(found) != 1:
        raise ProblemError("invalid", f"wanted one id, got {len(found)}")
    return found[0]


async def _picture(pictures: Pictures, snapshot: Snapshot, name: str, side: int) -> bytes:
    """Raises: ProblemError, not-found whatever the reason."""
    row = await asyncio.to_thread(indexed_row, snapshot, name)
    try:
        made = await pictures.picture(row.source, side)
    except ImageError as error:
        logger.warning("no picture: %s", error)
        raise ProblemError("not-found", "the file of this image cannot be read any more") from error
    if made is None:
        raise ProblemError("not-found", GONE)
    return made


def _etag(service: Service, plan: SearchPlan, wanted: str) -> str:
    """Weak: the seconds that an answer tells are others each time."""
    snapshot, said = plan.snapshot, service.recognition
    labels = snapshot.labels_name, snapshot.labelled, said.neighbours, said.neighbour_weight
    text = repr((snapshot.digest, labels, wanted, plan.top, plan.approximate, plan.steps))
    return f'W/"{hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]}"'


def _known(request: Request) -> list[str]:
    return [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
