import itertools

import cv2
import numpy as np
import pytest

from fakes import photo
from landmark_onnx.errors import ImageError
from landmark_onnx.images.contact_sheet import (
    MIN_SHORT_SIDE,
    DrawnCopies,
    class_colour,
    contact_sheet,
    draw_detections,
    write_image,
)
from landmark_onnx.results import Detections


def found(boxes, classes=None, names=None, image="0.jpg") -> Detections:
    count = len(boxes)
    classes = np.arange(1, count + 1) if classes is None else np.array(classes)
    return Detections(
        image=image,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=classes.astype(np.int64),
        scores=np.linspace(0.9, 0.3, count).astype(np.float32),
        names=tuple(names or [f"Thing {at}" for at in range(count)]),
    )


GREY = np.full((400, 600, 3), 128, np.uint8)


def changed(drawn, image=GREY) -> np.ndarray:
    return (drawn != image).any(axis=2)


def test_it_draws_the_box_where_it_is_and_leaves_the_input_alone():
    image = GREY.copy()
    drawn = draw_detections(image, found([[100, 150, 200, 120]], classes=[7]))
    assert (image == GREY).all()
    assert drawn.shape == image.shape
    colour = class_colour(7)
    for y, x in ((150 + 119, 200), (200, 100), (200, 299)):
        assert tuple(drawn[y, x]) == colour
    touched = changed(drawn)
    assert not touched[160:260, 110:290].any(), "the inside of the box is covered"
    assert not touched[280:].any()
    assert touched[120:150, 100:200].any(), "no name above the box"


def test_without_a_box_it_is_a_plain_copy():
    drawn = draw_detections(GREY, found([]))
    assert (drawn == GREY).all()
    assert drawn is not GREY
    assert not np.shares_memory(drawn, GREY)


@pytest.mark.parametrize(
    "corner", [[0, 0, 50, 30], [560, 0, 40, 30], [0, 370, 50, 30], [560, 370, 40, 30], [0, 0, 600, 400]]
)
def test_a_name_is_whole_wherever_the_box_is(corner):
    plate = class_colour(3)
    middle = draw_detections(GREY, found([[250, 200, 60, 40]], classes=[3]))
    drawn = draw_detections(GREY, found([corner], classes=[3]))
    ink = [(~(picture == plate).all(axis=2) & changed(picture)).sum() for picture in (drawn, middle)]
    assert ink[0] == ink[1] > 100


