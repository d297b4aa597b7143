import numpy as np
import pytest
from PIL import Image as PillowImage

from fakes import photo
from landmark_onnx.errors import ImageError
from landmark_onnx.images.crop import crop

WHOLE = photo(90, 120)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((10, 6, 30, 25), slice(6, 25), slice(10, 30)),
        ((10.5, 11.5, 30.5, 31.4), slice(12, 31), slice(10, 30)),
        ((-5, -0.2, 4.6, 1000), slice(0, 90), slice(0, 5)),
        ((0, 0, 1e300, 1e300), slice(0, 90), slice(0, 120)),
    ],
)
def test_corners_are_rounded_to_even_and_cut_to_the_image(box, rows, columns):
    np.testing.assert_array_equal(crop(WHOLE, box, "a.jpg"), WHOLE[rows, columns])


def test_inside_the_image_it_is_what_pillow_cuts():
    box = (10.5, 11.5, 30.5, 31.4)
    np.testing.assert_array_equal(crop(WHOLE, box, "a.jpg"), np.asarray(PillowImage.fromarray(WHOLE).crop(box)))


INFINITE = (float("nan"), 0, float("inf"), 10)


@pytest.mark.parametrize("box", [(120, 0, 130, 10), (10, 10, 10.4, 20), (20, 0, 10, 10), (-9, -9, 0, 0), INFINITE])
def test_a_box_with_nothing_of_the_image_is_an_error(box):
    with pytest.raises(ImageError, match=r"^a\.jpg: the box \(.*\) is not in an image of 120x90 pixels$"):
        crop(WHOLE, box, "a.jpg")
