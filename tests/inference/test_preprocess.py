"""Preprocessing against the original's formulas, written again from infer_retrieval.py and infer_recognition.py."""

import dataclasses
import decimal

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fakes import photo
from landmark_onnx.cards.catalogue import card, cards, original_cards
from landmark_onnx.cards.schema import Preprocess
from landmark_onnx.errors import CardError
from landmark_onnx.inference.preprocess import (
    INTERPOLATIONS,
    RESIZES,
    collate,
    floored_size,
    normalise,
    preprocess,
    resize,
    round_half_away,
)

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIDES = st.one_of(st.integers(2, 60), st.integers(2, 700))


def round_of_python_2(value: float) -> int:
    return int(decimal.Decimal(value).quantize(decimal.Decimal(1), decimal.ROUND_HALF_UP))


def short_sides(width: int, height: int, target: int, *, retrieval: bool) -> tuple[int, int]:
    """`preprocessor` and the two `resize_short`, `normwidth` of the original."""
    if retrieval:
        ratio = float(max(width, height)) / min(width, height)
        if ratio > 3:
            target = int(target * 3 / ratio)
    percent = float(target) / min(height, width)
    sides = [round_of_python_2(width * percent), round_of_python_2(height * percent)]
    sides = [side // 32 * 32 for side in sides]
    if retrieval:
        sides = [max(side, 32) for side in sides]
    return sides[0], sides[1]


def normalised(image: np.ndarray) -> np.ndarray:
    image = image[:, :, ::-1].astype("float32").transpose((2, 0, 1)) / 255
    image -= np.array(MEAN).reshape((3, 1, 1))
    image /= np.array(STD).reshape((3, 1, 1))
    return image


def original_retrieval(image: np.ndarray, target: int) -> np.ndarray:
    size = short_sides(image.shape[1], image.shape[0], target, retrieval=True)
    return normalised(cv2.resize(image, size, interpolation=cv2.INTER_LANCZOS4))


def original_cls(image: np.ndarray) -> np.ndarray:
    resized = cv2.resize(image, short_sides(image.shape[1], image.shape[0], 224, retrieval=False))
    top, left = (resized.shape[0] - 224) // 2, (resized.shape[1] - 224) // 2
    return normalised(resized[top : top + 224, left : left + 224, :])


def original_det(image: np.ndarray, target: float, limit: float) -> tuple[np.ndarray, list[float]]:
    pixels = image.astype(np.float32)[:, :, ::-1] / 255
    pixels -= MEAN
    pixels /= STD
    scale = float(target) / float(np.min(pixels.shape[:2]))
    if np.round(scale * np.max(pixels.shape[:2])) > limit:
        scale = float(limit) / float(np.max(pixels.shape[:2]))
    pixels = cv2.resize(pixels, None, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    info = [np.round(image.shape[0] * scale), np.round(image.shape[1] * scale), scale]
    return pixels.transpose((2, 0, 1)), info


def draw_image(width: int, height: int, seed: int) -> np.ndarray:
    assume(max(width, height) <= 100 * min(width, height))
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=40)
@given(SIDES, SIDES, st.integers(0, 99), st.sampled_from(["res152_arcmargin", "inceptionv4_arcmargin"]))
@example(2, 200, 0, "res152_arcmargin")
@example(401, 100, 0, "inceptionv4_arcmargin")
def test_retrieval_is_the_original_to_the_bit(width, height, seed, name):
    image = draw_image(width, height, seed)
    rule = card(name).preprocess
    got = preprocess(rule, image)
    assert got["image"].dtype == np.float32
    np.testing.assert_array_equal(got["image"], original_retrieval(image, rule.size)[np.newaxis])


@settings(max_examples=40)
@given(SIDES, SIDES, st.integers(0, 99))
@example(2, 200, 0)
@example(250, 249, 0)
def test_cls_is_the_original_to_the_bit(width, height, seed):
    image = draw_image(width, height, seed)
    got = preprocess(card("res152_softmax_v1").preprocess, image)
    assert got["image"].shape == (1, 3, 224, 224)
    np.testing.assert_array_equal(got["image"], original_cls(image)[np.newaxis])


@settings(max_examples=15)
@given(SIDES, SIDES, st.integers(0, 99))
@example(2, 200, 0)
@example(500, 300, 0)
@example(480, 800, 0)  # 1333.33 pixels, which rounds to the limit and is not over it
def test_det_is_the_original(width, height, seed):
    image = draw_image(width, height, seed)
    got = preprocess(card("res50_oid_v4_detector").preprocess, image)
    pixels, info = original_det(image, 800.0, 1333.0)
    np.testing.assert_array_equal(got["im_info"], np.array([info], np.float32))
    assert got["im_info"].dtype == got["image"].dtype == np.float32
    np.testing.assert_allclose(got["image"], pixels[np.newaxis], rtol=0, atol=1e-5)
    assert got["image"].flags.c_contiguous


@settings(max_examples=2000)
@given(st.integers(2, 20000), st.integers(2, 20000), st.sampled_from([64, 224, 448, 555]))
@example(3000, 1000, 448)  # a ratio of 3 is not over 3
@example(3001, 1000, 448)
@example(1000, 3001, 448)
def test_sizes_are_the_original_ones(width, height, target):
    retrieval = dataclasses.replace(card("res152_arcmargin").preprocess, size=target)
    assert floored_size(retrieval, width, height) == short_sides(width, height, target, retrieval=True)
    cls = dataclasses.replace(card("res152_softmax_v1").preprocess, size=target)
    assert floored_size(cls, width, height) == short_sides(width, height, target, retrieval=False)


@given(st.one_of(st.floats(0, 1e6), st.integers(0, 100_000).map(lambda number: number / 2)))
@example(0.49999999999999994)
@example(0.5)
@example(2.5)
@example(1e15 + 0.5)
def test_halves_go_up_and_nothing_else_does(value):
    assert round_half_away(value) == round_of_python_2(value)


@pytest.mark.parametrize("name", cards())
def test_every_card_accepts_any_layout_of_memory(name):
    """Pixels of other libraries are often views: of RGB turned around, of columns, of Fortran order."""
    image = photo(70, 90)
    for view in (image[:, :, ::-1], image[::-1], image[::2, ::3], np.asfortranarray(image)):
        got = preprocess(card(name).preprocess, view)
        wanted = preprocess(card(name).preprocess, view.copy(order="C"))
        for key in wanted:
            np.testing.assert_array_equal(got[key], wanted[key])


def test_the_image_is_not_changed():
    image = photo()
    before = image.copy()
    for name in cards():
        preprocess(card(name).preprocess, image)
    np.testing.assert_array_equal(image, before)


def test_exact_ignores_the_ratio_and_crops():
    rule = Preprocess(resize="exact", size=40, interpolation="area", crop=20)
    image = photo(50, 130)
    resized = cv2.resize(image, (40, 40), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(preprocess(rule, image)["image"][0], normalised(resized[10:30, 10:30]))
    whole = dataclasses.replace(rule, crop=0)
    np.testing.assert_array_equal(preprocess(whole, image)["image"][0], normalised(resized))


def test_colour_mean_and_std_are_the_cards():
    rule = Preprocess(
        resize="exact", size=8, interpolation="nearest", colour="bgr", mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25)
    )
    image = np.zeros((8, 8, 3), np.uint8)
    image[:] = (255, 51, 0)
    got = normalise(rule, image)
    assert got.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(got[0, :, 0, 0], [1.0, (0.2 - 0.5) / 0.5, -4.0], rtol=1e-6)
    rgb = normalise(dataclasses.replace(rule, colour="rgb"), image)
    np.testing.assert_allclose(rgb[0, :, 0, 0], [0.0, (0.2 - 0.5) / 0.5, 0.0], rtol=1e-6)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_interpolation_has_its_own_result(interpolation):
    rule = Preprocess(resize="exact", size=33, interpolation=interpolation)
    resized = cv2.resize(photo(), (33, 33), interpolation=getattr(cv2, f"INTER_{interpolation.upper()}"))
    np.testing.assert_array_equal(preprocess(rule, photo())["image"][0], normalised(resized))


def test_every_resize_of_a_card_has_its_function():
    assert {shipped.preprocess.resize for shipped in cards().values()} <= set(RESIZES)


UINT8_CARDS = [name for name, shipped in original_cards().items() if shipped.task != "det"]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.sampled_from(UINT8_CARDS), st.integers(0, 99), st.booleans())
def test_a_batch_is_its_images_one_by_one(count, name, seed, as_uint8):
    rule = card(name).preprocess
    images = [draw_image(90, 70, seed + number) for number in range(count)]
    together = collate(rule, [resize(rule, image) for image in images], as_uint8=as_uint8)["image"]
    apart = [preprocess(rule, image, as_uint8=as_uint8)["image"] for image in images]
    np.testing.assert_array_equal(together, np.concatenate(apart))
    assert together.flags.c_contiguous
    assert together.dtype == (np.uint8 if as_uint8 else np.float32)


