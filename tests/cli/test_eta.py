"""Queries as they come: models in step, and groups of what came together."""

import itertools
import threading
import time

import numpy as np
import pytest

import fakes
from landmark_onnx.inference.tee import Fan
from landmark_onnx.model import Retriever
from landmark_onnx.results import Failure
from landmark_onnx.search.pace import grouped, in_step

SECONDS = 30


def test_rows_go_alone_while_nothing_takes_time(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    assert list(grouped(range(4), 2)) == [[0], [1], [2], [3]]
    assert list(grouped([], 2)) == []


def test_rows_wait_for_each_other_as_long_as_the_last_group_took():
    now = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(now) / 10)
        groups = []
        for group in grouped(range(20), 3):
            groups.append(group)
            for _ in range(40):
                next(now)
    assert groups == [[0], *([at, at + 1, at + 2] for at in range(1, 19, 3)), [19]]


def test_rows_are_gathered_a_few_times_as_long_as_a_search_takes():
    now = 0.0

    def rows():
        nonlocal now
        for row in range(30):
            yield row
            now += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)
        sizes = []
        for group in grouped(rows(), 99):
            sizes.append(len(group))
            now += 2
    assert sizes == [1, 9, 9, 9, 2]


def test_no_row_waits_for_a_silent_source():
    with pytest.MonkeyPatch.context() as patch:
        now = itertools.count()
        patch.setattr(time, "monotonic", lambda: next(now) / 10)
        groups = []
        for group in grouped([0, 1, 2, None, None, 3], 9):
            groups.append(group)
            for _ in range(400):
                next(now)
    assert groups == [[0], [1, 2], [], [], [3]]


def test_a_reader_of_a_fan_gets_what_came_while_the_source_is_silent():
    more = threading.Event()

    def source():
        yield 1
        assert more.wait(SECONDS), "the second reader was held back"
        yield 2

    first, second = Fan(source(), 2).readers()
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.extend(first))
    thread.start()
    assert next(second) == 1
    more.set()
    thread.join(SECONDS)
    assert (taken, list(second)) == ([1, 2], [2])


def test_a_source_that_fails_ends_every_reader_of_a_fan():
    def source():
        yield 1
        raise OSError("gone")

    first, second = Fan(source(), 2).readers()
    assert next(first) == 1
    with pytest.raises(OSError, match="gone"):
        next(first)
    assert list(second) == [1]


@pytest.fixture
def retrievers(tmp_path) -> list[Retriever]:
    paths = [fakes.make_retrieval(tmp_path / f"{seed}.onnx", seed=seed) for seed in range(3)]
    return [Retriever(path) for path in paths]


@pytest.mark.parametrize("count", [1, 3])
def test_models_in_step_answer_what_came_while_the_source_is_silent(retrievers, count):
    models = retrievers[:count]
    photos = [fakes.photo(64, 64 + 32 * (seed % 2), seed=seed) for seed in range(5)]
    more = threading.Event()

    def source():
        yield from photos[:3]
        yield b"no image"
        assert more.wait(SECONDS), "answers were held back"
        yield photos[3]

    found = []
    for row in in_step(models, source()):
        found += [row] if row else []
        if row is None and len(found) == 4:
            more.set()
    assert [isinstance(row[0], Failure) for row in found] == [False, False, False, True, False]
    for row, photo in zip([*found[:3], found[4]], photos, strict=False):
        assert len(row) == count
        for answer, model in zip(row, models, strict=True):
            np.testing.assert_allclose(answer.vector, model(photo).vector, atol=1e-6)


def test_an_error_of_the_source_is_the_callers(retrievers):
    def source():
        yield fakes.photo(64, 64)
        raise OSError("gone")

    for _ in range(5):
        rows = (row for row in in_step(retrievers, source()) if row)
        assert len(next(rows)) == 3
        with pytest.raises(OSError, match="gone"):
            list(rows)
