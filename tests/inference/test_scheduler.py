import concurrent.futures
import contextlib
import subprocess
import sys
import threading
import types
import weakref

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
from landmark_onnx.errors import (
    ClientQueueFullError,
    DeadlineError,
    ImageError,
    QueueFullError,
    SchedulerClosedError,
    SessionError,
    TooLateError,
)
from landmark_onnx.inference import admission, requests
from landmark_onnx.inference import scheduler as module
from landmark_onnx.inference.admission import UNKNOWN_COST, QueueLimits
from landmark_onnx.inference.scheduler import Scheduler
from landmark_onnx.model import Classifier, Detector, Retriever
from landmark_onnx.results import Embedding, Failure
from pipelines import SHAPES, FakeSession, make, number_of, plain
from scheduled import PATIENCE, Events, Gate, SlowFile, SteppedSession, nothing_is_left, place_of, reached, until


def png(number, shape=(40, 40)):
    return cv2.imencode(".png", plain(number, shape))[1].tobytes()


def answer_of(future):
    [answer] = future.result(PATIENCE).answers
    return answer


def numbers_of(futures):
    return [number_of(answer_of(future)) for future in futures]


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def two_decoders(monkeypatch):
    for each in (module, admission):
        monkeypatch.setattr(each, "decoders", lambda: 2)


@pytest.fixture
def scheduler(two_decoders, events):
    with Scheduler(events=events) as made:
        yield made


def test_a_lone_request_waits_for_nobody(monkeypatch):
    """Nothing on its way is timed, so there is no time for which it might wait for company."""
    timeouts = []

    class Condition(threading.Condition):
        def wait(self, timeout=None):
            if threading.current_thread().name.startswith(module.NAME):
                timeouts.append(timeout)
            return super().wait(timeout)

    monkeypatch.setattr(module.threading, "Condition", Condition)
    session = FakeSession()
    with Scheduler() as scheduler:
        outcome = scheduler.submit(plain(3), [make(session, batch_size=4)]).result(PATIENCE)
    assert number_of(outcome.answers[0]) == 3
    assert (outcome.size, outcome.queue >= 0) == ((40, 40), True)
    assert session.runs == [(1, 3, 32, 32)]
    assert timeouts
    assert set(timeouts) <= {None, threading.TIMEOUT_MAX}


def test_what_waits_while_one_runs_is_a_batch(scheduler, events):
    session = SteppedSession()
    pipeline = make(session, batch_size=4)
    futures = [scheduler.submit(plain(0), [pipeline])]
    until(lambda: session.started == 1)
    futures += [scheduler.submit(plain(number), [pipeline]) for number in range(1, 6)]
    until(lambda: events.decodes == 6)
    session.step(3)
    assert numbers_of(futures) == list(range(6))
    assert [shape[0] for shape in session.runs] == [1, 4, 1]
    until(lambda: len(events.ends) == 6)
    assert events.runs == [(pipeline.name, 1), (pipeline.name, 4), (pipeline.name, 1)]
    assert events.ends == [("ok", "answer")] * 6


def test_a_ready_image_does_not_wait_for_anothers_slow_decode(scheduler):
    slow, pipeline = SlowFile(png(1)), make(FakeSession())
    late = scheduler.submit(slow, [pipeline])
    reached(slow.gate.entered)
    assert number_of(answer_of(scheduler.submit(plain(2), [pipeline]))) == 2
    assert not late.done()
    slow.gate.opened.set()
    assert number_of(answer_of(late)) == 1


def test_a_rare_shape_is_answered_when_it_is_computed(scheduler, events):
    session = SteppedSession()
    pipeline = make(session, batch_size=4)
    rare = scheduler.submit(plain(0, SHAPES[1]), [pipeline])
    until(lambda: session.started == 1)
    others = [scheduler.submit(plain(number), [pipeline]) for number in range(1, 13)]
    until(lambda: events.decodes == 13)
    session.step()
    assert number_of(answer_of(rare)) == 0
    assert not any(future.done() for future in others), "and while the others are still to be run"
    session.step()
    assert numbers_of(others[:4]) == [1, 2, 3, 4]
    assert not any(future.done() for future in others[4:])
    session.step(2)
    assert numbers_of(others) == list(range(1, 13))
    assert session.runs == [(1, 3, 32, 64), *[(4, 3, 32, 32)] * 3]


