import dataclasses
import hashlib
import re

import cv2
import pytest

import fakes
import landmark_onnx.hub.golden as module
from landmark_onnx import Classifier, Retriever
from landmark_onnx.cards.schema import Golden
from landmark_onnx.errors import DownloadError, ModelFileError
from landmark_onnx.hub.addresses import OFFLINE_VARIABLE
from landmark_onnx.hub.fetching import Fetching
from landmark_onnx.hub.golden import ask_golden
from landmark_onnx.runtime.providers import on_cpu
from landmark_onnx.store.catalogue import exported_path
from landmark_onnx.verification.soundness import picture
from servers import serving

MAKERS = {"retrieval": fakes.make_retrieval, "cls": fakes.make_cls}
NAMES = {"retrieval": fakes.RETRIEVAL, "cls": fakes.CLS}


@pytest.fixture(autouse=True)
def network(monkeypatch):
    monkeypatch.delenv(OFFLINE_VARIABLE)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def photo():
    return cv2.imencode(".png", fakes.photo())[1].tobytes()


def ask(monkeypatch, task="retrieval", **golden):
    """Give the model of a task this golden answer, and ask it."""
    name = NAMES[task]
    path = MAKERS[task](exported_path(name))
    card = dataclasses.replace(fakes.small_card(name), golden=Golden(**golden))
    monkeypatch.setattr(module, "cards", lambda: {name: card})
    return ask_golden(path, on_cpu(), Fetching(name=name))


def values(task, image):
    """The first five of what the model of a task answers, the way that everybody asks it."""
    if task == "retrieval":
        return tuple(Retriever(exported_path(NAMES[task]))(image).vector[:5].tolist())
    classifier = Classifier(exported_path(NAMES[task]))
    classifier.top = 7
    found = classifier(image)
    return tuple(dict(zip(found.indices.tolist(), found.scores.tolist(), strict=True))[at] for at in range(5))


@pytest.mark.parametrize("task", MAKERS)
def test_the_golden_image_is_fetched_and_compared(task, photo, monkeypatch):
    MAKERS[task](exported_path(NAMES[task]))
    first = values(task, fakes.photo())
    with serving(photo) as server:
        known = {"url": server.url("a.png"), "sha256": hashlib.sha256(photo).hexdigest(), "first": first}
        found = ask(monkeypatch, task, **known)
        assert found.difference <= 1e-6
        assert re.fullmatch(r'proved = "\d{4}-\d\d-\d\d"', found.line())
        wrong = (*first[:2], first[2] + 0.01, *first[3:])
        message = f"golden: value 3: wanted {wrong[2]:.6f} within 0.001, got {first[2]:.6f}"
        with pytest.raises(ModelFileError, match=re.escape(message)):
            ask(monkeypatch, task, **known | {"first": wrong})
        found = ask(monkeypatch, task, **known | {"first": wrong, "tolerance": 0.1})
        assert found.difference == pytest.approx(0.01, abs=1e-6)


def test_another_image_is_refused(photo, monkeypatch):
    with serving(photo) as server, pytest.raises(DownloadError, match=r"wanted sha256 0000.* as its card declares"):
        ask(monkeypatch, url=server.url("a.png"), sha256="0" * 64, first=(0.0,))


def test_without_a_golden_answer_a_person_gets_one_to_record(photo, monkeypatch):
    with serving(photo) as server:
        sha256 = hashlib.sha256(photo).hexdigest()
        found = ask(monkeypatch, url=server.url("a.png"), sha256=sha256)
        assert found.difference is None
        assert f'golden = {{ url = "{server.url("a.png")}", sha256 = "{sha256}", first = [' in found.line()
    found = ask(monkeypatch)
    assert found.got[:5] == pytest.approx(values("retrieval", picture(0)), abs=1e-7)
    assert found.line() == f"golden = {{ first = [{', '.join(f'{value:.6f}' for value in found.got)}] }}"
    assert len(found.got) == 8
    recorded = tuple(float(f"{value:.6f}") for value in found.got)
    assert ask(monkeypatch, first=recorded).difference < 1e-6


def test_what_cannot_be_compared(monkeypatch):
    with pytest.raises(ModelFileError, match="golden: first: wanted 600 values, got 512"):
        ask(monkeypatch, first=(0.0,) * 600)
    path = fakes.make_det(exported_path(fakes.DET))
    with pytest.raises(ModelFileError, match="golden: wanted a model of task retrieval or cls, got det"):
        ask_golden(path, on_cpu(), Fetching(name=fakes.DET))
