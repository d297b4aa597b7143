"""A part of the photo: by mouse, finger, keys and numbers, always in pixels of the photo upright."""

import numpy as np
import pytest

import encoded

pytestmark = pytest.mark.browser


@pytest.fixture
def shown(page, give):
    """The page with the photo of 400 x 300 pixels on it."""
    give(page)
    return page


def at(page, x, y):
    """Where a pixel of the photo is on the screen."""
    box = page.locator("#stage").bounding_box()
    width, height = (
        int(page.locator("#photo").evaluate(f"image => image.natural{side}")) for side in ("Width", "Height")
    )
    return box["x"] + x / width * box["width"], box["y"] + y / height * box["height"]


def drag(page, start, end):
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, *end), steps=3)
    page.mouse.up()


def numbers(page):
    return [int(page.locator(f"#region-{side}").input_value()) for side in ("x", "y", "width", "height")]


def cropped(page, world, count=2):
    """What the last search asked for, which is what the page shows."""
    page.wait_for_selector("body:not(.busy)")
    asked = world.of("/v1/search")
    assert len(asked) == count
    crop = asked[-1].options.get("crop")
    if crop is not None:
        assert crop == numbers(page)
        x, y, width, height = crop
        assert f"region {x}, {y}, {by(width, height)} px of square.jpg" in page.locator("#asked").text_content()
    return crop


def by(width, height):
    return f"{width} \N{MULTIPLICATION SIGN} {height}"


def near(crop, wanted, pixels=2):
    np.testing.assert_allclose(crop, wanted, rtol=0, atol=pixels)


def test_a_drag_on_the_photo_searches_by_that_part(shown, world):
    drag(shown, (100, 75), (300, 225))
    near(cropped(shown, world), [100, 75, 200, 150])
    assert world.of("/v1/classify")[-1].options["crop"] == numbers(shown)
    assert world.of("/v1/recognize")[-1].options["crop"] == numbers(shown)
    assert "crop" not in world.of("/v1/detect")[-1].options
    assert len(world.of("/v1/detect")) == 1


def test_its_inside_moves_it_and_its_handles_resize_it(shown, world):
    drag(shown, (100, 75), (300, 225))
    drag(shown, (200, 150), (220, 120))
    near(cropped(shown, world, 3), [120, 45, 200, 150])
    drag(shown, (320, 195), (360, 255))
    near(cropped(shown, world, 4), [120, 45, 240, 210], 3)
    drag(shown, (120, 150), (40, 150))
    near(cropped(shown, world, 5), [40, 45, 320, 210], 4)
    drag(shown, (200, 150), (2000, 1500))
    near(cropped(shown, world, 6), [80, 90, 320, 210], 4)
    assert len(shown.locator(".handle").all()) == 8


def test_a_drag_out_of_the_photo_ends_at_its_edge(shown, world):
    drag(shown, (200, 150), (-300, 1000))
    near(cropped(shown, world), [0, 150, 200, 150])


def test_two_clicks_are_two_corners(shown, world):
    shown.mouse.click(*at(shown, 300, 225))
    shown.get_by_text("One corner is set").wait_for()
    assert shown.locator("#corner").is_visible()
    shown.mouse.click(*at(shown, 100, 75))
    near(cropped(shown, world), [100, 75, 200, 150])
    assert not shown.locator("#corner").is_visible()


def test_escape_and_a_button_go_back_to_the_whole_photo(shown, world):
    drag(shown, (100, 75), (300, 225))
    shown.keyboard.press("Escape")
    assert cropped(shown, world, 3) is None
    assert shown.locator("#region").get_attribute("aria-label") == "Region: the whole photo"
    drag(shown, (100, 75), (300, 225))
    shown.get_by_role("button", name="Whole photo").click()
    assert cropped(shown, world, 5) is None


def test_keys_move_resize_and_scale_it_and_enter_searches(shown, world):
    shown.keyboard.press("c")
    assert numbers(shown) == [80, 60, 240, 180]
    for key, wanted in [
        ("ArrowRight", [84, 60, 240, 180]),
        ("ArrowDown", [84, 63, 240, 180]),
        ("ArrowLeft", [80, 63, 240, 180]),
        ("ArrowUp", [80, 60, 240, 180]),
        ("Shift+ArrowRight", [80, 60, 244, 180]),
        ("Shift+ArrowUp", [80, 60, 244, 177]),
        ("+", [74, 56, 256, 186]),
        ("-", [80, 60, 244, 177]),
    ]:
        shown.keyboard.press(key)
        assert numbers(shown) == wanted, key
    assert len(world.of("/v1/search")) == 1
    assert shown.locator("#region").get_attribute("aria-label") == f"Region: 80, 60, {by(244, 177)} px"
    shown.keyboard.press("Enter")
    assert cropped(shown, world) == [80, 60, 244, 177]