def test_no_memory_for_one_image_fails_that_image(scheduler, monkeypatch):
    real = requests.read_image

    def read_image(source, **options):
        if options["name"] == "huge":
            raise MemoryError
        return real(source, **options)

    monkeypatch.setattr(requests, "read_image", read_image)
    pipeline = make(FakeSession())
    futures = [scheduler.submit(plain(number), [pipeline], name=name) for number, name in enumerate("ab")]
    huge = scheduler.submit(plain(5), [pipeline], name="huge").result(PATIENCE)
    assert numbers_of(futures) == [0, 1]
    assert huge.size is None
    assert huge.answers == (
        Failure(image="huge", error="huge: there is not enough memory to decode it", kind=ImageError),
    )


def test_one_decode_serves_all_models(scheduler):
    slow = SlowFile(png(7, (90, 120)))
    slow.gate.opened.set()
    detector = make(FakeSession(), card=fakes.small_card(fakes.DET), answer=lambda _, outputs: outputs_of(outputs))
    broken = make(FakeSession(refuse={(32, 32), (32, 40)}))

    def outputs_of(outputs):
        return Embedding(vector=outputs["rois"])

    outcome = scheduler.submit(slow, [make(FakeSession()), detector, broken], name="a.png").result(PATIENCE)
    assert slow.reads == 1
    assert outcome.size == (120, 90)
    assert [type(answer) for answer in outcome.answers] == [Embedding, Embedding, Failure]
    assert number_of(outcome.answers[0]) == 7
    assert outcome.answers[1].vector.shape == (7, 4)
    assert [answer.image for answer in outcome.answers] == ["a.png"] * 3


def test_a_crop_is_what_is_answered_and_its_error_the_images(scheduler):
    image = np.concatenate([plain(10, (50, 50)), plain(200, (50, 50))], axis=1)
    pipeline = make(FakeSession())

    def outside(_):
        raise ImageError("a: the crop is outside")

    right = scheduler.submit(image, [pipeline], crop=lambda pixels: pixels[:, 50:])
    failed = scheduler.submit(image, [pipeline, pipeline], crop=outside)
    assert number_of(answer_of(right)) == 200
    assert right.result().size == (100, 50)
    assert failed.result(PATIENCE).size == (100, 50)
    assert [answer.error for answer in failed.result().answers] == ["a: the crop is outside"] * 2


class Items:
    """A stage of ready items: each runs with its like, and some cannot be run."""

    name = "items"

    def __init__(self, room=4):
        self.size, self.batches, self.gate = room, [], Gate()

    def kind(self, item):
        return type(item)

    def room(self, item):
        return self.size

    def run_batch(self, items):
        self.gate()
        self.batches.append(list(items))
        return [10 / item for item in items]


def test_ready_items_share_the_device_and_a_fault_costs_its_item_alone(scheduler):
    stage = Items()
    first = scheduler.submit_ready(stage, 5)
    reached(stage.gate.entered)
    futures = [scheduler.submit_ready(stage, item) for item in (1, 0, 2.0, 10)]
    stage.gate.opened.set()
    assert first.result(PATIENCE) == 2
    with pytest.raises(ZeroDivisionError):
        futures[1].result(PATIENCE)
    assert [futures[at].result(PATIENCE) for at in (0, 2, 3)] == [10, 5, 1]
    assert [5] in stage.batches
    assert [1, 0, 10] in stage.batches
    assert [2.0] in stage.batches
    until(lambda: nothing_is_left(scheduler))


def test_the_device_goes_on_after_whatever_goes_wrong(scheduler, events, monkeypatch):
    events.ran = lambda *_: 1 / 0
    pipeline = make(FakeSession(refuse={(32, 64)}))
    fault = scheduler.submit(plain(1), [pipeline], crop=lambda _: 1 / 0)
    refused = scheduler.submit(plain(1, SHAPES[1]), [pipeline])
    assert isinstance(fault.exception(PATIENCE), ZeroDivisionError)
    assert answer_of(refused).kind is SessionError
    assert number_of(answer_of(scheduler.submit(plain(4), [pipeline]))) == 4
    until(lambda: len(events.ends) == 3)
    assert events.ends == [("failed", "decode"), ("failed", "run"), ("ok", "answer")]


