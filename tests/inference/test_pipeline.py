import dataclasses
import itertools
import threading
import time
import types
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
from landmark_onnx.errors import ImageError, SessionError
from landmark_onnx.inference import pipeline as module
from landmark_onnx.inference import prefetch as arrivals_module
from landmark_onnx.inference.prefetch import LINGER
from landmark_onnx.results import Embedding, Failure
from pipelines import SHAPES, FakeSession, embed, make, number_of, plain


@pytest.fixture(params=[1, 2, 64], ids="{} processors".format)
def processors(request, monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: request.param)
    return request.param


@pytest.fixture
def steady(monkeypatch):
    """One decoder and a patient pipeline: what runs together does not depend on how busy the machine is."""
    monkeypatch.setattr(module, "available_cores", lambda: 1)
    monkeypatch.setattr(arrivals_module, "LINGER", 30)


@pytest.mark.usefixtures("processors")
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_order_is_kept_whatever_the_shapes_and_failures(batch_size):
    rng = np.random.default_rng(0)
    sources, wanted = [], []
    for number in range(60):
        if rng.random() < 0.2:
            sources.append(b"no image")
            wanted.append(None)
        else:
            sources.append(plain(number, SHAPES[rng.integers(3)]))
            wanted.append(number)
    session = FakeSession()
    results = list(make(session, batch_size=batch_size).run(sources))
    assert [None if isinstance(result, Failure) else number_of(result) for result in results] == wanted
    for position, (source, result) in enumerate(zip(sources, results, strict=True)):
        assert result.image == f"<{'bytes' if isinstance(source, bytes) else 'array'} {position}>"
    assert max(shape[0] for shape in session.runs) <= batch_size


@pytest.mark.usefixtures("steady")
def test_images_of_one_shape_run_together():
    session = FakeSession()
    list(make(session, batch_size=4).run([plain(i) for i in range(16)]))
    assert session.runs == [(4, 3, 32, 32)] * 4


@pytest.mark.usefixtures("steady")
def test_images_of_mixed_shapes_run_with_their_like():
    session = FakeSession()
    list(make(session, batch_size=4).run([plain(i, SHAPES[i % 2]) for i in range(16)]))
    assert sorted(session.runs) == [(4, 3, 32, 32)] * 2 + [(4, 3, 32, 64)] * 2


@pytest.mark.usefixtures("steady")
def test_what_is_left_of_a_batch_runs_too():
    session = FakeSession()
    assert len(list(make(session, batch_size=4).run([plain(i) for i in range(5)]))) == 5
    assert session.runs == [(4, 3, 32, 32), (1, 3, 32, 32)]


def test_a_detectors_images_run_one_by_one():
    session = FakeSession()
    card = fakes.small_card(fakes.DET)
    seen = []

    def answer(feeds, outputs):
        seen.append((feeds["im_info"].shape, outputs["rois"].shape))
        return Embedding(vector=outputs["probability"])

    results = list(make(session, card=card, answer=answer).run([plain(i) for i in range(6)]))
    assert len(results) == 6
    assert session.runs == [(1, 3, 64, 64)] * 6
    assert seen == [((1, 3), (7, 4))] * 6, "all rois of the image, not a row"


@pytest.mark.usefixtures("steady")
def test_a_batch_has_no_more_pixels_than_its_bound(monkeypatch):
    monkeypatch.setattr(module, "BATCH_PIXELS", 3 * 32 * 32 + 1)
    session = FakeSession()
    list(make(session, batch_size=8).run([plain(i, SHAPES[i % 2]) for i in range(12)]))
    assert sorted(session.runs) == [(1, 3, 32, 64)] * 6 + [(3, 3, 32, 32)] * 2


@pytest.mark.usefixtures("steady")
def test_a_file_that_normalises_gets_bytes():
    session = FakeSession()
    pipeline = dataclasses.replace(make(session), as_uint8=True)
    results = list(pipeline.run([plain(7, shape) for shape in (SHAPES[0], SHAPES[0], SHAPES[1])]))
    assert sorted(session.runs) == [(1, 32, 64, 3), (2, 32, 32, 3)]
    assert [float(result.vector[0]) for result in results] == [7, 7, 7]


def test_one_image_is_answered_without_a_thread():
    before = threading.active_count()
    pipeline = make(FakeSession(), answer=lambda _, outputs: seen.append(threading.active_count()) or embed(_, outputs))
    seen = []
    result = pipeline.run_one(plain(3))
    assert (number_of(result), result.image, seen) == (3, "<array 0>", [before])
    assert pipeline.run_one(b"no image").kind is ImageError


