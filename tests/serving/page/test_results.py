"""What is done with results: searched by, shared, explained, drawn and saved; and the options of a search."""

import csv
import io
import json

import numpy as np
import pytest

from serving_page_server import HITS, jpeg

pytestmark = pytest.mark.browser

BY_ID = "/v1/indexes/places/search"


def settled(page, heading):
    page.get_by_text(heading).wait_for()
    page.wait_for_selector("body:not(.busy)")


def started(page_of, server, query):
    page = page_of()
    page.goto(server.address + query)
    page.wait_for_selector("#hits li")
    page.wait_for_selector("body:not(.busy)")
    return page


# --- click through ---


def test_a_result_is_searched_by_and_back_and_forward_work(page, world, give, context_of):
    give(page)
    page.locator(".pick").nth(4).click()
    settled(page, "photos/04.jpg in places")
    assert page.url.endswith("?index=places&id=photos%2F04.jpg&top=60")
    page.locator(".pick").nth(7).click()
    settled(page, "photos/07.jpg in places")
    assert [ask.query["id"] for ask in world.of(BY_ID)] == [["photos/04.jpg"], ["photos/07.jpg"]]
    assert world.asked[-1].method == "GET" or world.of("/v1/search")[0].image
    page.go_back()
    settled(page, "photos/04.jpg in places")
    assert page.locator("#photo").evaluate("image => image.decode().then(() => image.currentSrc)").endswith("side=2048")
    page.go_back()
    settled(page, "square.jpg in places")
    assert page.evaluate("location.search") == ""
    page.go_forward()
    settled(page, "photos/04.jpg in places")
    # What was found before is shown again; nothing is asked for it.
    assert (len(world.of(BY_ID)), len(world.of("/v1/search"))) == (2, 1)
    other = context_of().new_page()
    other.goto(page.url)
    settled(other, "photos/04.jpg in places")
    assert other.locator("#hits .id").all_text_contents() == page.locator("#hits .id").all_text_contents()


def test_an_address_is_read_whole_and_written_as_it_was(page_of, server, world):
    address = "?index=places&id=photos%2F01.jpg&top=5&step=alpha-qe%3Ak%3D5&step=k-reciprocal%3Alambda%3D0.5"
    page = started(page_of, server, address)
    (asked,) = world.of(BY_ID)
    assert asked.query == {
        "id": ["photos/01.jpg"],
        "top": ["5"],
        "steps": ["alpha-qe:k=5", "k-reciprocal:lambda=0.5"],
    }
    assert page.url.endswith(address)
    assert "top 5 · alpha-qe:k=5 · k-reciprocal:lambda=0.5 · generation 7" in page.locator("#asked").text_content()
    page.get_by_role("button", name="Options").click()
    assert page.get_by_label("neighbours (k)").input_value() == "5"
    assert page.locator("#rerank").input_value() == "k-reciprocal"
    assert page.get_by_label("share of the first distance").input_value() == "0.5"
    page.go_back()


def test_an_id_may_be_any_text(page_of, server, world):
    odd = 'a/../b?c&d=e#f "\u00e4\U0001f5fc.jpg'
    world.pictures[odd] = world.pictures["photos/00.jpg"]
    world.hits = lambda ask: [(odd, 0.5, None)]
    page = page_of()
    page.goto(server.address)
    page.get_by_label("Or begin with an image of the index").fill(odd)
    page.get_by_role("button", name="Find its neighbours").click()
    page.wait_for_selector("#hits li")
    page.locator(".pick").click()
    page.wait_for_selector("body:not(.busy)")
    assert [ask.query["id"] for ask in world.of(BY_ID)] == [[odd], [odd]]
    assert page.locator("#hits .id").text_content() == odd


def test_another_address_is_no_index_of_this_server(page_of, server):
    page = page_of()
    page.goto(server.address + "?index=nothing&id=1")
    page.get_by_role("alert").get_by_text("The address asks for nothing").wait_for()
    assert page.locator("#drop").is_visible()


def test_a_link_opens_the_large_picture(page, give):
    give(page)
    link = page.get_by_role("link", name="Open the picture of photos/02.jpg")
    assert link.get_attribute("href").endswith("/v1/indexes/places/image?id=photos%2F02.jpg&side=2048")
    assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener")


