"""Preprocessing of the original's photos and synthetic images against the values that the original computed."""

import json

import numpy as np
import pytest

from landmark_onnx.cards.catalogue import card
from landmark_onnx.images.decode import read_image
from landmark_onnx.inference.preprocess import preprocess

pytestmark = pytest.mark.reference

PHOTOS = ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "2e44b31818acc600.jpeg"]
SYNTHETIC = {
    f"synth_{height}x{width}": (height, width)
    for height, width in [
        (30, 90),
        (33, 500),
        (64, 64),
        (91, 30),
        (100, 401),
        (224, 337),
        (401, 100),
        (448, 448),
        (1200, 350),
    ]
}
# Name in the files -> a model that prepares its images so, and how far its values may be from the original's.
TASKS = {
    "retrieval_448": ("res152_arcmargin", 0.0),
    "retrieval_555": ("inceptionv4_arcmargin", 0.0),
    "cls": ("res152_softmax_v1", 0.0),
    "det": ("res50_oid_v4_detector", 5e-4),
}
PAIRS = [
    (image, task) for image in [*PHOTOS, *SYNTHETIC] for task in TASKS if image in PHOTOS or task != "retrieval_555"
]


@pytest.fixture(scope="module")
def described(reference):
    return json.loads((reference / "expected.json").read_text(encoding="utf-8"))["preprocess"]


@pytest.fixture(scope="module")
def sampled(reference):
    with np.load(reference / "expected.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if name.endswith(("/idx", "/val"))}


def picture(name, reference):
    if name in PHOTOS:
        return read_image(reference / "images" / name)
    y, x = np.mgrid[: SYNTHETIC[name][0], : SYNTHETIC[name][1]]
    channels = [(7 * x + 3 * y) % 256, x * y // 5 % 256, 255 - (x + 2 * y) % 256]
    return np.stack(channels, axis=-1).astype(np.uint8)


def test_every_answer_is_looked_at(described, sampled):
    assert {(image, task) for image in described for task in described[image] if task != "decoded"} == set(PAIRS)
    assert set(sampled) == {f"{image}/{task}/{kind}" for image, task in PAIRS for kind in ("idx", "val")}


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_are_decoded_as_they_were(name, reference, described):
    image = picture(name, reference)
    assert list(image.shape) == described[name]["decoded"]["shape"]
    assert int(image.sum()) == described[name]["decoded"]["sum"]


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_tensors_are_the_originals(name, task, reference, described, sampled):
    model, tolerance = TASKS[task]
    feeds = preprocess(card(model).preprocess, picture(name, reference))
    tensor, wanted = feeds["image"][0], described[name][task]
    assert list(tensor.shape) == wanted["shape"]
    assert tensor.dtype == wanted["dtype"]
    values = tensor.reshape(-1)[sampled[f"{name}/{task}/idx"]]
    np.testing.assert_allclose(values, sampled[f"{name}/{task}/val"], rtol=0, atol=tolerance)
    # Sums in float32 depend on the machine's vector width.
    assert tensor.mean(dtype=np.float64) == pytest.approx(wanted["mean"], abs=2e-6)
    assert tensor.std(dtype=np.float64) == pytest.approx(wanted["std"], abs=2e-6)
    if task == "det":
        assert feeds["im_info"][0, 2] == np.float32(wanted["im_scale"])


@pytest.mark.parametrize("name", PHOTOS)
def test_the_size_and_scale_that_the_detector_is_told(name, reference):
    told = json.loads((reference / "expected.json").read_text(encoding="utf-8"))["det"][name]["im_info"]
    feeds = preprocess(card("res50_oid_v4_detector").preprocess, picture(name, reference))
    np.testing.assert_array_equal(feeds["im_info"], np.array([told], np.float32))
