"""What a scheduler takes on: limits, and what it has learnt of how long things take."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from landmark_onnx.errors import ClientQueueFullError, QueueFullError, TooLateError
from landmark_onnx.inference.fair_queue import FairQueue
from landmark_onnx.inference.pipeline import decoders
from landmark_onnx.inference.requests import InferenceRequest, Stage

NEWEST = 0.2
"""The weight of the newest value in a moving mean."""

UNKNOWN_COST = 0.05
"""Seconds that an image is taken to cost while none has run: without any, who comes first would have every turn."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much may wait.

    images: admitted and not answered, of all clients. client_share: of `images`, what one client may have.
    decoded_bytes: pixels and prepared tensors in memory; an image that is larger by itself gets its turn alone.
    """

    images: int = 256
    client_share: float = 0.5
    decoded_bytes: int = 512 << 20

    @property
    def client_images(self) -> int:
        """How many images one client may have."""
        return max(1, int(self.images * self.client_share))


class Costs:
    """Moving means of seconds an image: of each stage by its name, and of decoding."""

    def __init__(self) -> None:
        self._stages: dict[str, float] = {}
        self._decoding = 0.0
        # Once: it reads files of the system, and each admission asks for the cost of all that waits.
        self._decoders = decoders()

    def ran(self, stage: str, seconds: float) -> None:
        """An item took so long, as a share of its batch."""
        self._stages[stage] = _moved(self._stages.get(stage), seconds)

    def decoded(self, seconds: float) -> None:
        """An image took so long to decode and to resize."""
        self._decoding = _moved(self._decoding or None, seconds)

    def of(self, stages: Iterable[Stage[Any, Any]], *, decoded: bool = True) -> float:
        """How long one more takes that needs these stages: of the device or, with `decoded`, of all decoders."""
        running = sum(self._stages.get(stage.name, 0.0) for stage in stages)
        return max(running, self._decoding / self._decoders if decoded else 0.0)


def _moved(mean: float | None, seconds: float) -> float:
    return seconds if mean is None else mean + NEWEST * (seconds - mean)


class Admission:
    """Who is in: admitted, and not ended. Not safe under threads by itself."""

    def __init__(self, limits: QueueLimits, queue: FairQueue[InferenceRequest]) -> None:
        self.costs = Costs()
        self._limits = limits
        self._queue = queue
        self._open: dict[Future[Any], InferenceRequest] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[InferenceRequest]:
        return iter(list(self._open.values()))

    def __contains__(self, request: InferenceRequest) -> bool:
        return request.future in self._open

    def of(self, future: Future[Any]) -> InferenceRequest | None:
        """The request that is in for this future."""
        return self._open.get(future)

    def cost(self, request: InferenceRequest) -> float:
        """How long a request takes of the device, or of the decoders if that is longer; in seconds, 0 while unknown."""
        return self.costs.of(request.stages, decoded=not request.ready)

    def retry_after(self) -> float:
        """Seconds until what is in is likely done."""
        return sum(self.cost(request) for request in self)

    def admit(self, request: InferenceRequest, *, again: bool = False) -> None:
        """Let a request in, and number it. again: it goes on with what was admitted before, and is not refused.

        Raises: QueueFullError, ClientQueueFullError, TooLateError.
        """
        if not again:
            self._check_room(request.client)
        cost = self.cost(request)
        charged = cost or UNKNOWN_COST
        if request.timeout < math.inf and not again:
            self._check_time(request, cost, self._queue.number(request.client, charged))
        request.number = self._queue.join(request.client, charged)
        self._open[request.future] = request

    def end(self, request: InferenceRequest) -> bool:
        """Let a request out, wherever it is; False if it was out already."""
        if self._open.pop(request.future, None) is None:
            return False
        if not request.ready and request.place == "queue":
            self._queue.remove(request.client, request)
        elif not request.ready:
            self._queue.release(request.client)
        self._queue.leave(request.client)
        return True

    def _check_time(self, request: InferenceRequest, cost: float, number: float) -> None:
        """Whether those that go before `number` leave time for it."""
        seconds = cost + sum(self.cost(other) for other in self if other.number <= number)
        if seconds > request.timeout:
            raise TooLateError(
                f"an answer would take about {seconds:.2g} s, longer than the {request.timeout:g} s that it is given; "
                "try again later",
                limit=request.timeout,
                retry_after=self.retry_after(),
            )

    def _check_room(self, client: str) -> None:
        most, share = self._limits.images, self._limits.client_images
        if len(self) >= most:
            raise QueueFullError(
                f"{most} images are queued already; try again later", limit=most, retry_after=self.retry_after()
            )
        if self._queue.open(client) >= share:
            raise ClientQueueFullError(
                f"{share} images of this client are queued already; send fewer at a time",
                limit=share,
                retry_after=self.retry_after(),
            )
