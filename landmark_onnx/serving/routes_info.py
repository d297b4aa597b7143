"""What a service says of itself: whether it lives and is ready, what it has, its metrics, its description."""

import asyncio
from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from landmark_onnx.serving.answering import JsonObject, state_of
from landmark_onnx.serving.metrics import MEDIA_TYPE
from landmark_onnx.serving.openapi import problems
from landmark_onnx.serving.query_steps import step_facts
from landmark_onnx.serving.schema_info import Alive, Information, Readiness, Status
from landmark_onnx.serving.service import Service


def router(service: Service) -> APIRouter:
    """The routes that say it."""
    routes = APIRouter(tags=["service"], default_response_class=JSONResponse)
    _add_health(routes, service)

    @routes.get("/openapi.json", summary="This description", responses=problems())
    async def openapi(request: Request) -> JSONResponse:
        # Made when it is first asked for, which takes half a second.
        return JSONResponse(await asyncio.to_thread(request.app.openapi))

    @routes.get(
        "/v1/info",
        summary="What is served, within which limits, and what this key may do",
        responses=problems() | {200: {"model": Information, "description": "All that a page needs"}},
    )
    async def info(request: Request) -> JSONResponse:
        return JSONResponse(information(service) | {"may": sorted(state_of(request).get("may", ()))})

    return routes


def metrics_router(service: Service) -> APIRouter:
    """The route of the metrics."""
    routes = APIRouter(tags=["service"])

    @routes.get(
        "/metrics",
        summary="Counts and times, as Prometheus reads them",
        responses=problems() | {200: {"description": "All of them", "content": {"text/plain": {}}}},
        response_class=Response,
    )
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=MEDIA_TYPE)

    return routes


def _add_health(routes: APIRouter, service: Service) -> None:
    @routes.get("/healthz", summary="Whether the process answers: no model is asked", responses=problems())
    async def healthz() -> Status:
        return Status()

    @routes.get("/v2/health/live", summary="Whether the process answers", responses=problems())
    async def live() -> Alive:
        return Alive()

    @routes.get(
        "/v2/health/ready",
        summary="Whether requests are answered: models have answered once, and the end is not near",
        responses=problems() | {503: {"model": Readiness, "description": "Not now"}},
    )
    async def ready(response: Response) -> Readiness:
        is_ready = service.lifecycle.ready and not service.lifecycle.draining
        response.status_code = 200 if is_ready else 503
        return Readiness(ready=is_ready)


def information(service: Service) -> JsonObject:
    """What is served, whoever asks, as JSON-ready data."""
    scheduler = service.scheduler
    return {
        "version": version("landmark-onnx"),
        "models": [hosted.to_json() for hosted in service.models.models],
        "indexes": [live.current.facts() for live in service.indexes.values()],
        "recognize": bool(service.indexes),
        "detector": service.recognition.detector and service.recognition.detector.card.name,
        "rules": [rule.name for rule in service.recognition.rules],
        "steps": step_facts(),
        "limits": service.limits.to_json(),
        "key_required": service.key_required,
        "queue": {"images": scheduler.waiting, "seconds": scheduler.retry_after()},
    }
