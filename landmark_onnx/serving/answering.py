"""From the outcomes of a request's images to its response: answers in their order, a problem where there is none."""

import asyncio
import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from landmark_onnx.inference.requests import ImageOutcome
from landmark_onnx.results import Failure, Result
from landmark_onnx.serving.payload import Crop, Upload
from landmark_onnx.serving.problems import ProblemError, pointer, problem_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

LARGE = 64 << 10
"""Bytes that are looked at, or written, in a thread: the loop has other clients."""

EXPANSION = 5
"""Bytes of JSON that a byte of an answer's arrays becomes, about."""

JsonObject: TypeAlias = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class AnsweredImage:
    """An image of a request and what came of it. position: among the request's images."""

    position: int
    upload: Upload
    outcome: ImageOutcome | ProblemError

    def answers(self) -> list[Result]:
        """Of each pipeline. Raises: ProblemError, the image's own, if one has none."""
        if isinstance(self.outcome, ProblemError):
            raise self.outcome
        found: list[Result] = []
        for answer in self.outcome.answers:
            if isinstance(answer, Failure):
                problem = problem_of(answer.kind(answer.error))
                if problem.kind == "internal":  # of which nothing is told
                    logger.error("an image has no answer: %s", answer.error)
                raise problem
            found.append(answer)
        return found

    def only(self) -> Any:
        """The answer of the only pipeline. Raises: ProblemError, the image's own, if there is none."""
        [answer] = self.answers()
        return answer

    def facts(self) -> JsonObject:
        """What every answer says of its image."""
        facts: JsonObject = {"position": self.position, "image": self.upload.name}
        if self.upload.id is not None:
            facts["id"] = self.upload.id
        if isinstance(self.outcome, ImageOutcome) and self.outcome.size:
            facts["size"] = list(self.outcome.size)
        return facts | ({"crop": _as_asked(self.upload.crop)} if self.upload.crop else {})


Tell: TypeAlias = Callable[[AnsweredImage], JsonObject]
"""What an answer says beside the facts of its image. Raises: ProblemError if that image has none."""


def state_of(request: Request) -> JsonObject:
    """What is known of a request: client, may, request_id, and what the log gets."""
    state: JsonObject = request.scope.setdefault("state", {})
    return state


async def respond(
    request: Request,
    images: Sequence[AnsweredImage],
    head: JsonObject,
    tell: Tell,
    *,
    seconds: dict[str, float] | None = None,
    weight: int = 0,
) -> Response:
    """The response that tells of each image. head: of the answer as a whole. seconds: of stages that no model has.

    weight: bytes of what there is to tell beside the arrays of answers, about.
    Raises: ProblemError if not one image has an answer: a single image's own.
    """
    request_id = str(state_of(request).get("request_id", ""))

    def render() -> tuple[bytes, int]:
        results = _results(images, tell, request_id)
        answer = head | {"results": results, "took": took(images) | (seconds or {})}
        failed = sum("problem" in result for result in results)
        return json.dumps(answer, allow_nan=False, separators=(",", ":")).encode(), failed

    body, failed = await lightly(weight + EXPANSION * sum(map(_weight, images)), render)
    headers = {"Failed-Images": str(failed)} if failed else {}
    return Response(body, media_type="application/json", headers=headers)


async def lightly(size: int, work: Callable[[], T]) -> T:
    """What `work` returns; where it is about many bytes, from a thread."""
    return await asyncio.to_thread(work) if size > LARGE else work()


def took(images: Sequence[AnsweredImage]) -> dict[str, float]:
    """Seconds of all images together, by stage."""
    sums = dict.fromkeys(("queue", "decode", "preprocess", "inference", "postprocess"), 0.0)
    for outcome in (image.outcome for image in images):
        if isinstance(outcome, ImageOutcome):
            sums["queue"] += outcome.queue
            times = [answer.time for answer in outcome.answers if isinstance(answer, Result) and answer.time]
            for time in times:
                for stage, seconds in dataclasses.asdict(time).items():
                    sums[stage] += seconds
            # Its models share one decoding, which each of them tells.
            sums["decode"] -= sum(time.decode for time in times[1:])
    return {stage: round(seconds, 6) for stage, seconds in sums.items()}


def _results(images: Sequence[AnsweredImage], tell: Tell, request_id: str) -> list[JsonObject]:
    failed: dict[int, ProblemError] = {}
    results: list[JsonObject] = []
    for image in images:
        facts = image.facts()
        try:
            results.append(facts | tell(image) | {"image": image.upload.name})
        except ProblemError as problem:
            failed[image.position] = problem
            results.append(facts | {"problem": problem.to_json(request_id)})
    if len(failed) < len(images):
        return results
    worst = max(failed.values(), key=lambda problem: problem.status)
    if len(failed) == 1 or worst.status >= 500:
        raise worst
    errors = [{"detail": problem.detail, "pointer": pointer("images", at)} for at, problem in failed.items()]
    raise ProblemError("bad-image", f"none of the {len(failed)} images can be used", errors=errors)


def _as_asked(box: Crop) -> list[float | str]:
    """A crop as a request has it."""
    return [box.x, box.y, box.width, box.height, *(["relative"] if box.relative else [])]


def _weight(image: AnsweredImage) -> int:
    """Bytes of the arrays of an image's answers."""
    if isinstance(image.outcome, ProblemError):
        return 0
    answers = [answer for answer in image.outcome.answers if isinstance(answer, Result)]
    values = [getattr(answer, field.name) for answer in answers for field in dataclasses.fields(answer)]
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))
