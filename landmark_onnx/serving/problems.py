"""Every error of the service as a problem that a program can act on (RFC 9457)."""

import dataclasses
import json
import logging
import math
import random
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from landmark_onnx.errors import (
    AdmissionError,
    ClientQueueFullError,
    DeadlineError,
    ImageError,
    LandmarkError,
    QueueFullError,
    SchedulerClosedError,
    StepError,
    TooLateError,
    UnknownModelError,
)

MEDIA_TYPE = "application/problem+json"
CLIENT_LEFT = 499
"""The status in the log of a request whose client has gone; nobody gets it."""
UNTOLD = "the server's log has more under this request's id"
LONGEST_KEY = 100
"""Characters of a key that somebody sent, as an answer repeats them."""
MOST_ERRORS = 20
"""Values of a request that are told to be wrong, the first of them."""
SOONEST, LATEST, SPREAD = 1, 60, 0.2
"""Seconds that Retry-After says, and what part of them may come on top, so that not all come back at once."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class ProblemKind:
    """What problems of one name have in common."""

    status: int
    title: str


KINDS: Mapping[str, ProblemKind] = {
    "bad-request": ProblemKind(400, "The request is not HTTP as it should be"),
    "bad-json": ProblemKind(400, "The JSON cannot be used"),
    "bad-multipart": ProblemKind(400, "The multipart body cannot be used"),
    "unauthorized": ProblemKind(401, "A key is needed"),
    "forbidden": ProblemKind(403, "The key does not permit this"),
    "foreign-host": ProblemKind(403, "This is no name of the server"),
    "foreign-site": ProblemKind(403, "Another site's page asks"),
    "not-found": ProblemKind(404, "There is no such thing"),
    "method-not-allowed": ProblemKind(405, "The method is not allowed here"),
    "too-slow": ProblemKind(408, "The body comes too slowly"),
    "body-too-large": ProblemKind(413, "The body is too large"),
    "image-too-large": ProblemKind(413, "The image is too large"),
    "unsupported-image": ProblemKind(415, "The image is of a format that is not read here"),
    "unsupported-media-type": ProblemKind(415, "The body is of a type that is not read here"),
    "bad-image": ProblemKind(422, "The image cannot be used"),
    "invalid": ProblemKind(422, "A value is not as it must be"),
    "too-many-images": ProblemKind(422, "There are too many images"),
    "client-queue-full": ProblemKind(429, "The client has its share of the queue"),
    "internal": ProblemKind(500, "The server failed"),
    "queue-full": ProblemKind(503, "The queue is full"),
    "too-late": ProblemKind(503, "The answer would come too late"),
    "memory-full": ProblemKind(503, "The memory for bodies is full"),
    "too-many-connections": ProblemKind(503, "There are too many connections"),
    "draining": ProblemKind(503, "The server is about to end"),
    "not-ready": ProblemKind(503, "The server is not ready yet"),
    "timeout": ProblemKind(504, "The answer took too long"),
}
"""Name -> status and title; the problem's type is `urn:x-landmark-onnx:NAME`."""

_KIND_OF_STATUS = {
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "unsupported-media-type",
    422: "invalid",
}
"""How the framework's own errors are called."""


_TOLD: Mapping[type[LandmarkError], str] = {
    ImageError: "bad-image",
    StepError: "invalid",
    UnknownModelError: "not-found",
    ClientQueueFullError: "client-queue-full",
    QueueFullError: "queue-full",
    TooLateError: "too-late",
    DeadlineError: "timeout",
    SchedulerClosedError: "draining",
}
"""Errors of this project whose text is for the sender; of all others it may name files."""