def test_who_sends_one_waits_for_two_batches_of_who_sends_many(scheduler, events):
    session = SteppedSession()
    pipeline = make(session, batch_size=4)
    greedy = [scheduler.submit(plain(number), [pipeline], client="greedy") for number in range(40)]
    until(lambda: session.started == 1)
    until(lambda: events.decodes == 16)
    polite = scheduler.submit(plain(99), [pipeline], client="polite")
    for batches in range(1, 4):
        session.step()
        until(lambda done=batches: session.started == done + 1)
        until(lambda: place_of(scheduler, polite) not in ("queue", "decode"))
        if polite.done():
            break
    assert number_of(polite.result(0).answers[0]) == 99
    assert batches <= 3, "the one that ran, one more, its own"
    session.step(20)
    assert numbers_of(greedy) == list(range(40))


def test_a_newcomer_is_numbered_by_the_first_of_what_runs(scheduler):
    stage = Items()
    first = scheduler.submit_ready(stage, 1)
    reached(stage.gate.entered)
    futures = [scheduler.submit_ready(stage, 1) for _ in range(4)]
    stage.gate.opened.set()
    assert [future.result(PATIENCE) for future in [first, *futures]] == [10] * 5
    assert stage.batches == [[1], [1] * 4]
    assert scheduler._queue.number("new", 0) == pytest.approx(2 * UNKNOWN_COST), "and not by the last of its batch"


def test_cancelled_in_the_queue_it_is_gone_with_its_bytes(scheduler, events):
    slow, pipeline = [SlowFile(png(number)) for number in range(2)], make(FakeSession())
    held = [scheduler.submit(each, [pipeline]) for each in slow]
    for each in slow:
        reached(each.gate.entered)
    image = plain(3)
    alive = weakref.ref(image)
    future = scheduler.submit(image, [pipeline])
    del image
    assert future.cancel()
    assert alive() is None
    assert scheduler.waiting == 2
    assert events.ends == [("cancelled", "queue")]
    assert concurrent.futures.wait([future], PATIENCE).done == {future}
    for each in slow:
        each.gate.opened.set()
    assert numbers_of(held) == [0, 1]


def test_cancelled_while_it_is_decoded_it_never_runs(scheduler, events):
    slow, session = SlowFile(png(1)), FakeSession()
    future = scheduler.submit(slow, [make(session)])
    reached(slow.gate.entered)
    assert future.cancel()
    slow.gate.opened.set()
    until(lambda: events.decodes == 1)
    until(lambda: nothing_is_left(scheduler))
    assert events.ends == [("cancelled", "decode")]
    assert number_of(answer_of(scheduler.submit(plain(2), [make(session)]))) == 2
    assert session.runs == [(1, 3, 32, 32)]


def test_cancelled_in_a_batch_it_does_not_run_and_while_it_runs_it_is_thrown_away(scheduler, events):
    session = SteppedSession()
    pipeline = make(session)
    running = scheduler.submit(plain(0), [pipeline])
    until(lambda: session.started == 1)
    waiting = [scheduler.submit(plain(number), [pipeline]) for number in (1, 2, 3)]
    until(lambda: events.decodes == 4)
    assert waiting[1].cancel()
    assert running.cancel()
    session.step(2)
    assert numbers_of([waiting[0], waiting[2]]) == [1, 3]
    assert [shape[0] for shape in session.runs] == [1, 2]
    assert events.ends[:2] == [("cancelled", "batch"), ("cancelled", "run")]
    until(lambda: nothing_is_left(scheduler))


def test_closed_it_fails_what_waits_and_answers_what_runs(two_decoders, events):
    session, slow = SteppedSession(), SlowFile(png(1))
    scheduler = Scheduler(events=events)
    running = scheduler.submit(plain(0), [make(session)])
    until(lambda: session.started == 1)
    waiting = [scheduler.submit(source, [make(session)]) for source in (plain(1), slow)]
    until(lambda: events.decodes == 2)
    reached(slow.gate.entered)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    until(lambda: scheduler._closed)
    with pytest.raises(SchedulerClosedError):
        scheduler.submit(plain(1), [make(session)])
    session.step()
    slow.gate.opened.set()
    closing.join(PATIENCE)
    assert number_of(answer_of(running)) == 0
    assert all(isinstance(future.exception(0), SchedulerClosedError) for future in waiting)
    assert not any(thread.is_alive() for thread in scheduler._threads)
    scheduler.close()


