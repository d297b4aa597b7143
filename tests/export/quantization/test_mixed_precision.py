"""Which layers stay fp32: the search over trials, whose figures are given here."""

import types

import pytest

import fakes
from landmark_onnx.verification.answers import Likeness
from landmark_onnx_export.quantization import mixed_precision
from landmark_onnx_export.quantization.mixed_precision import Task, search

LAYERS = ("a", "b", "c", "d", "e")


@pytest.fixture
def spared(monkeypatch, tmp_path):
    """What `search` leaves in fp32 if so many layers there, in the order of their harm, give these cosines."""

    def call(*cosines):
        def attempt(method, excluded):
            likeness = Likeness(images=1, cosine=cosines[len(excluded)])
            return types.SimpleNamespace(model=method, method=method, likeness=likeness)

        bench = types.SimpleNamespace(attempt=attempt, layers=LAYERS, photos=(), task=task)
        monkeypatch.setattr(mixed_precision, "_prepare", lambda task: bench)
        return list(search(task).excluded)

    task = Task(
        card=fakes.card(fakes.RETRIEVAL),
        model=tmp_path / "model.onnx",
        photos=(),
        floor=0.9,
        exclude=(),
        spare=1.0,
        reduce_range=False,
        on_stage=lambda stage: None,
    )
    monkeypatch.setattr(mixed_precision, "opened", lambda card, model: types.SimpleNamespace(file_feeds=None))
    harm = {name: float(-place) for place, name in enumerate(LAYERS)}
    monkeypatch.setattr(mixed_precision, "noise", lambda *arguments: harm)
    return call


def test_layers_are_spared_until_it_is_enough(spared):
    assert spared(0.99) == []
    assert spared(0.5, 0.6, 0.95, 0.99) == ["a", "b"]


def test_the_best_attempt_counts_and_not_the_last(spared):
    assert spared(0.8, 0.9, 0.7, 0.6, 0.5) == ["a"]
    assert spared(0.8, 0.7, 0.6, 0.5, 0.4) == []