class ProblemError(Exception):
    """A request that gets no answer, for a reason that its sender is told.

    kind: of `KINDS`. detail: one line without paths. limit, got: numbers that say it. retry_after: seconds as
    estimated; what is said is at least 1, at most 60, and up to a fifth more by chance. errors: one entry for each
    value that is wrong, with `detail` and `pointer` (RFC 6901). headers: more of them for the answer.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        limit: float | None = None,
        got: float | None = None,
        retry_after: float | None = None,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status = KINDS[kind].status
        self.detail = detail
        self.limit = limit
        self.got = got
        self.retry_after = None if retry_after is None else _spread(retry_after)
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        if self.retry_after is not None:
            self.headers["Retry-After"] = str(self.retry_after)

    def to_json(self, request_id: str = "") -> dict[str, Any]:
        """The problem's members. request_id: of the request that has it; without one there is no `instance`."""
        said = {
            "type": f"urn:x-landmark-onnx:{self.kind}",
            "title": KINDS[self.kind].title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance(request_id) if request_id else None,
            "limit": self.limit,
            "got": self.got,
            "retry_after": self.retry_after,
            "errors": [dict(each) for each in self.errors] or None,
        }
        return {name: value for name, value in said.items() if value is not None}

    def response(self, request_id: str) -> Response:
        """The answer that says so."""
        return Response(json.dumps(self.to_json(request_id)), self.status, headers=self.headers, media_type=MEDIA_TYPE)


def _spread(seconds: float) -> int:
    within = min(max(seconds if math.isfinite(seconds) else LATEST, SOONEST), LATEST)
    return math.ceil(within * (1 + SPREAD * random.random()))  # noqa: S311 - no secret


def instance(request_id: str) -> str:
    """The URI of a request: a UUID's URN, or the id that its client chose, which is a relative reference."""
    try:
        return uuid.UUID(request_id).urn if len(request_id) == 36 else request_id
    except ValueError:
        return request_id


def problem_of(error: BaseException) -> ProblemError:
    """What is told of an error: all that the sender can change, and nothing of an error of our own."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RequestValidationError):
        return invalid(error)
    if isinstance(error, HTTPException):
        return _of_framework(error)
    kind = next((kind for each, kind in _TOLD.items() if isinstance(error, each)), "internal")
    if isinstance(error, AdmissionError):
        return ProblemError(kind, str(error), limit=error.limit, retry_after=error.retry_after)
    told = UNTOLD if kind == "internal" else str(error)
    return ProblemError(kind, told, retry_after=SOONEST if kind == "draining" else None)


def invalid(error: RequestValidationError | ValidationError, *within: str) -> ProblemError:
    """Values that a model of pydantic refuses. within: the keys under which what it read stands in the request."""
    found = error.errors()
    errors = [{"detail": str(each["msg"]), "pointer": pointer(*within, *each["loc"])} for each in found[:MOST_ERRORS]]
    places = ", ".join(each["pointer"] for each in errors) + (", .." if len(found) > len(errors) else "")
    detail = errors[0]["detail"] if len(found) == 1 else f"{len(found)} values"
    return ProblemError("invalid", f"{detail}: {places}", errors=errors)


def pointer(*keys: str | int) -> str:
    """The place of a value in a JSON document (RFC 6901, as a URI fragment).

    >>> pointer("images", 0, "a/b")
    '#/images/0/a~1b'
    """
    return "#" + "".join("/" + str(key)[:LONGEST_KEY].replace("~", "~0").replace("/", "~1") for key in keys)


def _of_framework(error: HTTPException) -> ProblemError:
    kind = _KIND_OF_STATUS.get(error.status_code, "bad-request" if error.status_code < 500 else "internal")
    said = {
        "not-found": "no such address",
        "method-not-allowed": "this address has other methods: see Allow",
        "internal": UNTOLD,
    }
    return ProblemError(kind, said.get(kind, str(error.detail)), headers=error.headers)


def install(app: FastAPI) -> None:
    """Let every error of an application, its framework's own too, be answered as a problem."""
    app.add_exception_handler(ClientDisconnect, _left)
    for kind in (ProblemError, HTTPException, RequestValidationError, LandmarkError, Exception):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    state = request.scope.get("state", {})
    state.setdefault("log", {})["problem"] = problem.kind
    request_id = state.get("request_id", "")
    if problem.kind == "internal":
        logger.error("request %s failed", request_id, exc_info=error)
    return problem.response(request_id)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)