@pytest.fixture
def later(monkeypatch, scheduler):
    """Lets so many seconds pass for the scheduler."""
    passed, real = [0.0], module.time.monotonic
    clock = types.SimpleNamespace(monotonic=lambda: real() + passed[0], perf_counter=module.time.perf_counter)
    monkeypatch.setattr(module, "time", clock)

    def let(seconds):
        passed[0] += seconds
        with scheduler._changed:
            scheduler._sooner.notify_all()

    return let


def expired(future):
    error = future.exception(PATIENCE)
    assert isinstance(error, DeadlineError)
    return str(error)


def test_a_deadline_holds_at_each_stage(scheduler, events, later):
    session, slow = SteppedSession(), [SlowFile(png(number)) for number in range(2)]
    pipeline = make(session)
    running = scheduler.submit(plain(0), [pipeline], timeout=100, name="running")
    until(lambda: session.started == 1)
    waiting = scheduler.submit(plain(1), [pipeline], timeout=200, name="waiting")
    until(lambda: events.decodes == 2)
    decoding = [scheduler.submit(each, [pipeline], timeout=300) for each in slow]
    for each in slow:
        reached(each.gate.entered)
    queued = scheduler.submit(plain(2), [pipeline], timeout=400, name="queued")
    lasting = scheduler.submit(plain(3), [pipeline], timeout=3600)
    later(101)
    assert expired(running) == "running: no answer within 100 s"
    assert not waiting.done()
    later(100)
    assert expired(waiting) == "waiting: no answer within 200 s"
    later(100)
    assert [expired(future) for future in decoding] == ["slow.png: no answer within 300 s"] * 2
    later(100)
    assert expired(queued) == "queued: no answer within 400 s"
    until(lambda: len(events.ends) == 5)
    assert events.ends == [("expired", place) for place in ("run", "batch", "decode", "decode", "queue")]
    for each in slow:
        each.gate.opened.set()
    session.step(2)
    assert number_of(answer_of(lasting)) == 3
    assert [shape[0] for shape in session.runs] == [1, 1], "what was late did not run"
    until(lambda: nothing_is_left(scheduler))


def test_a_sooner_deadline_than_all_others_is_seen(scheduler):
    slow = SlowFile(png(1))
    lasting = scheduler.submit(slow, [make(FakeSession())], timeout=3600)
    reached(slow.gate.entered)
    other = SlowFile(png(2))
    assert "within 0.05 s" in expired(scheduler.submit(other, [make(FakeSession())], timeout=0.05))
    for each in (slow, other):
        each.gate.opened.set()
    assert number_of(answer_of(lasting)) == 1


def test_as_much_is_decoded_at_once_as_fits(two_decoders):
    """Of 40 x 40 pixels, 4,800 bytes each."""
    meeting, pipeline = threading.Barrier(2), make(FakeSession())
    with Scheduler(limits=QueueLimits(decoded_bytes=10_000)) as scheduler:
        met = [
            scheduler.submit(source, [pipeline], crop=lambda image: (meeting.wait(PATIENCE), image)[1])
            for source in (png(0), plain(1))
        ]
        assert numbers_of(met) == [0, 1]


@pytest.mark.parametrize("budget", [9_000, 100])
def test_no_more_is_decoded_at_once_than_fits(two_decoders, budget):
    gate, pipeline, order = Gate(), make(FakeSession()), []
    with Scheduler(limits=QueueLimits(decoded_bytes=budget)) as scheduler:
        first = scheduler.submit(png(0), [pipeline], crop=gate)
        reached(gate.entered)
        second = scheduler.submit(plain(1), [pipeline], crop=lambda image: (order.append("in"), image)[1])
        until(scheduler._memory._turn.locked)
        assert order == []
        gate.opened.set()
        assert numbers_of([first, second]) == [0, 1]
        until(lambda: nothing_is_left(scheduler))