def test_nothing_in_nothing_out():
    session = FakeSession()
    assert list(make(session).run([])) == []
    assert session.runs == []


@pytest.mark.usefixtures("processors")
def test_an_endless_generator_is_taken_as_it_is_used():
    taken = alive = most_alive = 0

    def freed():
        nonlocal alive
        alive -= 1

    def endless():
        nonlocal taken, alive, most_alive
        for number in itertools.count():
            image = plain(number, SHAPES[number % 3])
            weakref.finalize(image, freed)
            taken += 1
            alive += 1
            most_alive = max(most_alive, alive)
            yield image

    answers = make(FakeSession(), batch_size=4).run(endless())
    assert taken == 0, "nothing is taken before it is asked for"
    for count, result in enumerate(itertools.islice(answers, 200), start=1):
        assert number_of(result) == (count - 1) % 256
        assert taken - count <= 4 * 4
    answers.close()
    assert most_alive <= 4 * 4 + 1


def test_answers_are_let_go():
    """Only the one that was handed out last and those of its window are alive."""
    alive = []

    def answer(feeds, outputs):
        vector = outputs["embedding"][0].copy()
        alive.append(weakref.ref(vector))
        return Embedding(vector=vector)

    most = 0
    for _ in make(FakeSession(), batch_size=2, answer=answer).run(plain(i) for i in range(80)):
        most = max(most, sum(ref() is not None for ref in alive))
    assert most <= 4 * 2 + 1


def ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("landmark-onnx")]


@pytest.mark.parametrize("answered", [0, 1, 2, 7, 40])
def test_threads_end_with_the_generator(answered):
    answers = make(FakeSession()).run(plain(i) for i in itertools.count())
    for _ in itertools.islice(answers, answered):
        assert ours()
    answers.close()
    assert not ours()


def test_threads_end_with_an_error_of_the_caller_and_with_the_last_answer():
    list(make(FakeSession()).run([plain(1)]))
    assert not ours()
    session = FakeSession()
    session.run = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        next(make(session).run(plain(i) for i in itertools.count()))
    assert not ours()


def test_a_generator_that_blocks_does_not_block_the_end():
    blocked = threading.Event()

    def source():
        yield plain(1)
        blocked.wait(30)

    answers = make(FakeSession()).run(source())
    assert number_of(next(answers)) == 1
    start = time.monotonic()
    answers.close()
    assert time.monotonic() - start < 5
    blocked.set()
    for thread in ours():
        thread.join(5)
    assert not ours()


@pytest.mark.parametrize("given_first", [1, 3, 5, 9])
def test_an_answer_does_not_wait_for_a_silent_source(given_first):
    more = threading.Event()

    def source():
        for number in range(given_first):
            yield plain(number, SHAPES[number % 2])
        assert more.wait(30), "the answers were held back"
        yield plain(given_first)

    answers = make(FakeSession(), batch_size=4).run(source())
    assert [number_of(next(answers)) for _ in range(given_first)] == list(range(given_first))
    more.set()
    assert [number_of(result) for result in answers] == [given_first]


