"""A photo comes by each of its ways, and what the server found is shown in the server's order."""

import base64
import threading

import pytest

from serving_page_server import HITS, TOOK, problem

pytestmark = pytest.mark.browser

BRING = """async ([kind, data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
    : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


def bring(page, kind, data, name="square.jpg", media_type="image/jpeg"):
    page.evaluate(BRING, [kind, base64.b64encode(data).decode(), name, media_type])


def ids(page):
    return page.locator("#hits .id").all_text_contents()


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_photo_that_is_brought_is_searched_by_as_it_is(page, world, photo, way):
    if way == "choose":
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose a photo").click()
        chooser.value.set_files({"name": "square.jpg", "mimeType": "image/jpeg", "buffer": photo})
    else:
        bring(page, way, photo)
    page.wait_for_selector("#hits li")
    (asked,) = world.of("/v1/search")
    assert asked.image == photo
    assert asked.name == "square.jpg"
    assert asked.options == {"index": "places", "top": 60}
    page.wait_for_selector("body:not(.busy)")
    assert page.get_by_role("heading", name="60 neighbours").evaluate("node => node === document.activeElement")
    assert "an uploaded photo has no address" in page.locator("#query-name").text_content()
    assert page.evaluate("location.search") == ""


def test_a_photo_that_comes_before_the_server_has_said_what_it_has_is_not_lost(page_of, server, world, photo):
    asked = threading.Event()
    world.before = lambda ask, handler: asked.wait(60) if ask.path == "/v1/info" else None
    page = page_of()
    page.goto(server.address)
    bring(page, "drop", photo)
    asked.set()
    page.wait_for_selector("#hits li")


def test_while_a_photo_is_over_the_page_it_says_that_it_may_be_dropped(page, photo):
    bring(page, "dragover", photo)
    assert page.get_by_text("Drop the photo to search by it").is_visible()
    bring(page, "drop", photo)
    assert not page.get_by_text("Drop the photo to search by it").is_visible()
    page.wait_for_selector("#hits li")


def test_results_are_cards_in_rank_order_and_more_of_them_on_demand(page, give):
    give(page)
    assert ids(page) == [name for name, _, _ in HITS[:20]]
    first = page.locator("#hits li").first
    assert first.locator("figcaption").text_content().startswith("1. 0.9000towerphotos/00.jpg")
    assert page.locator("#hits > li").evaluate_all("nodes => nodes.every(node => node.parentElement.tagName === 'OL')")
    assert page.locator("#hits img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 160
    page.get_by_role("button", name="Show 20 more of 60").click()
    assert ids(page) == [name for name, _, _ in HITS[:40]]
    assert page.evaluate("document.activeElement.textContent").startswith("21.")
    page.get_by_role("button", name="Show 20 more of 60").click()
    assert ids(page) == [name for name, _, _ in HITS]
    assert not page.locator("#more").is_visible()


def test_what_was_asked_stands_above_the_results(page, give):
    give(page)
    total = sum(TOOK.values()) + 0.005
    text = page.locator("#asked").text_content()
    assert text == f"square.jpg in places · top 60 · generation 7 · 60 images · {total:.2f} s"


def test_the_camera_of_a_phone_is_asked_for_by_the_system(page_of, server, photo):
    page = page_of(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.goto(server.address)
    page.wait_for_selector("#welcome:not([hidden])")
    camera = page.locator("#camera")
    assert camera.get_attribute("capture") == "environment"
    assert camera.get_attribute("accept") == "image/jpeg,image/png,image/webp"
    with page.expect_file_chooser() as chooser:
        page.locator("#drop .camera").tap()
    chooser.value.set_files({"name": "image.jpg", "mimeType": "image/jpeg", "buffer": photo})
    page.wait_for_selector("#hits li")


@pytest.mark.parametrize(
    ("limits", "name", "media_type", "told"),
    [
        ({}, "a.tiff", "image/tiff", "a.tiff is image/tiff; wanted jpeg, png, webp."),
        ({}, "a.pdf", "application/pdf", "a.pdf is application/pdf; wanted jpeg, png, webp."),
        ({"image_bytes": 1000}, "a.jpg", "image/jpeg", "the server takes 1000."),
        ({"pixels": 1000}, "a.jpg", "image/jpeg", "a.jpg has 120,000 pixels; the server takes 1,000."),
    ],
)
def test_what_the_server_would_not_take_is_said_before_it_is_sent(
    page_of, server, world, photo, limits, name, media_type, told
):
    world.info["limits"] |= limits
    page = page_of()
    page.goto(server.address)
    page.wait_for_selector("#welcome:not([hidden])")
    bring(page, "drop", photo, name, media_type)
    page.get_by_role("alert").get_by_text(told).wait_for()
    assert world.of("/v1/search") == []


def test_a_classifier_alone_names_the_photo(page_of, server, world, give, photo):
    world.info |= {"indexes": [], "recognize": False, "detector": None, "steps": []}
    world.info["models"] = [world.info["models"][1]]
    page = page_of()
    page.goto(server.address)
    page.get_by_role("heading", name="Ask what is on a photo").wait_for()
    assert "namer classifies" in page.locator("#has").text_content()
    page.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo})
    page.get_by_text("tower", exact=True).wait_for()
    assert page.locator("#classes li").all_text_contents() == ["tower0.7500", "class 40.1250"]
    assert not page.locator("#results-head").is_visible()
    assert world.of("/v1/search") == []


def test_a_detector_alone_shows_its_boxes(page_of, server, world, photo):
    world.info |= {"indexes": [], "recognize": False, "detector": None, "steps": []}
    world.info["models"] = [world.info["models"][2]]
    world.detections = [{"category_id": 1, "name": "Tower", "bbox": [10, 20, 100, 50], "score": 0.9}]
    page = page_of()
    page.goto(server.address)
    page.wait_for_selector("#welcome:not([hidden])")
    page.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo})
    page.get_by_role("cell", name="Tower", exact=True).wait_for()


def test_a_server_without_anything_to_ask_says_what_it_has(page_of, server, world):
    world.info |= {"indexes": [], "recognize": False, "detector": None, "steps": []}
    world.info["models"] = [world.info["models"][0]]
    page = page_of()
    page.goto(server.address)
    page.get_by_text("embedder embeds").wait_for()
    assert "no index, no classifier and no detector" in page.locator("#status").text_content()
    assert not page.locator("#drop").is_visible()


def test_another_photo_ends_the_search_of_the_first(page, world, photo):
    def first_waits(ask, handler):
        if ask.path == "/v1/search" and ask.name == "first.jpg":
            handler.wait_until_left(ask)

    world.before = first_waits
    page.set_input_files("#file", {"name": "first.jpg", "mimeType": "image/jpeg", "buffer": photo})
    assert world.waiting.get(timeout=20) == "/v1/search"
    page.set_input_files("#file", {"name": "second.jpg", "mimeType": "image/jpeg", "buffer": photo})
    page.wait_for_selector("#hits li")
    assert "second.jpg in places" in page.locator("#asked").text_content()
    assert world.gone.get(timeout=20) == "/v1/search"


def test_a_failure_of_a_part_leaves_the_results(page, world, photo):
    def no_classes(ask, handler):
        if ask.path == "/v1/classify":
            raise problem(500, "internal", "Something failed", "see the log")

    world.before = no_classes
    page.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo})
    page.get_by_role("alert").get_by_text("see the log").wait_for()
    assert len(ids(page)) == 20
