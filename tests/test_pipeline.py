import dataclasses
import itertools
import threading
import time
import weakref

import numpy as np
import pytest

import fakes
from landmark_onnx import pipeline as module
from landmark_onnx.errors import SessionError
from landmark_onnx.pipeline import Pipeline
from landmark_onnx.results import Embedding, Failure

CARD = fakes.small_card(fakes.RETRIEVAL, size=32)
SHAPES = [(40, 40), (40, 80), (80, 40)]


class FakeSession:
    """Answers the mean of each image, of which `plain` makes its number; remembers the shape of each run."""

    def __init__(self, refuse=()):
        self.runs = []
        self.seconds = 0
        self.refuse = refuse

    def run(self, card, feeds):
        shape = feeds["image"].shape
        self.runs.append(shape)
        time.sleep(self.seconds)
        if shape[2:] in self.refuse:
            raise SessionError(f"too large: {shape}")
        if card.task == "det":
            return {"rois": np.zeros((7, 4)), "probability": feeds["image"].mean(keepdims=True)[0, 0]}
        return {"embedding": feeds["image"].mean(axis=(1, 2, 3))[:, np.newaxis]}


def plain(number, shape=(40, 40)):
    return np.full((*shape, 3), number % 256, np.uint8)


def number_of(result):
    """Which image a result is of: its mean, turned back."""
    mean = np.mean(CARD.preprocess.mean)
    spread = np.mean(1 / np.array(CARD.preprocess.std))
    offset = np.mean(np.array(CARD.preprocess.mean) / np.array(CARD.preprocess.std))
    assert mean > 0
    return round((float(result.vector[0]) + offset) / spread * 255)


def make(session, *, batch_size=4, card=CARD, max_pixels=10**6, answer=None):
    def embed(feeds, outputs):
        return Embedding(vector=outputs["embedding"][0])

    return Pipeline(session=session, card=card, answer=answer or embed, batch_size=batch_size, max_pixels=max_pixels)


@pytest.fixture(params=[1, 2, 64], ids="{} processors".format)
def processors(request, monkeypatch):
    monkeypatch.setattr(module.os, "cpu_count", lambda: request.param)
    return request.param


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


def test_images_of_one_shape_run_together():
    session = FakeSession()
    list(make(session, batch_size=4).run([plain(i) for i in range(16)]))
    assert session.runs == [(4, 3, 32, 32)] * 4


def test_images_of_mixed_shapes_run_with_their_like():
    session = FakeSession()
    list(make(session, batch_size=4).run([plain(i, SHAPES[i % 2]) for i in range(16)]))
    assert session.runs == [(4, 3, 32, 32), (4, 3, 32, 64)] * 2


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
    window = max(2 * 4, 4)
    for count, result in enumerate(itertools.islice(answers, 200), start=1):
        assert number_of(result) == (count - 1) % 256
        assert taken - count < 2 * window
    answers.close()
    assert most_alive <= 2 * window + 1


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
    assert most <= 8


def test_threads_end_with_the_generator():
    def ours():
        return [thread for thread in threading.enumerate() if thread.name.startswith("landmark-onnx")]

    answers = make(FakeSession()).run(plain(i) for i in itertools.count())
    next(answers)
    assert ours()
    answers.close()
    assert not ours()


def test_an_error_of_the_generator_is_the_callers():
    def broken():
        yield plain(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(make(FakeSession()).run(broken()))


def test_a_run_that_fails_fails_its_images_and_no_others():
    session = FakeSession(refuse={(32, 64)})
    results = list(make(session).run([plain(0), plain(1, (40, 80)), plain(2, (40, 80)), plain(3)]))
    assert [type(result) for result in results] == [Embedding, Failure, Failure, Embedding]
    assert results[1] == Failure(image="<array 1>", error="<array 1>: too large: (2, 3, 32, 64)", kind=SessionError)


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
