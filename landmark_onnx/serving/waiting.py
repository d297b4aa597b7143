"""A request waits for its images, and for its client's leaving, which cancels them."""

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from landmark_onnx.errors import AdmissionError, DeadlineError
from landmark_onnx.inference.requests import Ending
from landmark_onnx.inference.scheduler import Scheduler
from landmark_onnx.serving.answering import state_of

R = TypeVar("R")


async def answered(request: Request, futures: Sequence[concurrent.futures.Future[R] | asyncio.Future[R]]) -> list[R]:
    """The result of each future, in their order; the request's body must have been read, or there is none.

    Raises: what the first future that fails has, at once; ClientDisconnect when the client hangs up, which cancels
    futures without a result.
    """
    results = asyncio.gather(*map(asyncio.wrap_future, futures))
    results.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio logs that nobody asked
    leaving = asyncio.create_task(_left(request))
    both: set[asyncio.Future[Any]] = {results, leaving}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not results.done():
            leaving.result()
            raise ClientDisconnect
        return results.result()
    finally:
        results.cancel()
        leaving.cancel()


@contextlib.contextmanager
def withdrawing(
    scheduler: Scheduler, request: Request, futures: Sequence[concurrent.futures.Future[Any]]
) -> Iterator[None]:
    """What ends this block early ends what was asked in it, too; the scheduler tells of each why, and the log where."""
    try:
        yield
    except BaseException as error:
        places = [scheduler.withdraw(future, _ending(error)) for future in futures]
        state_of(request).setdefault("log", {})["stage"] = _stage(error, places)
        raise


def _stage(error: BaseException, places: Iterable[str | None]) -> str | None:
    """Where a request ended: its first image that was not answered."""
    if isinstance(error, AdmissionError):
        return "admission"
    return error.place if isinstance(error, DeadlineError) else next(filter(None, places), None)


def _ending(error: BaseException) -> Ending:
    if isinstance(error, ClientDisconnect):
        return "cancelled"
    if isinstance(error, AdmissionError):
        return "refused"
    return "expired" if isinstance(error, DeadlineError) else "failed"


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        """What comes before are empty ends of the body."""