@pytest.mark.parametrize("name", UINT8_CARDS)
def test_bytes_are_the_image_as_resized_before_it_is_normalised(name):
    rule = card(name).preprocess
    (pixels,) = preprocess(rule, photo(), as_uint8=True)["image"]
    np.testing.assert_array_equal(normalised(pixels), preprocess(rule, photo())["image"][0])


def test_what_is_resized_in_float_cannot_be_bytes():
    with pytest.raises(CardError, match=r"^preprocess\.resize: short_side_capped normalises before it resizes"):
        preprocess(card("res50_oid_v4_detector").preprocess, photo(), as_uint8=True)


@pytest.mark.parametrize("multiple", [1, 32])
def test_padding_is_zeros_right_and_below(multiple):
    rule = dataclasses.replace(card("res50_oid_v4_detector").preprocess, size=70, max_side=100, multiple=multiple)
    whole = preprocess(dataclasses.replace(rule, multiple=1), photo(75, 90))["image"]
    assert whole.shape == (1, 3, 70, 84)
    got = preprocess(rule, photo(75, 90))["image"]
    assert got.shape == (1, 3, 70 + -70 % multiple, 84 + -84 % multiple)
    np.testing.assert_array_equal(got[:, :, :70, :84], whole)
    assert not got[:, :, 70:].any()
    assert not got[:, :, :, 84:].any()
