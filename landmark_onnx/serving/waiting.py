"""A request waits for its images, and for its client's leaving, which cancels them."""

import asyncio
import concurrent.futures
from collections.abc import Sequence
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

R = TypeVar("R")


async def answered(request: Request, futures: Sequence[concurrent.futures.Future[R]]) -> list[R]:
    """The result of each future, in their order; the request's body must have been read.

    Raises: what the first future that fails has, at once; ClientDisconnect when the client hangs up. Whatever the
    reason for leaving, futures without a result are cancelled.
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
        for future in futures:
            future.cancel()
        results.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        """What comes before are empty ends of the body."""