def test_what_is_resized_is_held_and_not_its_photo(scheduler):
    session, image = SteppedSession(), plain(5, (400, 400))
    alive = weakref.ref(image)
    first = scheduler.submit(plain(0), [make(session)])
    until(lambda: session.started == 1)
    second = scheduler.submit(image, [make(session)])
    del image
    until(lambda: place_of(scheduler, second) == "batch")
    until(lambda: alive() is None)
    assert scheduler._memory._used == 2 * (32 * 32 * 3 + 6 * 4), "two small images and where they are"
    session.step(2)
    assert numbers_of([first, second]) == [0, 5]


def test_a_header_that_claims_more_than_the_limit_waits_for_no_memory(two_decoders):
    slow, pipeline = threading.Event(), make(FakeSession(), max_pixels=10_000)
    with Scheduler(limits=QueueLimits(decoded_bytes=10_000)) as scheduler:
        held = scheduler.submit(plain(1), [pipeline], crop=lambda image: (reached(slow), image)[1])
        claims = scheduler.submit(png(2, (200, 200)), [pipeline])
        assert "over the limit of 10,000" in answer_of(claims).error
        assert not held.done()
        slow.set()
        assert number_of(answer_of(held)) == 1


def test_limits_are_those_of_all_and_of_a_client(two_decoders):
    stage = Items()
    with Scheduler(limits=QueueLimits(images=4)) as scheduler:
        futures = [scheduler.submit_ready(stage, 1, client="a") for _ in range(2)]
        with pytest.raises(ClientQueueFullError):
            scheduler.submit(plain(1), [make(FakeSession())], client="a")
        futures += [scheduler.submit_ready(stage, 1, client="b") for _ in range(2)]
        with pytest.raises(QueueFullError):
            scheduler.submit_ready(stage, 1, client="c")
        assert (scheduler.waiting, scheduler.retry_after()) == (4, 0)
        stage.gate.opened.set()
        assert [future.result(PATIENCE) for future in futures] == [10] * 4
        until(lambda: scheduler.waiting == 0)
        scheduler.submit_ready(stage, 1, client="c").result(PATIENCE)


def test_what_goes_on_with_something_admitted_is_not_refused(two_decoders):
    stage = Items()
    with Scheduler(limits=QueueLimits(images=1)) as scheduler:
        first = scheduler.submit_ready(stage, 1, client="a")
        with pytest.raises(QueueFullError):
            scheduler.submit_ready(stage, 2, client="a")
        scheduler._open.costs.ran(stage.name, 100.0)
        second = scheduler.submit_ready(stage, 2, client="a", timeout=PATIENCE, again=True)
        stage.gate.opened.set()
        assert [each.result(PATIENCE) for each in (first, second)] == [10, 5]


def test_what_is_withdrawn_tells_why_and_once(scheduler, events):
    stage = Items(room=1)
    running = scheduler.submit_ready(stage, 1)
    reached(stage.gate.entered)
    waiting = scheduler.submit_ready(stage, 2)
    for _ in range(2):
        scheduler.withdraw(waiting, "refused")
    assert waiting.cancelled()
    stage.gate.opened.set()
    assert running.result(PATIENCE) == 10
    scheduler.withdraw(running, "refused")
    until(lambda: nothing_is_left(scheduler))
    assert events.ends == [("refused", "batch"), ("ok", "answer")]
    assert stage.batches == [[1]]


def test_what_an_image_takes_is_learnt(scheduler):
    pipeline = make(FakeSession())
    assert scheduler._open.costs.of([pipeline]) == 0
    scheduler.submit(plain(1), [pipeline]).result(PATIENCE)
    assert 0 < scheduler._open.costs.of([pipeline]) < PATIENCE


def test_drained_it_answers_what_was_admitted_and_takes_nothing_new(two_decoders):
    session = SteppedSession()
    scheduler = Scheduler()
    futures = [scheduler.submit(plain(number), [make(session)]) for number in range(9)]
    answered = []
    draining = threading.Thread(target=lambda: answered.append(scheduler.drain(PATIENCE)))
    draining.start()
    until(lambda: scheduler._draining)
    with pytest.raises(SchedulerClosedError):
        scheduler.submit(plain(1), [make(session)])
    session.step(9)
    draining.join(PATIENCE)
    assert answered == [True]
    assert numbers_of(futures) == list(range(9))
    assert not any(thread.is_alive() for thread in scheduler._threads)


