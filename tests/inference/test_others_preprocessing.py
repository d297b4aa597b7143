"""Preprocessing of other libraries, to the bit or within 1e-6: by their formulas, and against them where installed."""

import dataclasses
import importlib.resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fakes
from landmark_onnx.cards.catalogue import card
from landmark_onnx.cards.geometry import fixed_sides
from landmark_onnx.cards.schema import Preprocess
from landmark_onnx.images.decode import read_image
from landmark_onnx.inference.preprocess import FILTERS, preprocess, resize

BIT, SIGLIP = card("dinov2_small").preprocess, card("siglip2_base_224").preprocess
SAMPLES = {
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
    "skimage.data": ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "brick.png"),
}
SIDES = ((40, 57), (57, 40), (225, 224), (256, 256), (257, 999), (999, 257), (640, 480), (481, 641), (333, 500), (1, 9))


@pytest.fixture(scope="module")
def photos():
    """Twenty: what two packages ship as far as it is installed, and drawn ones, with sides that round either way."""
    found = [fakes.photo(max(high, 20), max(wide, 20), seed=at) for at, (high, wide) in enumerate(SIDES)]
    for package, names in SAMPLES.items():
        folder = importlib.resources.files(package)
        found += [read_image(folder.joinpath(name).read_bytes()) for name in names if folder.joinpath(name).is_file()]
    found += [fakes.photo(200 + 31 * at, 300 - 17 * at, seed=40 + at) for at in range(20 - len(found))]
    return found


def rgb(image):
    return Image.fromarray(np.ascontiguousarray(image[..., ::-1]))


def by_hand(rule, image):
    """(3, H, W) float64: Pillow's resize, the centre, 1/255, mean and std."""
    picture = rgb(image)
    width, height = picture.size
    size = (rule.width or rule.size, rule.size)
    if rule.resize == "short_side_floor":
        short = min(width, height)
        size = tuple(rule.size if side == short else int(rule.size * side / short) for side in (width, height))
    picture = picture.resize(size, Image.Resampling[FILTERS[rule.interpolation]])
    if rule.crop:
        left, top = ((side - rule.crop) // 2 for side in picture.size)
        picture = picture.crop((left, top, left + rule.crop, top + rule.crop))
    values = np.asarray(picture, np.float64) / 255
    return ((values - rule.mean) / rule.std).transpose(2, 0, 1)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("rule", [BIT, SIGLIP], ids=["short side", "exact"])
def test_pillows_resize(rule, interpolation, photos):
    rule = dataclasses.replace(rule, interpolation=interpolation)
    for image in photos:
        np.testing.assert_allclose(preprocess(rule, image)["image"][0], by_hand(rule, image), rtol=0, atol=1e-6)


def test_hugging_faces_processors(photos):
    transformers = pytest.importorskip("transformers")
    bit = transformers.BitImageProcessor(
        size={"shortest_edge": 256},
        crop_size=224,
        resample=Image.Resampling.BICUBIC,
        image_mean=BIT.mean,
        image_std=BIT.std,
    )
    siglip = transformers.SiglipImageProcessor(size={"height": 224, "width": 224}, resample=Image.Resampling.BILINEAR)
    for rule, theirs in ((BIT, bit), (SIGLIP, siglip)):
        for image in photos:
            wanted = theirs(rgb(image), return_tensors="np")["pixel_values"]
            np.testing.assert_allclose(preprocess(rule, image)["image"], wanted, rtol=0, atol=1e-6)


def test_torchvisions_pil_path(photos):
    torchvision = pytest.importorskip("torchvision")
    functional = torchvision.transforms.functional
    rule = dataclasses.replace(BIT, offset="half_even")
    for image in photos:
        picture = functional.resize(rgb(image), 256, torchvision.transforms.InterpolationMode.BICUBIC)
        tensor = functional.to_tensor(functional.center_crop(picture, 224))
        wanted = functional.normalize(tensor, rule.mean, rule.std).numpy()
        np.testing.assert_allclose(preprocess(rule, image)["image"][0], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("offset", "before"), [("floor", 2), ("ceil", 3), ("half_even", 2)])
def test_where_a_crop_of_an_odd_rest_begins(offset, before):
    rule = Preprocess(resize="exact", size=13, interpolation="nearest", crop=8, offset=offset)
    image = fakes.photo(13, 13)
    np.testing.assert_array_equal(resize(rule, image)["image"][0], image[before : before + 8, before : before + 8])


def test_half_a_pixel_goes_to_the_even_side():
    image = fakes.photo(15, 15)
    rule = Preprocess(resize="exact", size=15, interpolation="nearest", crop=8, offset="half_even")
    np.testing.assert_array_equal(resize(rule, image)["image"][0], image[4:12, 4:12])


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    place=st.sampled_from(["corner", "centre"]),
    rounding=st.sampled_from(["floor", "half_away"]),
)
@settings(max_examples=60, deadline=None)
def test_a_letterbox_keeps_the_ratio_and_fills_the_rest(height, width, place, rounding):
    rule = Preprocess(
        resize="letterbox",
        size=40,
        width=64,
        interpolation="nearest",
        pad=(1, 2, 3),
        pad_place=place,
        rounding=rounding,
    )
    image = np.full((height, width, 3), 200, np.uint8)
    box = resize(rule, image)["image"][0]
    assert box.shape == (*fixed_sides(rule), 3)
    scale = min(40 / height, 64 / width)
    whole = {"floor": int, "half_away": lambda value: int(value + 0.5)}[rounding]
    rows, columns = max(1, whole(height * scale)), max(1, whole(width * scale))
    top, left = (0, 0) if place == "corner" else ((40 - rows) // 2, (64 - columns) // 2)
    inside = np.zeros((40, 64), bool)
    inside[top : top + rows, left : left + columns] = True
    assert (box[inside] == 200).all()
    assert (box[~inside] == (3, 2, 1)).all(), "BGR, of a colour that the card gives as RGB"


def test_mean_and_std_above_1_are_of_0_to_255(photos):
    unit = Preprocess(resize="exact", size=32, interpolation="linear")
    bytes_ = dataclasses.replace(
        unit, mean=tuple(255 * value for value in unit.mean), std=tuple(255 * value for value in unit.std)
    )
    got, wanted = (preprocess(rule, photos[0])["image"] for rule in (bytes_, unit))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)
    caffe = dataclasses.replace(unit, colour="bgr", mean=(104, 117, 123), std=(1, 1, 1))
    pixels = resize(unit, photos[0])["image"][0].astype(np.float32)
    np.testing.assert_array_equal(preprocess(caffe, photos[0])["image"][0], (pixels - caffe.mean).transpose(2, 0, 1))


def test_gray(photos):
    rule = dataclasses.replace(SIGLIP, size=32, colour="gray", mean=(0.5,), std=(0.5,))
    got = preprocess(rule, photos[0])["image"]
    assert got.shape == (1, 1, 32, 32)
    gray = np.asarray(rgb(photos[0]).convert("L").resize((32, 32), Image.Resampling.BILINEAR), np.float64)
    apart = np.abs(got[0, 0] - (gray / 255 - 0.5) / 0.5).max() * 127.5
    assert apart < 2.1, "OpenCV and Pillow round grays apart by one"
