"""The page on the service itself: what it shows is what the API answers, and the API answers as the commands do."""

import contextlib
import json

import httpx
import numpy as np
import pytest

import fakes
import hosted
from encoded import encode, jpeg_with_exif
from landmark_onnx.embedding.feature_folder import Batch
from landmark_onnx.embedding.identity import identify
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.images.crop import crop
from landmark_onnx.images.decode import read_image
from landmark_onnx.recognition.recognizer import Voter
from landmark_onnx.search import writer
from landmark_onnx.search.ensemble import Ensemble, Member
from landmark_onnx.serving.app import build_app
from landmark_onnx.serving.live_index import LabelSource, LiveIndex
from landmark_onnx.serving.service import RecognitionRules
from serving_client import running

pytestmark = pytest.mark.browser
pytest.importorskip("faiss")

ROWS = 24
LARGE = "arch/large.png"
QUERY = jpeg_with_exif(encode(".jpg", fakes.photo(300, 400, seed=50)), 6)


def large():
    """An image of half as much again as its picture has."""
    return fakes.photo(240, 3072, seed=51)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A service of tiny models with an index of photos in two folders, which are their landmarks."""
    folder = tmp_path_factory.mktemp("places")
    models = hosted.models_in(folder)
    retriever, classifier, detector = models
    ids = [f"{('arch', 'dome')[number % 2]}/{number:02d}.png" for number in range(ROWS)]
    photos = [str(folder / name) for name in ids]
    for number, path in enumerate(photos):
        write_image(folder / path, fakes.photo(120, 160, seed=number))
    ids.append(LARGE)
    photos.append(str(folder / LARGE))
    write_image(folder / LARGE, large())
    vectors = {retriever.card.name: np.stack([answer.vector for answer in retriever(photos)])}
    ensemble = Ensemble((Member(identify(retriever)),))
    writer.build(folder / "index", ensemble, [Batch(ids, photos, vectors)])
    live = LiveIndex("places", folder / "index", labels=LabelSource(labels="folders"))
    live.serve_with([identify(retriever)])
    voter = Voter(name=classifier.card.name, classifier=classifier)
    recognition = RecognitionRules(voters=(voter,), detector=detector, rules=(), neighbours=3)
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(hosted.service_of(models, indexes={"places": live}, recognition=recognition))
        served = stack.enter_context(running(build_app(service, page=True)))
        yield f"http://127.0.0.1:{served.port}/"


@pytest.fixture
def page(page_of, address, give):
    page = page_of()
    page.goto(address)
    page.wait_for_selector("#welcome:not([hidden])")
    give(page, QUERY)
    return page


def answered(address, data, **options):
    """What the API says itself."""
    files = [("image", ("query", data)), ("options", (None, json.dumps({"index": "places", "top": 60} | options)))]
    response = httpx.post(f"{address}v1/search", files=files)
    assert response.status_code == 200, response.text
    return response.json()["results"][0]["neighbours"]


def shown(page):
    """Ids and scores on the cards."""
    cards = page.locator("#hits li")
    return list(zip(cards.locator(".id").all_text_contents(), cards.locator("b").all_text_contents(), strict=True))


def told(neighbours):
    return [(each["id"], f"{each['score']:.4f}") for each in neighbours[:20]]


def test_results_are_those_of_the_api(page, address):
    assert shown(page) == told(answered(address, QUERY))
    assert page.locator("#landmark-name").text_content() in ("arch", "dome")
    assert page.locator("#classes li").count() == 3
    assert page.locator("#objects-count").text_content().endswith("detections")
    assert page.locator("#hits img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 160


def test_a_region_is_the_crop_of_the_command_line(page, address, tmp_path):
    box = (31, 57, 180, 211)
    page.get_by_text("Region in numbers").click()
    for side, value in zip(("x", "y", "width", "height"), box, strict=True):
        page.locator(f"#region-{side}").fill(str(value))
    page.locator("#region-height").press("Enter")
    page.get_by_text("region 31, 57").wait_for()
    page.wait_for_selector("body:not(.busy)")
    x, y, width, height = box
    part = crop(read_image(QUERY), (x, y, x + width, y + height), "query")
    wanted = answered(address, hosted.png(part))
    assert [name for name, _ in shown(page)] == [each["id"] for each in wanted[:20]]
    scores = [float(score) for _, score in shown(page)]
    np.testing.assert_allclose(scores, [each["score"] for each in wanted[:20]], rtol=0, atol=1e-4)


def test_of_an_indexed_image_the_original_is_asked_about_not_its_picture(page_of, address):
    page = page_of()
    page.goto(f"{address}?index=places&id={LARGE}")
    page.wait_for_selector("#hits li")
    page.wait_for_selector("body:not(.busy)")
    page.get_by_text("Region in numbers").click()
    for side, value in {"x": 200, "y": 20, "width": 900, "height": 120}.items():
        page.locator(f"#region-{side}").fill(str(value))
    page.locator("#region-height").press("Enter")
    page.get_by_text("region 200, 20").wait_for()
    page.wait_for_selector("body:not(.busy)")
    assert shown(page) == told(answered(address, hosted.png(large()[30:210, 300:1650])))
    body = {"images": [{"id": LARGE, "index": "places"}]}
    found = httpx.post(f"{address}v1/detect", json=body).json()["results"][0]
    assert found["size"] == [3072, 240]
    page.locator("#boxes-score").evaluate("field => (field.value = 0, field.onchange())")
    edges = page.locator(".box .edge").evaluate_all(
        "nodes => nodes.map((node) => ['x', 'y', 'width', 'height'].map((side) => Number(node.getAttribute(side))))"
    )
    best_first = sorted(found["detections"], key=lambda each: -each["score"])
    assert len(edges) == len(best_first) > 0
    np.testing.assert_allclose(np.array(edges) * 1.5, [each["bbox"] for each in best_first], rtol=1e-6)


def test_a_result_leads_on_and_its_address_shows_the_same(page, context_of):
    page.locator(".pick").nth(1).click()
    name = page.locator("#query-name b")
    page.wait_for_selector("#photo[src*='side=2048']")
    page.wait_for_selector("body:not(.busy)")
    assert shown(page)[0] == (name.text_content(), "1.0000")
    page.get_by_role("button", name="Options").click()
    for step in ("k-reciprocal", "superglobal", "diffusion"):
        page.locator("#rerank").select_option(step)
        page.get_by_text(f"top 60 · {step} ·").wait_for()
    page.get_by_label("search again with the mean").check()
    page.get_by_text("top 60 · alpha-qe · diffusion ·").wait_for()
    page.wait_for_selector("body:not(.busy)")
    other = context_of().new_page()
    other.goto(page.url)
    other.wait_for_selector("#hits li")
    assert shown(other) == shown(page)
    assert not page.locator("#notice").is_visible()


def test_a_damaged_photo_has_the_problem_of_the_server(page):
    data = QUERY[: len(QUERY) // 2]
    page.set_input_files("#file", {"name": "half.jpg", "mimeType": "image/jpeg", "buffer": data})
    page.get_by_role("alert").wait_for()
    assert "half.jpg" in page.get_by_role("alert").text_content()
