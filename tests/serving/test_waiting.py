"""A request that waits for its images, and a client that leaves."""

import asyncio
import types
from concurrent.futures import Future

import pytest
from starlette.requests import ClientDisconnect, Request

from landmark_onnx.errors import DeadlineError, TooLateError
from landmark_onnx.serving.waiting import answered, withdrawing


def request_of(*messages):
    """A request whose client sends these, one after the other, and then nothing."""
    rest = list(messages)

    async def receive():
        if rest:
            return {"type": rest.pop(0)}
        return await asyncio.Future()

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def test_results_come_in_their_order_whichever_is_first():
    futures = [Future() for _ in range(3)]

    async def ask():
        task = asyncio.create_task(answered(request_of("http.request"), futures))
        await asyncio.sleep(0)
        for at in (2, 0, 1):
            futures[at].set_result(at)
        return await task

    assert asyncio.run(ask()) == [0, 1, 2]


def test_a_client_that_leaves_cancels_what_has_no_result():
    done, open_ = Future(), Future()
    done.set_result(1)
    with pytest.raises(ClientDisconnect):
        asyncio.run(answered(request_of("http.request", "http.disconnect"), [done, open_]))
    assert open_.cancelled()
    assert done.result() == 1


def test_the_first_that_fails_ends_it():
    failed, open_ = Future(), Future()
    failed.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        asyncio.run(answered(request_of(), [open_, failed]))


@pytest.mark.parametrize(
    ("error", "ending", "stage"),
    [
        (ClientDisconnect(), "cancelled", "queue"),
        (TooLateError("no", limit=1, retry_after=1), "refused", "admission"),
        (DeadlineError("no", "decode"), "expired", "decode"),
        (ValueError("no"), "failed", "queue"),
        (asyncio.CancelledError(), "failed", "queue"),
    ],
)
def test_what_ends_a_request_early_is_told_of_all_that_it_asked(error, ending, stage):
    told, places = [], iter([None, "queue"])

    def withdraw(future, why):
        told.append((future, why))
        return next(places)

    futures, request = [], request_of()

    def ask():
        with withdrawing(types.SimpleNamespace(withdraw=withdraw), request, futures):
            futures.extend([Future(), Future()])
            raise error

    with pytest.raises(type(error)):
        ask()
    assert told == [(future, ending) for future in futures]
    assert request.scope["state"]["log"] == {"stage": stage}


def test_who_is_cancelled_cancels_the_futures():
    open_ = Future()

    async def ask():
        task = asyncio.create_task(answered(request_of(), [open_]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    assert open_.cancelled()


def test_without_an_image_nothing_is_waited_for():
    assert asyncio.run(answered(request_of(), [])) == []