def test_a_pause_is_told_when_all_that_came_is_answered():
    more = [threading.Event(), threading.Event()]

    def source():
        for number in range(5):
            yield plain(number, SHAPES[number % 2])
            if number in (1, 3):
                assert more[number // 2].wait(30), "a pause was not reported"

    found: list[int] = []
    for answer in make(FakeSession(), batch_size=4).paced(source()):
        if answer is not None:
            found.append(number_of(answer))
        elif len(found) in (2, 4):
            more[len(found) // 2 - 1].set()
    assert found == [0, 1, 2, 3, 4]


def test_a_steady_run_tells_of_no_pause():
    def source():
        for number in range(3):
            time.sleep(0.1)
            yield plain(number)

    assert [number_of(answer) for answer in make(FakeSession()).paced(source(), steady=True)] == [0, 1, 2]


@pytest.mark.usefixtures("steady")
def test_a_rare_shape_does_not_wait_for_its_like():
    """Its bucket goes when half of what may be in memory has come after it, while decoding goes on."""
    session = FakeSession()
    taken = itertools.count()
    sources = (plain(number, SHAPES[number == 0]) for number in taken)
    answers = make(session, batch_size=4).run(sources)
    next(answers)
    alone = session.runs.index((1, 3, 32, 64))
    assert set(session.runs[:alone]) <= {(4, 3, 32, 32)}
    assert alone <= 3
    answers.close()


def test_decoding_goes_on_beside_inference():
    session = FakeSession()
    taken, beside = [], []

    def source():
        for number in range(8):
            taken.append(number)
            yield plain(number)

    real = session.run

    def run(feeds):
        time.sleep(0.1)
        beside.append(len(taken))
        return real(feeds)

    session.run = run
    assert len(list(make(session, batch_size=2).run(source()))) == 8
    assert beside[0] >= 6, "while the first batch ran, those of the next ones came in"


def test_an_error_of_the_generator_is_the_callers_after_the_answers_of_what_came_before():
    def broken():
        yield plain(1)
        yield plain(2, (40, 80))
        raise ZeroDivisionError

    answers = make(FakeSession()).run(broken())
    assert [number_of(next(answers)), number_of(next(answers))] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(answers)
    assert not ours()


def test_an_error_that_is_none_of_ours_is_the_callers(monkeypatch):
    monkeypatch.setattr(module, "read_image", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(make(FakeSession()).run([plain(1)]))
    assert not ours()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*SHAPES, (32, 32), None]), max_size=40),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_answers_are_those_of_one_by_one(shapes, batch_size, cores, pauses):
    """In order, each source taken once, never more in memory than the bound; one shape cannot be run, None not read."""
    sources = [b"no image" if shape is None else plain(at, shape) for at, shape in enumerate(shapes)]
    alone = [make(FakeSession(refuse={(64, 32)})).run_one(source) for source in sources]
    taken = []

    def source():
        for at, each in enumerate(sources):
            if pauses and at % 7 == pauses:
                time.sleep(LINGER * 1.5)
            taken.append(at)
            yield each

    session = FakeSession(refuse={(64, 32)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "available_cores", lambda: cores)
        bound = max(4 * batch_size, 2 * cores)
        results = []
        for result in make(session, batch_size=batch_size).run(source()):
            assert len(taken) - len(results) <= bound
            results.append(result)
    assert taken == list(range(len(shapes)))
    assert all(shape[0] <= batch_size for shape in session.runs)
    for at, (got, wanted) in enumerate(zip(results, alone, strict=True)):
        assert type(got) is type(wanted)
        assert got.image == wanted.image.replace(" 0>", f" {at}>")
        if isinstance(got, Embedding):
            np.testing.assert_array_equal(got.vector, wanted.vector)
        else:
            assert got.kind is wanted.kind
    assert not ours()


@pytest.mark.usefixtures("steady")
def test_a_run_that_fails_fails_its_images_and_no_others():
    session = FakeSession(refuse={(32, 64)})
    results = list(make(session).run([plain(0), plain(1, (40, 80)), plain(2, (40, 80)), plain(3)]))
    assert [type(result) for result in results] == [Embedding, Failure, Failure, Embedding]
    assert results[1] == Failure(image="<array 1>", error="<array 1>: too large: (1, 3, 32, 64)", kind=SessionError)


class FullSession(FakeSession):
    """Has memory for so many images at a time."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error = most, error

    def run(self, feeds):
        if len(feeds["image"]) > self.most:
            self.runs.append(feeds["image"].shape)
            raise self.error
        return super().run(feeds)


def no_memory(words="Failed to allocate memory for requested buffer of size 4096"):
    error = SessionError("model.onnx: cannot run")
    error.__cause__ = RuntimeError(words)
    return error


@pytest.fixture
def clock(monkeypatch):
    """The time that the allowance sees."""
    now = types.SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.seconds)
    return now


def batch(pipeline, count):
    return [pipeline.prepare(plain(number), str(number), 0.0) for number in range(count)]


@pytest.mark.parametrize(
    "error",
    [
        no_memory(),
        no_memory("CUDA failure 2: out of memory"),
        no_memory("bad allocation"),
        no_memory("CL_OUT_OF_RESOURCES"),
        MemoryError(),
    ],
)
def test_a_batch_without_memory_runs_one_by_one_and_half_of_it_for_a_minute(error, clock):
    pipeline = make(FullSession(2, error), batch_size=4)
    items = batch(pipeline, 4)
    assert pipeline.room(items[0]) == 4
    assert [number_of(answer) for answer in pipeline.run_batch(items)] == [0, 1, 2, 3]
    assert [shape[0] for shape in pipeline.session.runs] == [4, 1, 1, 1, 1]
    assert pipeline.room(items[0]) == 2
    clock.seconds += module.RELIEF - 1
    assert pipeline.room(items[0]) == 2
    clock.seconds += 1
    assert pipeline.room(items[0]) == 4


def test_a_batch_that_fails_for_one_of_its_images_keeps_its_room():
    class Picky(FakeSession):
        def run(self, feeds):
            if feeds["image"].max() > 0:
                raise SessionError("model.onnx: no such image")
            return super().run(feeds)

    pipeline = make(Picky(), batch_size=4)
    items = [pipeline.prepare(plain(number), str(number), 0.0) for number in (1, 255, 3)]
    answers = pipeline.run_batch(items)
    assert [type(answer) for answer in answers] == [Embedding, Failure, Embedding]
    assert answers[1] == Failure(image="255", error="255: model.onnx: no such image", kind=SessionError)
    assert pipeline.room(items[0]) == 4


def test_no_memory_for_one_image_alone_fails_it():
    pipeline = make(FullSession(0, MemoryError()), batch_size=4)
    [answer] = pipeline.run_batch(batch(pipeline, 1))
    assert answer == Failure(image="0", error="0: there is not enough memory to run it", kind=SessionError)
    assert pipeline.allowance.of(4) == 4


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("steady_run", [False, True])
def test_a_stream_goes_on_with_half_a_batch_and_a_steady_one_with_the_whole(steady_run):
    session = FullSession(2, no_memory())
    pipeline = make(session, batch_size=4)
    assert [number_of(answer) for answer in pipeline.run(map(plain, range(12)), steady=steady_run)] == list(range(12))
    later = [4, 1, 1, 1, 1] if steady_run else [2, 2]
    assert [shape[0] for shape in session.runs][-len(later) :] == later


@pytest.mark.usefixtures("processors")
def test_no_memory_for_one_decode_is_that_images_failure(monkeypatch):
    real = module.read_image

    def read_image(source, **options):
        if options["name"] == "<array 2>":
            raise MemoryError
        return real(source, **options)

    monkeypatch.setattr(module, "read_image", read_image)
    answers = list(make(FakeSession()).run(map(plain, range(5))))
    assert answers[2] == Failure(
        image="<array 2>", error="<array 2>: there is not enough memory to decode it", kind=ImageError
    )
    assert [number_of(answers[at]) for at in (0, 1, 3, 4)] == [0, 1, 3, 4]


def test_an_answer_that_fails_fails_its_image_alone():
    def answer(_, outputs):
        if outputs["embedding"][0, 0] > 0:
            raise SessionError("not finite")
        return Embedding(vector=outputs["embedding"][0])

    results = list(make(FakeSession(), answer=answer).run([plain(0), plain(255), plain(1)]))
    assert [type(result) for result in results] == [Embedding, Failure, Embedding]
    assert results[1] == Failure(image="<array 1>", error="<array 1>: not finite", kind=SessionError)


def test_names_of_files_and_the_limit_of_pixels(tmp_path):
    results = list(make(FakeSession(), max_pixels=1000).run([tmp_path / "none.jpg", plain(0), str(tmp_path)]))
    assert [result.image for result in results] == [str(tmp_path / "none.jpg"), "<array 1>", str(tmp_path)]
    assert all(isinstance(result, Failure) and result.error.startswith(result.image) for result in results)
    assert "over the limit of 1,000" in results[1].error


def test_each_answer_says_where_its_time_went():
    session = FakeSession()
    session.seconds = 0.1
    result, other = itertools.islice(make(session).run([plain(i) for i in range(4)]), 2)
    times = dataclasses.asdict(result.time)
    assert set(times) == {"decode", "preprocess", "inference", "postprocess"}
    assert all(0 < seconds < 10 for seconds in times.values())
    assert result.time.inference == other.time.inference
    assert 0.1 / 4 <= result.time.inference < 0.1, "a share of their batch"


@pytest.mark.usefixtures("processors")
@pytest.mark.parametrize("start", [0, 1, 7, 31, 59, 60])
def test_what_is_known_keeps_its_place_in_the_batches_and_is_not_run_alone(start):
    rng = np.random.default_rng(0)
    sources = [b"no image" if rng.random() < 0.1 else plain(at, SHAPES[rng.integers(3)]) for at in range(60)]
    whole, rest = FakeSession(), FakeSession()
    wanted = list(make(whole).run(sources, steady=True))[start:]
    results = list(make(rest).run(sources, steady=True, known=lambda position: position < start))
    assert [result.image for result in results] == [result.image for result in wanted]
    for result, other in zip(results, wanted, strict=True):
        assert isinstance(result, Failure) or (result.vector == other.vector).all()
    assert not rest.runs or rest.runs == whole.runs[-len(rest.runs) :]
    assert sum(shape[0] for shape in rest.runs) <= 60 - start + 3 * 4