def test_the_address_is_copied(page_of, server):
    page = started(page_of, server, "?index=places&id=photos/01.jpg")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy address").click()
    page.get_by_text("The address is copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.url


# --- options ---


def test_options_search_again_and_are_in_the_address(page_of, server, world):
    page = started(page_of, server, "?index=places&id=photos/01.jpg")
    page.get_by_role("button", name="Options").click()
    page.get_by_label("how many").fill("7")
    page.get_by_label("how many").press("Enter")
    settled(page, "7 neighbours in")
    page.get_by_label("approximate").check()
    settled(page, "top 7 · approximate")
    assert world.of(BY_ID)[-1].query["approximate"] == ["true"]
    page.get_by_label("search again with the mean").check()
    settled(page, "top 7 · alpha-qe ·")
    assert page.get_by_label("approximate").is_disabled()
    page.get_by_label("exponent (alpha)").fill("2.5")
    page.get_by_label("exponent (alpha)").press("Enter")
    settled(page, "top 7 · alpha-qe:alpha=2.5 ·")
    page.locator("#rerank").select_option("diffusion")
    settled(page, "top 7 · alpha-qe:alpha=2.5 · diffusion ·")
    assert world.of(BY_ID)[-1].query["steps"] == ["alpha-qe:alpha=2.5", "diffusion"]
    assert page.url.endswith("&top=7&step=alpha-qe%3Aalpha%3D2.5&step=diffusion")


def test_what_is_out_of_range_is_said_and_not_asked(page_of, server, world):
    page = started(page_of, server, "?index=places&id=photos/01.jpg")
    page.get_by_role("button", name="Options").click()
    page.get_by_label("how many").fill("1001")
    page.get_by_label("how many").press("Enter")
    assert page.locator("#top").evaluate("field => field.validity.rangeOverflow")
    assert len(world.of(BY_ID)) == 1


def test_another_index_is_searched_by_the_same_photo(page, world, give):
    give(page)
    page.locator("#index").select_option("others")
    settled(page, "square.jpg in others")
    assert world.of("/v1/search")[-1].options["index"] == "others"
    page.locator(".pick").first.click()
    settled(page, "photos/00.jpg in others")
    page.locator("#index").select_option("places")
    settled(page, "photos/00.jpg in places")
    asked = world.of("/v1/search")[-1]
    assert (asked.id, asked.index, asked.options["index"]) == ("photos/00.jpg", "others", "places")
    assert "id=" not in page.url


# --- why ---


def test_why_says_who_voted_and_the_votes_sum_up(page, give):
    give(page)
    landmark = page.locator("#landmark")
    assert landmark.locator("#landmark-name").text_content() == "tower"
    landmark.get_by_text("Why").click()
    sums, voters = (table.locator("tbody tr") for table in landmark.locator("table").all())
    votes = [row.locator("td").all_text_contents() for row in voters.all()]
    assert [vote[1] for vote in votes] == [name for name, _, _ in HITS[:3]]
    for row in sums.all():
        name, near, said, total = row.locator("td").all_text_contents()
        of_it = sum(float(vote[3]) for vote in votes if vote[2] == name)
        assert float(total) == pytest.approx(of_it, abs=1e-3)
        assert float(near) + float(said) == pytest.approx(float(total), abs=1e-3)
    assert landmark.locator("#landmark-score").text_content() == "score 1.5600"
    assert page.locator("#hits .vote").all_text_contents() == ["vote 0.8000", "vote 0.7800", "vote 0.7600"]


def test_a_rule_that_vetoes_is_named(page, world, give):
    box = {"name": "Person", "score": 0.97, "bbox": [0, 0, 10, 10]}
    world.recognition = {
        "landmark": None,
        "score": None,
        "labels": None,
        "candidates": [{"landmark": "tower", "score": 0.8, "neighbours": 0.7, "classifiers": 0.1}],
        "neighbours": [],
        "classes": [{"model": "namer", "index": 5, "landmark": None, "vote": 0.1}],
        "no_landmark": [{"rule": "person", "area": 0.43, "boxes": [box]}],
    }
    give(page)
    landmark = page.locator("#landmark")
    assert landmark.locator("#landmark-name").text_content() == "No landmark"
    assert "“person” holds: 43 % of the photo" in landmark.locator("#landmark-score").text_content()
    landmark.get_by_text("Why").click()
    assert "Person 0.9700" in landmark.locator(".veto").text_content()
    assert landmark.get_by_text("unnamed").is_visible()


# --- detections ---

CORNERS = """edges => edges.map((edge) => {
  const [{ x, y, width, height }, to] = [edge.getBBox(), edge.getScreenCTM()];
  const corners = [new DOMPoint(x, y), new DOMPoint(x + width, y + height)];
  const [one, other] = corners.map((point) => point.matrixTransform(to));
  return [one.x, one.y, other.x, other.y];
})"""
BOXES = [
    {"category_id": 1, "name": "Tower", "bbox": [40, 30, 200, 150], "score": 0.75},
    {"category_id": 2, "name": None, "bbox": [300, 200, 60, 50], "score": 0.95},
    {"category_id": 3, "name": "Faint", "bbox": [0, 0, 10, 10], "score": 0.1},
]


def test_boxes_lie_on_the_photo_at_any_size_and_are_listed(page, world, give):
    world.detections = BOXES
    give(page)
    page.wait_for_selector(".box")
    for width in (1280, 700, 420):
        page.set_viewport_size({"width": width, "height": 900})
        stage = page.locator("#stage").bounding_box()
        scale = stage["width"] / 400
        drawn = page.locator(".box .edge").evaluate_all(CORNERS)
        for box, (x, y, w, h) in zip(drawn, ([300, 200, 60, 50], [40, 30, 200, 150]), strict=True):
            wanted = [stage["x"] + x * scale, stage["y"] + y * scale, stage["x"] + (x + w) * scale]
            assert box == pytest.approx([*wanted, stage["y"] + (y + h) * scale], abs=1)
    assert page.locator(".tag text:first-of-type").all_text_contents() == ["1", "2"]
    page.get_by_text("2 detections").click()
    rows = page.locator("#boxes-body tr")
    assert [row.locator("td").all_text_contents()[:3] for row in rows.all()] == [
        ["1", "class 2", "0.9500"],
        ["2", "Tower", "0.7500"],
    ]
    page.get_by_label("score at least").fill("0.05")
    page.get_by_label("score at least").press("Tab")
    assert rows.count() == 3
    page.get_by_label("draw boxes").uncheck()
    assert page.locator(".box").count() == 0
    page.get_by_role("button", name="Use detection 2, Tower").click()
    settled(page, "region 40, 30, 200")
    assert world.of("/v1/search")[-1].options["crop"] == [40, 30, 200, 150]


def test_boxes_of_an_indexed_image_lie_on_its_smaller_picture(page_of, server, world):
    world.pictures["photos/01.jpg"] = jpeg(np.zeros((1024, 4096, 3), np.uint8))
    world.detections = [{"category_id": 1, "name": "Tower", "bbox": [400, 200, 2000, 600], "score": 0.75}]
    page = started(page_of, server, "?index=places&id=photos/01.jpg")
    edge = page.locator(".box .edge")
    assert [float(edge.get_attribute(side)) for side in ("x", "y", "width", "height")] == [200, 100, 1000, 300]
    assert world.of("/v1/detect")[0].id == "photos/01.jpg"
    page.get_by_text("1 detection").click()
    page.get_by_role("button", name="Use detection 1, Tower").click()
    settled(page, "region 200, 100, 1000")
    *shares, unit = world.of("/v1/search")[-1].options["crop"]
    assert (shares, unit) == (pytest.approx([200 / 2048, 100 / 512, 1000 / 2048, 300 / 512]), "relative")


# --- export ---


def saved(page, button):
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def test_a_table_is_saved_that_no_spreadsheet_runs(page, world, give):
    evil = ['=HYPERLINK("x")', "+1", "-2", "@SUM(A1)", 'plain "quoted", and comma', "line\nbreak"]
    world.hits = lambda ask: [(name, -0.25, name) for name in evil]
    give(page)
    name, data = saved(page, "CSV")
    assert name == "places.csv"
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    assert rows[0] == ["rank", "id", "score", "landmark", "index", "generation", "options"]
    assert [row[1] for row in rows[1:]] == [f"'{text}" if text[0] in "=+-@" else text for text in evil]
    assert [row[3] for row in rows[1:]] == [row[1] for row in rows[1:]]
    assert rows[1][0::2] == ["1", "-0.25", "places", "top 60"]
    assert data.endswith(b"\r\n")


def test_the_answer_is_saved_as_json(page, give):
    give(page)
    name, data = saved(page, "JSON")
    answer = json.loads(data)
    assert name == "places.json"
    assert answer["index"] == {"name": "places", "generation": 7, "rows": 60}
    assert len(answer["results"][0]["neighbours"]) == 60
    assert answer["options"] == {"index": "places", "top": 60, "steps": [], "approximate": False}
    assert answer["recognition"]["landmark"] == "tower"