@pytest.mark.parametrize(("height", "width"), [(2, 200), (64, 64), (200, 3), (480, 640), (3000, 4000)])
def test_names_can_be_read_at_any_size(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    box = [0, 0, width, height]
    named, blank = (draw_detections(image, found([box], names=[name])) for name in ("Statue", "S"))
    assert min(named.shape[:2]) >= MIN_SHORT_SIDE
    rows = np.nonzero((named != blank).any(axis=(1, 2)))[0]
    assert len(rows) >= max(9, min(named.shape[:2]) / 60), "letters too small"


def test_small_images_are_enlarged_a_whole_number_of_times():
    image = photo(60, 80)
    drawn = draw_detections(image, found([]))
    assert drawn.shape == (240, 320, 3)
    assert (drawn[::4, ::4] == image).all()


def test_names_of_boxes_in_one_place_do_not_cover_each_other():
    boxes = [[100, 150, 200, 120]] * 3
    colours = [class_colour(category) for category in (1, 2, 3)]
    alone = [draw_detections(GREY, found([boxes[0]], classes=[category])) for category in (1, 2, 3)]
    drawn = draw_detections(GREY, found(boxes))
    plates = [(drawn == colour).all(axis=2).sum() for colour in colours]
    edges = 3 * 2 * (200 + 120)
    for plate, picture, colour in zip(plates, alone, colours, strict=True):
        assert plate >= (picture == colour).all(axis=2).sum() - edges


def test_the_best_box_is_on_top():
    drawn = draw_detections(GREY, found([[100, 150, 200, 120]] * 2, classes=[1, 2]))
    assert tuple(drawn[269, 200]) == class_colour(1)


def test_a_class_keeps_its_colour_and_has_its_own():
    colours = [class_colour(category) for category in range(1, 501)]
    assert colours == [class_colour(category) for category in range(1, 501)]
    near = [np.abs(np.subtract(a, b)).max() for a, b in itertools.pairwise(colours)]
    assert min(near) > 60


def test_a_class_without_a_name_is_numbered(monkeypatch):
    texts = []
    monkeypatch.setattr("landmark_onnx.images.contact_sheet.cv2.putText", lambda image, text, *_: texts.append(text))
    detections = Detections(
        boxes=np.ones((1, 4), np.float32),
        classes=np.array([17]),
        scores=np.array([0.256], np.float32),
        names=(None,),
    )
    draw_detections(GREY, detections)
    assert texts == ["class 17 0.26"]


def test_copies_keep_the_stem_and_do_not_replace_each_other(tmp_path):
    copies = DrawnCopies(tmp_path / "out")
    sources = ["a/0.jpg", "b/0.jpeg", "c/0.JPG", "d/0-2.jpg", "a/0.webp", "e/0.png", "a.png", "A.png"]
    written = [copies.write(photo(), found([], image=source)).name for source in sources]
    assert written == ["0.jpg", "0-2.jpg", "0-3.jpg", "0-2-2.jpg", "0.png", "0-2.png", "a.png", "A-2.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(written)
    assert (tmp_path / "out" / "0.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    assert (cv2.imread(str(tmp_path / "out" / "0.png"))[::3, ::3] == photo()).all()


def test_a_copy_never_replaces_the_original(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "0.png", photo())
    before = (tmp_path / "0.png").read_bytes()
    with pytest.raises(ImageError, match=r"0\.png: drawing into its own folder"):
        DrawnCopies(tmp_path).write(photo(), found([], image="0.png"))
    assert (tmp_path / "0.png").read_bytes() == before


@pytest.mark.parametrize("kind", ["photo", "folder", "link", "dangling link"])
def test_a_copy_never_replaces_what_is_there(kind, tmp_path):
    path, other = tmp_path / "out" / "0.jpg", tmp_path / "other.jpg"
    path.parent.mkdir()
    other.write_bytes(b"somebody's")
    if kind == "photo":
        path.write_bytes(b"somebody's")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(other if kind == "link" else "nowhere")
    written = [DrawnCopies(path.parent).write(photo(), found([], image=f"{run}/0.jpg")).name for run in range(3)]
    assert written == ["0-2.jpg", "0-3.jpg", "0-4.jpg"]
    assert kind != "photo" or path.read_bytes() == b"somebody's"
    assert other.read_bytes() == b"somebody's"
    assert sorted(each.name for each in path.parent.iterdir()) == ["0-2.jpg", "0-3.jpg", "0-4.jpg", "0.jpg"]


def test_a_name_that_is_taken_at_the_last_moment(tmp_path, monkeypatch):
    def late(image, detections):
        (tmp_path / "0.jpg").write_bytes(b"somebody's")
        return image

    monkeypatch.setattr("landmark_onnx.images.contact_sheet.draw_detections", late)
    monkeypatch.setattr("landmark_onnx.images.contact_sheet.os.path.lexists", lambda path: False)
    assert DrawnCopies(tmp_path).write(photo(), found([], image="a/0.jpg")).name == "0-2.jpg"
    assert (tmp_path / "0.jpg").read_bytes() == b"somebody's"


def test_an_image_that_cannot_be_encoded_leaves_nothing(tmp_path):
    with pytest.raises(ImageError, match="cannot encode"):
        write_image(tmp_path / "0.nonsense", photo())
    assert not list(tmp_path.iterdir())


def test_a_contact_sheet_shows_every_image_whole():
    red, tall, wide = (
        np.full((*size, 3), colour, np.uint8) for size, colour in (((50, 50), 10), ((90, 30), 20), ((30, 90), 30))
    )
    sheet = contact_sheet([(red, "one"), (tall, "two"), (wide, "three")], columns=2, side=120)
    assert sheet.shape[1] == 2 * (120 + 12) + 12
    for value, area in ((10, 120 * 120), (20, 120 * 40), (30, 120 * 40)):
        assert (sheet == value).all(axis=2).sum() == pytest.approx(area, rel=0.02)