def test_keys_do_not_push_it_out_of_the_photo(shown):
    shown.keyboard.press("c")
    for _ in range(30):
        shown.keyboard.press("ArrowLeft")
        shown.keyboard.press("Shift+ArrowDown")
    assert numbers(shown)[0] == 0
    for _ in range(60):
        shown.keyboard.press("+")
    assert numbers(shown) == [0, 0, 400, 300]


def test_numbers_are_taken_as_they_are(shown, world):
    shown.get_by_text("Region in numbers").click()
    for side, value in {"x": 11, "y": 22, "width": 133, "height": 144}.items():
        shown.locator(f"#region-{side}").fill(str(value))
    shown.locator("#region-height").press("Enter")
    assert cropped(shown, world) == [11, 22, 133, 144]
    shown.get_by_role("button", name="Larger region").click()
    shown.get_by_role("button", name="Search", exact=True).click()
    assert cropped(shown, world, 3) == [4, 15, 146, 158]


def test_fingers_tap_two_corners_and_pull_a_handle(page_of, server, world, give):
    page = page_of(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.goto(server.address)
    page.wait_for_selector("#welcome:not([hidden])")
    give(page)
    page.touchscreen.tap(*at(page, 100, 75))
    page.touchscreen.tap(*at(page, 300, 225))
    near(cropped(page, world), [100, 75, 200, 150], 3)
    pull(page, at(page, 300, 225), at(page, 200, 150))
    near(cropped(page, world, 3), [100, 75, 100, 75], 4)
    box = page.locator(".handle").first.bounding_box()
    assert min(box["width"], box["height"]) >= 24


def pull(page, start, end):
    """A finger goes from one place to another."""
    devtools = page.context.new_cdp_session(page)
    steps = [start, ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2), end]
    for kind, places in [("touchStart", [start]), *(("touchMove", [place]) for place in steps), ("touchEnd", [])]:
        points = [{"x": x, "y": y} for x, y in places]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_pixels_are_those_of_the_photo_upright(page, world, photo):
    for count, orientation in enumerate(range(1, 9), 1):
        name = f"{orientation}.jpg"
        data = encoded.jpeg_with_exif(photo, orientation)
        page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": data})
        page.get_by_text(f"{name} in places").wait_for()
        size = (300, 400) if orientation >= 5 else (400, 300)
        assert by(*size) in page.locator("#query-name").text_content()
        x, y = (30, 320) if orientation >= 5 else (320, 30)
        drag(page, (x, y), (x + 60, y + 70))
        page.get_by_text(f"px of {name}").wait_for()
        near(world.of("/v1/search")[2 * count - 1].options["crop"], [x, y, 60, 70])


def test_a_region_of_an_indexed_image_is_asked_for_by_its_id_and_has_an_address(page_of, server, world):
    page = page_of()
    page.goto(f"{server.address}?index=places&id=photos/03.jpg")
    page.wait_for_selector("#hits li")
    page.wait_for_selector("body:not(.busy)")
    drag(page, (40, 30), (120, 90))
    page.get_by_text(f"region 40, 30, {by(80, 60)} px of photos/03.jpg").wait_for()
    page.wait_for_selector("body:not(.busy)")
    wanted = ("photos/03.jpg", "places", None, [0.25, 0.25, 0.5, 0.5, "relative"])
    for path in ("/v1/search", "/v1/recognize", "/v1/classify"):
        asked = world.of(path)[-1]
        assert (asked.id, asked.index, asked.image, asked.options["crop"]) == wanted, path
    assert "crop=0.25%2C0.25%2C0.5%2C0.5" in page.url
    # Its picture is shown, and goes nowhere else.
    assert [ask.query["side"] for ask in world.of("/v1/indexes/places/image")].count(["2048"]) == 1
    page.reload()
    page.get_by_text(f"region 40, 30, {by(80, 60)} px of photos/03.jpg").wait_for()
    assert world.of("/v1/search")[-1].options["crop"] == wanted[-1]


def test_another_region_ends_the_running_search_on_the_server(shown, world):
    def whole_waits(ask, handler):
        if ask.path == "/v1/search" and ask.options["crop"][0] == 10:
            handler.wait_until_left(ask)

    world.before = whole_waits
    shown.get_by_text("Region in numbers").click()
    shown.locator("#region-x").fill("10")
    shown.locator("#region-width").fill("50")
    shown.locator("#region-width").press("Enter")
    assert world.waiting.get(timeout=20) == "/v1/search"
    shown.locator("#region-x").fill("20")
    shown.locator("#region-x").press("Enter")
    shown.get_by_text("region 20, 0, 50").wait_for()
    assert world.gone.get(timeout=20) == "/v1/search"
