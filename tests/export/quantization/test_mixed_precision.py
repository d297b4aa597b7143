"""Which layers stay fp32: the search over trials, whose answers are given here."""

import types

import pytest

import fakes
from landmark_onnx.verification.answers import Likeness
from landmark_onnx_export.quantization import mixed_precision
from landmark_onnx_export.quantization.mixed_precision import ENOUGH, Task, search

LAYERS = tuple("abcdefgh")


@pytest.fixture
def spared(monkeypatch, tmp_path):
    """What `search` leaves in fp32, and how many trials it took.

    errors: layers -> what is lost in 8 bits unless all of them are in fp32. method: which cut is better, by how much.
    """
    tried = []

    def call(errors, *, floor=0.9, spare=0.5, methods=None, **likeness):
        def attempt(method, excluded):
            tried.append((method, frozenset(excluded)))
            lost = sum(error for layers, error in errors.items() if not set(layers) <= set(excluded))
            cosine = 1 - lost - (methods or {}).get(method, 0)
            return types.SimpleNamespace(
                model=method, method=method, likeness=Likeness(images=1, cosine=cosine, **likeness)
            )

        task = Task(
            card=fakes.card(fakes.CLS if likeness else fakes.RETRIEVAL),
            model=tmp_path / "model.onnx",
            photos=(),
            floor=floor,
            exclude=(),
            spare=spare,
            reduce_range=False,
            on_stage=lambda stage: None,
        )
        bench = types.SimpleNamespace(attempt=attempt, layers=LAYERS, task=task)
        monkeypatch.setattr(mixed_precision, "_prepare", lambda task: bench)
        return search(task)

    call.tried = tried
    return call


def test_nothing_is_spared_where_little_is_lost(spared):
    assert not spared({"a": (1 - ENOUGH) / 2}).excluded
    assert len(spared.tried) == len(mixed_precision.METHODS)


def test_the_cut_that_loses_least(spared):
    assert spared({}, methods={"least_error": 0.1, "extremes": 0.2}).method == "percentile"
    # Seven of ten photos have the same class by either; cosines tell them apart.
    assert spared({}, methods={"least_error": 0.1, "percentile": 0.2}, top1=0.7).method == "extremes"


@pytest.mark.parametrize("layers", ["a", "d", "h", "ab", "bc", "cd", "de", "fg", "gh"])
@pytest.mark.parametrize("spare", [0.3, 0.5, 1])
def test_the_layers_that_hurt_are_found_and_no_others(spared, layers, spare):
    found = spared({layers: 0.01, **{f"{name}{name}": 0.0002 for name in LAYERS}}, spare=spare)
    assert "".join(found.excluded) == layers
    gain = (0.01 + 0.0002 * len(layers)) / (0.01 + 0.0002 * len(LAYERS))
    assert set(found.excluded.values()) == {
        f"the error is {gain:.0%} less without 8 bits from {layers[0]} to {layers[-1]}"
    }


def test_above_the_floor_layers_must_be_worth_their_time(spared):
    even = dict.fromkeys(LAYERS, 0.004)
    assert not spared(even, floor=0.9, spare=0.125).excluded  # an eighth of the error
    assert list(spared(even, floor=0.99, spare=0.125).excluded) == ["a"]
    small = {**dict.fromkeys(LAYERS, 0.004), "abcdefgh": 1.0}
    assert not spared(small, floor=0.99, spare=0.125).excluded, "too little below it, too"


def test_parts_of_a_run_that_gains_too_little_are_not_tried(spared):
    assert not spared({**dict.fromkeys(LAYERS, 0.004), "abcdefgh": 0.01}, spare=0.25).excluded
    assert len(spared.tried) == len(mixed_precision.METHODS) + len(LAYERS) - 1


def test_runs_that_gained_too_little_are_not_tried_again(spared):
    assert list(spared({"a": 0.01, "abcdefgh": 0.003}).excluded) == ["a"]
    # Each cut of the ranges; abcd, defg, gh; ab, bc, cd; a, b; and bcd once more.
    assert len(spared.tried) == len(mixed_precision.METHODS) + 3 + 3 + 2 + 1


def test_layers_are_not_told_apart_more_finely_than_a_share_of_them(spared, monkeypatch):
    monkeypatch.setattr(mixed_precision, "FINEST", 0.25)
    assert list(spared({"a": 0.01}).excluded) == ["a", "b"]


def test_no_more_than_may_be_spared(spared):
    several = {"a": 0.2, "c": 0.1, "f": 0.05, "h": 0.025}
    assert list(spared(several, floor=1, spare=0.25).excluded) == ["a", "c"]
    assert {"a", "c", "f", "h"} <= set(spared(several, floor=1, spare=1).excluded)
    assert not spared(several, floor=1, spare=0).excluded


def test_one_layer_stays_in_8_bits(spared):
    assert len(spared(dict.fromkeys(LAYERS, 0.1), floor=1, spare=1).excluded) == len(LAYERS) - 1


def test_the_floor_counts_beside_the_cosine(spared):
    assert not spared({"a": 0.001}, top1=1.0).excluded
    assert list(spared({"a": 0.001}, top1=0.5).excluded) == ["a"]