def test_a_drain_that_takes_too_long_says_so(two_decoders):
    session = SteppedSession()
    scheduler = Scheduler()
    first, second = [scheduler.submit(plain(number), [make(session, batch_size=1)]) for number in range(2)]
    until(lambda: session.started == 1)
    answered = []
    draining = threading.Thread(target=lambda: answered.append(scheduler.drain(0.01)))
    draining.start()
    until(lambda: scheduler._closed)
    session.step()
    draining.join(PATIENCE)
    assert answered == [False]
    assert number_of(answer_of(first)) == 0
    assert isinstance(second.exception(0), SchedulerClosedError)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*SHAPES, "damaged", "fault", "refused", "ready"]),
            st.sampled_from("abc"),
            st.sampled_from(["", "", "cancel", "deadline"]),
        ),
        max_size=30,
    ),
    st.integers(1, 5),
    st.sampled_from([100, 10_000, 1 << 30]),
)
def test_each_request_ends_once_whatever_comes(asked, batch_size, decoded_bytes):
    session, events, ends = FakeSession(refuse={(96, 32)}), Events(), []
    pipeline, stage = make(session, batch_size=batch_size), Items(batch_size)
    stage.gate.opened.set()
    futures = {}

    def submit(number, kind, **given):
        if kind == "ready":
            return scheduler.submit_ready(stage, number + 1, **given)
        shape = {"damaged": None, "refused": (96, 32), "fault": (40, 40)}.get(kind, kind)
        source = plain(number, shape) if shape else b"no image"
        crop = (lambda _: 1 / 0) if kind == "fault" else None
        return scheduler.submit(source, [pipeline, pipeline], crop=crop, **given)

    with Scheduler(limits=QueueLimits(decoded_bytes=decoded_bytes), events=events) as scheduler:
        for number, (kind, client, fate) in enumerate(asked):
            timeout = 1e-4 if fate == "deadline" else None
            with contextlib.suppress(TooLateError):
                futures[number] = submit(number, kind, client=client, timeout=timeout)
                futures[number].add_done_callback(ends.append)
                if fate == "cancel":
                    futures[number].cancel()
        assert scheduler.drain(PATIENCE)
        assert nothing_is_left(scheduler)
    assert len(ends) == len(set(map(id, ends))) == len(futures) == len(events.ends)
    for number, (kind, _, fate) in enumerate(asked):
        if number not in futures:
            assert fate == "deadline"
            continue
        future = futures[number]
        assert future.done()
        if future.cancelled():
            assert fate == "cancel"
        elif isinstance(future.exception(), DeadlineError):
            assert fate == "deadline"
        elif kind == "fault":
            assert isinstance(future.exception(), ZeroDivisionError)
        elif kind == "ready":
            assert future.result() == 10 / (number + 1)
        elif kind in ("damaged", "refused"):
            wanted = ImageError if kind == "damaged" else SessionError
            assert [answer.kind for answer in future.result().answers] == [wanted] * 2
        else:
            assert [number_of(answer) for answer in future.result().answers] == [number] * 2


@pytest.mark.parametrize(
    ("kind", "maker"),
    [(Retriever, fakes.make_retrieval), (Classifier, fakes.make_cls), (Detector, fakes.make_det)],
)
def test_alone_it_is_what_the_model_says_to_the_bit(scheduler, tmp_path, kind, maker):
    model = kind(maker(tmp_path / "model.onnx"), threads=1)
    photo = fakes.photo()
    future = scheduler.submit(photo, [model.pipeline])
    answer, wanted = answer_of(future).to_json(), model(photo).to_json()
    assert answer == wanted


FORGETS = """
import sys
sys.path[:0] = {paths!r}
from landmark_onnx.inference.scheduler import Scheduler
from pipelines import FakeSession, make, plain
session = FakeSession()
session.seconds = 0.2
scheduler = Scheduler()
futures = [scheduler.submit(plain(number), [make(session, batch_size=1)]) for number in range(60)]
futures[0].result(30)
futures[-1].add_done_callback(lambda future: print(type(future.exception()).__name__))
print("left")
"""


def test_a_program_that_forgets_to_close_ends():
    found = subprocess.run(
        [sys.executable, "-c", FORGETS.format(paths=sys.path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "left\nSchedulerClosedError\n", "")
