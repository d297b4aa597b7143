"""Clients that leave, queues that are full and deadlines that pass: asked of the real application and its scheduler."""

import asyncio
import contextlib
import dataclasses
import threading

import pytest

import fakes
import hosted
from hosted import PNG, Client, png
from landmark_onnx.inference.admission import QueueLimits
from landmark_onnx.inference.scheduler import Scheduler
from landmark_onnx.serving import pictures
from landmark_onnx.serving import service as services
from landmark_onnx.serving.settings import Limits
from serving_client import request, running, until

PHOTO = fakes.photo(90, 120)
PATIENCE = 60
ROOMY = QueueLimits()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return hosted.models_in(tmp_path_factory.mktemp("models"))


@dataclasses.dataclass
class Heard:
    """What a scheduler tells, and a stage that keeps its device busy until it is let go."""

    name = "busy"
    ends: list = dataclasses.field(default_factory=list)
    running: threading.Event = dataclasses.field(default_factory=threading.Event)
    over: threading.Event = dataclasses.field(default_factory=threading.Event)

    def decoded(self, seconds):
        """Nothing."""

    def ran(self, stage, items, seconds):
        """Nothing."""

    def ended(self, stages, outcome, place, waited):
        if stages != [self.name]:
            self.ends.append((outcome, place))

    def kind(self, item):
        return item

    def room(self, item):
        return 1

    def run_batch(self, items):
        self.running.set()
        assert self.over.wait(PATIENCE)
        return items


@contextlib.contextmanager
def busy(models, *, limits=hosted.DEFAULTS, queue=ROOMY):
    """A service whose device is busy: what is asked of it waits."""
    heard = Heard()
    with (
        Scheduler(limits=queue, events=heard) as scheduler,
        hosted.service_of(models, limits=limits, scheduler=scheduler) as service,
    ):
        scheduler.submit_ready(heard, 0, client="another")
        assert heard.running.wait(PATIENCE)
        try:
            yield service, heard
        finally:
            heard.over.set()


def posting(app, body, *, path="/v1/embed"):
    """A POST by hand: what the application says, and a function that hangs up."""
    gone, said = asyncio.Event(), []
    coming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if coming:
            return coming.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "root_path": ""}
    scope |= {"headers": [(b"content-type", b"image/png"), (b"host", b"localhost")], "state": {}}
    return app(scope, receive, send), gone, said


async def queued(service, count):
    """Wait until so many images are in the queue."""
    async with asyncio.timeout(PATIENCE):
        while service.scheduler.waiting < count:
            await asyncio.sleep(0.001)


def test_a_client_that_hangs_up_takes_its_image_out_of_the_queue(models):
    with busy(models) as (service, heard):
        app = Client(service).app

        async def ask():
            answer, gone, said = posting(app, png(PHOTO))
            task = asyncio.create_task(answer)
            await queued(service, 2)
            gone.set()
            await task
            return said

        [start, *_] = asyncio.run(ask())
        assert start["status"] == 499
        until(lambda: heard.ends)
        [(outcome, place)] = heard.ends
        assert outcome == "cancelled"
        assert place in ("queue", "decode", "batch")
        assert service.scheduler.waiting == 1
        assert service.memory.used == 0


def test_a_connection_that_is_closed_does_too(models):
    with busy(models) as (service, heard), running(Client(service).app) as served:
        with served.wire(request("POST", "/v1/embed", png(PHOTO), content_type="image/png")):
            until(lambda: service.scheduler.waiting == 2)
        until(lambda: heard.ends)
        assert [outcome for outcome, _ in heard.ends] == ["cancelled"]
        [record] = served.access()
    assert (record["status"], record["images"], record["route"]) == (499, 1, "/v1/embed")
    assert record["stage"] in ("queue", "decode", "batch")


def test_the_log_says_where_a_request_ended(models):
    queue = QueueLimits(images=2, client_share=1)
    image = {"content_type": "image/png"}
    with busy(models, queue=queue) as (service, heard), running(Client(service).app) as served:
        assert served.ask("POST", "/v1/embed?timeout=0.05", png(PHOTO), **image).kind == "timeout"
        with served.wire(request("POST", "/v1/embed", b"half", **image | {"content_length": "9"})):
            until(lambda: served.lifecycle.accepted == 2)
        served.access(2)
        with served.wire(request("POST", "/v1/embed", png(PHOTO), **image)):
            until(lambda: service.scheduler.waiting == 2)
            assert served.ask("POST", "/v1/embed", png(PHOTO), **image).kind == "queue-full"
            heard.over.set()
            until(lambda: service.scheduler.waiting == 0)
        assert served.ask("POST", "/v1/embed", png(PHOTO), x_request_id="last", **image).status == 200
        late, half, full, *others = served.access(5)
    assert late["stage"] in ("queue", "decode", "batch")
    assert (half["stage"], half["status"]) == ("body", 499)
    assert (full["stage"], full["problem"]) == ("admission", "queue-full")
    assert ["stage" in each for each in others if each["request_id"] == "last"] == [False]


