"""One queue for everybody who wants something of a device: fair, bounded, and batched by what waits while it runs."""

import atexit
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Self, TypeVar

from landmark_onnx.errors import DeadlineError, SchedulerClosedError
from landmark_onnx.images.decode import ReadOptions, image_name
from landmark_onnx.inference.admission import Admission, QueueLimits
from landmark_onnx.inference.batching import Buckets
from landmark_onnx.inference.fair_queue import FairQueue
from landmark_onnx.inference.memory_budget import MemoryBudget
from landmark_onnx.inference.pipeline import Pipeline, decoders
from landmark_onnx.inference.prefetch import NAME
from landmark_onnx.inference.requests import (
    Ending,
    ImageOutcome,
    InferenceRequest,
    Picture,
    Place,
    SchedulerEvents,
    Stage,
    StageItem,
    prepare,
)
from landmark_onnx.results import Failure
from landmark_onnx.types import Image, ImageSource

logger = logging.getLogger(__name__)

P = TypeVar("P")
A = TypeVar("A")

GRACE = 5.0
"""Seconds that the end of the program waits for a thread that is in the middle of something."""


class Scheduler:
    """Runs what is submitted on one device: the next batch at once when it is idle, and never waits for company.

    Threads decode, one runs batches, and one looks at deadlines. Each answer goes to its future as soon as it is
    there; `future.cancel()` lets go of a request wherever it is. A context manager: leaving it closes it.
    """

    def __init__(self, *, limits: QueueLimits | None = None, events: SchedulerEvents | None = None) -> None:
        self._events, limits = events, limits or QueueLimits()
        # A model's finalizer may close its scheduler in any thread at any moment, inside of these locks too.
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._sooner = threading.Condition(lock)
        self._soonest = math.inf
        self._queue: FairQueue[InferenceRequest] = FairQueue(2 * decoders())
        self._buckets: Buckets[float, StageItem] = Buckets()
        self._open = Admission(limits, self._queue)
        self._memory = MemoryBudget(limits.decoded_bytes)
        self._draining = self._closed = False
        steps = {f"decoder-{number}": self._decode_next for number in range(decoders())}
        steps |= {"device": self._run_next, "deadlines": self._expire}
        self._threads = [
            threading.Thread(target=_repeat, args=(step,), name=f"{NAME}-{name}", daemon=True)
            for name, step in steps.items()
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self.close, GRACE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        source: ImageSource,
        pipelines: Sequence[Pipeline[Any]],
        *,
        reading: ReadOptions | None = None,
        crop: Callable[[Image], Image] | None = None,
        name: str | None = None,
        client: str = "",
        timeout: float | None = None,
    ) -> Future[ImageOutcome]:
        """Have an image decoded once and answered by each pipeline.

        reading: how it is read, by default as the first pipeline has it. crop: takes what is wanted of its pixels; may
        raise ImageError. name: what results and errors call it. client: whose share it counts to. timeout: seconds.
        Raises: QueueFullError, ClientQueueFullError, TooLateError if the deadline can likely not be held, and
        SchedulerClosedError; the future: DeadlineError, SchedulerClosedError, and faults of our own as they are.
        """
        pipelines, name = tuple(pipelines), image_name(source) if name is None else name
        picture = Picture(source, name, pipelines, reading or pipelines[0].reading, crop)
        request = InferenceRequest(pipelines, client, math.inf if timeout is None else timeout, picture, name)
        with self._changed:
            self._admit(request)
            self._queue.put(client, request.number, max(each.largest_batch for each in pipelines), request)
        return request.future

    def submit_ready(
        self, stage: Stage[P, A], item: P, *, client: str = "", timeout: float | None = None, again: bool = False
    ) -> Future[A | Failure]:
        """Have an item run that needs no decoding. Raises: as `submit`.

        again: it goes on with something that was admitted and answered, and is refused for no want of room or time.
        """
        seconds = math.inf if timeout is None else timeout
        request = InferenceRequest((stage,), client, seconds, None, stage.name, ready=True, place="batch")
        parts = request.parts([item])
        with self._changed:
            self._admit(request, again=again)
            self._sort_in(parts)
        return request.future

    def withdraw(self, future: Future[Any], ending: Ending) -> Place | None:
        """Let go of a request as `future.cancel()` does, where others than its client may end it; tell where it was."""
        if request := self._open.of(future):
            self._end(request, ending)
        future.cancel()
        return request.place if request else None

    @property
    def waiting(self) -> int:
        """How many requests are admitted and not answered."""
        return len(self._open)

    def retry_after(self) -> float:
        """Seconds until what is queued now is likely done."""
        with self._changed:
            return self._open.retry_after()

    def close(self, timeout: float | None = None) -> None:
        """End: the batch that runs is answered, the rest gets SchedulerClosedError; once, however often it is called.

        timeout: seconds to wait for the threads to end, by default as long as it takes.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._sooner.notify_all()
        atexit.unregister(self.close)
        end = time.monotonic() + (threading.TIMEOUT_MAX / 2 if timeout is None else timeout)
        for thread in {*self._threads} - {threading.current_thread()}:
            thread.join(max(0.0, end - time.monotonic()))

    def drain(self, timeout: float | None = None) -> bool:
        """Take nothing new, answer what was admitted, and close; whether all of it was answered within the seconds."""
        with self._changed:
            self._draining = True
            answered = self._changed.wait_for(lambda: not self._open or self._closed, timeout)
        self.close()
        return answered

    def _admit(self, request: InferenceRequest, *, again: bool = False) -> None:
        """Raises: AdmissionError, SchedulerClosedError."""
        if self._closed or self._draining:
            raise SchedulerClosedError("the scheduler takes nothing new: it is closed, or about to be")
        self._open.admit(request, again=again)
        request.future.add_done_callback(self._done)
        if request.deadline < self._soonest:
            self._sooner.notify()
        self._changed.notify_all()

    def _done(self, future: Future[Any]) -> None:
        """Let go of a request that was cancelled."""
        if future.cancelled():
            if request := self._open.of(future):
                self._end(request, "cancelled")
            future.set_running_or_notify_cancel()

    def _decode_next(self) -> bool:
        """Decode the image whose turn it is; False at the end."""
        with self._changed:
            request = None
            while not self._closed and (request := self._queue.take()) is None:
                self._changed.wait()
            if request is None:
                return False
            picture, request.picture = request.picture, None
            assert picture is not None, "it is taken once"
            request.place, request.queue = "decode", time.monotonic() - request.admitted
        try:
            decoded = prepare(picture, self._memory)
            parts = request.parts(decoded.items)
        except Exception as error:  # a fault of ours, or of the caller's crop: it costs this image alone
            self._fail(request, error)
            return True
        self._open.costs.decoded(decoded.seconds)
        self._tell(lambda events: events.decoded(decoded.seconds))
        with self._changed:
            if request in self._open:
                request.size, request.held = decoded.size, decoded.bytes
                self._memory.add(request.held)
                request.answers |= {at: item for at, item in enumerate(decoded.items) if isinstance(item, Failure)}
                self._sort_in(parts)
        if request.complete:
            self._finish(request)
        return True

    def _sort_in(self, parts: Sequence[StageItem]) -> None:
        for part in parts:
            part.request.place = "batch"
            self._buckets.add(part.kind, part.room, part.request.number, part)
        self._changed.notify_all()

    def _run_next(self) -> bool:
        """Run the batch whose turn it is; False at the end, when nobody waits any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._buckets or self._closed)
            batch = [] if self._closed else self._buckets.oldest()
            for _, part in batch:
                part.request.place = "run"
            if batch:
                self._queue.ran(batch[0][0])
        if batch:
            self._run([part for _, part in batch])
            return True
        for request in self._open:
            self._fail(request, SchedulerClosedError(f"{request.name}: the scheduler was closed before its answer"))
        return False

    def _run(self, parts: Sequence[StageItem]) -> None:
        stage, start = parts[0].stage, time.perf_counter()
        try:
            answered = list(zip(parts, stage.run_batch([part.item for part in parts]), strict=True))
        except Exception as error:  # a fault of ours: it costs those alone whom it meets
            if len(parts) == 1:
                self._fail(parts[0].request, error)
            else:
                for part in parts:
                    self._run([part])
            return
        seconds = time.perf_counter() - start
        self._open.costs.ran(stage.name, seconds / len(parts))
        self._tell(lambda events: events.ran(stage.name, len(parts), seconds))
        for part, answer in answered:
            part.request.answers[part.index] = answer
            if part.request.complete:
                self._finish(part.request)

    def _finish(self, request: InferenceRequest) -> None:
        """Hand out the answers of a request that has them all."""
        failed = any(isinstance(answer, Failure) for answer in request.answers.values())
        if not failed:
            request.place = "answer"
        if self._end(request, "failed" if failed else "ok"):
            with contextlib.suppress(InvalidStateError):  # it was cancelled in between
                request.future.set_result(request.result())

    def _fail(self, request: InferenceRequest, error: Exception, ending: Ending = "failed") -> None:
        if self._end(request, ending):
            with contextlib.suppress(InvalidStateError):
                request.future.set_exception(error)

    def _expire(self) -> bool:
        """Wait for the next deadline, and end those that have not held theirs; False at the end."""
        with self._changed:
            while not self._closed:
                self._soonest = min((request.deadline for request in self._open), default=math.inf)
                left = self._soonest - time.monotonic()
                if left <= 0:
                    break
                self._sooner.wait(min(left, threading.TIMEOUT_MAX))
            late = [] if self._closed else [each for each in self._open if each.deadline <= time.monotonic()]
        for request in late:
            text = f"{request.name}: no answer within {request.timeout:g} s"
            self._fail(request, DeadlineError(text, request.place), "expired")
        return not self._closed

    def _end(self, request: InferenceRequest, ending: Ending) -> bool:
        """Let go of a request and of all that it holds; False if it has ended already."""
        with self._changed:
            place = request.place
            if not self._open.end(request):
                return False
            self._memory.release(request.held)
            if not request.complete:
                self._buckets.drop(lambda part: part.request is request)
            self._changed.notify_all()
        self._tell(lambda events: events.ended(request.names, ending, place, request.queue))
        return True

    def _tell(self, report: Callable[[SchedulerEvents], None]) -> None:
        try:
            if self._events:
                report(self._events)
        except Exception:
            logger.exception("a listener to the scheduler's events has failed")


def _repeat(step: Callable[[], bool]) -> None:
    """Of a thread: what one step holds is gone before the next one waits."""
    while step():
        pass