def test_who_stays_has_an_answer_when_another_leaves(models):
    with busy(models) as (service, heard):
        app = Client(service).app

        async def ask():
            leaving, gone, _ = posting(app, png(PHOTO))
            staying, _, said = posting(app, png(PHOTO))
            tasks = [asyncio.create_task(each) for each in (leaving, staying)]
            await queued(service, 3)
            gone.set()
            await tasks[0]
            heard.over.set()
            await tasks[1]
            return said

        [start, *_] = asyncio.run(ask())
        assert start["status"] == 200
        assert sorted(outcome for outcome, _ in heard.ends) == ["cancelled", "ok"]


def test_a_full_queue_refuses_before_the_body_is_read(models):
    with busy(models, limits=Limits(queued_images=1), queue=QueueLimits(images=1, client_share=1)) as (service, _):
        app = Client(service).app

        async def ask():
            said = []

            async def receive():
                raise AssertionError("the body is not asked for")

            async def send(message):
                said.append(message)

            scope = {"type": "http", "method": "POST", "path": "/v1/embed", "query_string": b"", "root_path": ""}
            await app(scope | {"headers": [(b"content-type", b"image/png")], "state": {}}, receive, send)
            return said

        [start, *_] = asyncio.run(ask())
        assert start["status"] == 503
        assert int(dict(start["headers"])[b"retry-after"]) >= 1


@pytest.mark.parametrize(
    ("queue", "status", "kind"),
    [
        (QueueLimits(images=2, client_share=1), 503, "queue-full"),
        (QueueLimits(images=8, client_share=0.25), 429, "client-queue-full"),
    ],
)
def test_a_request_with_more_images_than_there_is_room_for_leaves_none_behind(queue, status, kind, models):
    with busy(models, queue=queue) as (service, heard):
        files = [("image", (f"{at}.png", png(PHOTO))) for at in range(3)]
        response = Client(service).post("/v1/embed", files=files)
        assert (response.status_code, response.json()["type"]) == (status, f"urn:x-landmark-onnx:{kind}")
        assert int(response.headers["retry-after"]) == response.json()["retry_after"] >= 1
        assert service.scheduler.waiting == 1
        assert {outcome for outcome, _ in heard.ends} == {"refused"}  # nobody has left


def test_a_deadline_that_passes_is_a_timeout(models):
    with busy(models) as (service, heard):
        response = Client(service).post("/v1/embed?timeout=0.05", content=png(PHOTO), headers=PNG)
        assert (response.status_code, response.json()["type"]) == (504, "urn:x-landmark-onnx:timeout")
        assert [outcome for outcome, _ in heard.ends] == ["expired"]


def test_a_service_that_ends_says_so(models):
    with hosted.service_of(models) as service:
        service.scheduler.close()
        response = Client(service).post("/v1/embed", content=png(PHOTO), headers=PNG)
    assert (response.status_code, response.json()["type"]) == (503, "urn:x-landmark-onnx:draining")


def test_a_picture_whose_client_has_left_is_not_made(models, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    live = hosted.index_of(tmp_path / "places", models[0], [fakes.photo(seed=seed) for seed in range(4)])
    begun, over, made = threading.Semaphore(0), threading.Event(), []

    def slow(path, member, *, side):
        made.append(path[-5])
        begun.release()
        assert over.wait(PATIENCE)
        return b"x"

    def get(name):
        return request("GET", f"/v1/indexes/places/image?id={name}")

    monkeypatch.setattr(pictures, "thumbnail", slow)
    with (
        hosted.service_of(models, indexes={"places": live}) as served_here,
        running(Client(served_here).app) as served,
        served.wire(get(0)) as first,
        served.wire(get(1)) as second,
    ):
        try:
            assert begun.acquire(timeout=PATIENCE)
            assert begun.acquire(timeout=PATIENCE)
            with served.wire(get(2)):
                until(lambda: served_here.pictures._makers._work_queue.qsize() == 1)
            [record] = served.access()
            assert (record["status"], record["index"]) == (499, "places")
        finally:
            over.set()
        assert (first.answer().body, second.answer().body) == (b"x", b"x")
        assert served.ask("GET", "/v1/indexes/places/image?id=3").body == b"x"
    assert sorted(made) == ["0", "1", "3"]


def test_the_end_waits_no_longer_than_its_grace_for_what_is_stuck(models, monkeypatch):
    monkeypatch.setattr(services, "GRACE", 0.05)
    with busy(models) as (stuck, heard):
        closing = threading.Thread(target=stuck.close, daemon=True)
        closing.start()
        closing.join(PATIENCE)
        assert not closing.is_alive()
        assert not heard.over.is_set()
        with pytest.raises(RuntimeError, match="after shutdown"):
            stuck.pictures._makers.submit(list)
