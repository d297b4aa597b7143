"""Whatever a server answers, or does not: the page says what it is, and what to do about it."""

import re
import threading

import pytest

from serving_page_server import Answer, problem

pytestmark = pytest.mark.browser


def bring(page, photo, name="square.jpg"):
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": photo})


def fails_once(world, path, *answers):
    """The first requests of a path are answered so, the later ones well."""
    left = list(answers)

    def before(ask, handler):
        if ask.path == path and left:
            raise left.pop(0)

    world.before = before


def test_nothing_yet_says_how_to_begin(page):
    assert page.locator("#status").text_content() == "Ready."
    assert "JPEG, PNG, WebP · up to 32 MiB · 50 megapixels" in page.locator("#accepted").text_content()
    assert page.locator("#has dd").all_text_contents() == [
        "places: generation 7 · 60 images",
        "others: generation 1 · 3 images",
        "embedder embeds",
        "namer classifies",
        "boxer detects",
    ]


def test_after_two_seconds_it_says_how_many_wait(page, world, photo):
    def slow(ask, handler):
        if ask.path == "/v1/search":
            handler.wait_until_left(ask)

    world.before = slow
    world.info["queue"] = {"images": 12, "seconds": 3}
    bring(page, photo)
    page.get_by_text("Still searching: 12 images wait on the server.").wait_for()
    assert page.locator("#answers").get_attribute("aria-busy") == "true"


@pytest.mark.parametrize(("status", "kind"), [(503, "queue-full"), (429, "client-queue-full")])
def test_a_busy_server_is_asked_again_when_it_says(page, world, photo, status, kind):
    fails_once(world, "/v1/search", problem(status, kind, "The queue is full", "256 images wait", retry_after=2))
    bring(page, photo)
    notice = page.locator("#notice")
    notice.get_by_text("256 images wait").wait_for()
    assert "Trying again in" in notice.locator(".clock").text_content()
    page.wait_for_selector("#hits li")
    assert len(world.of("/v1/search")) == 2
    assert not notice.is_visible()


def test_the_countdown_may_be_cut_short(page, world, photo):
    fails_once(world, "/v1/search", problem(503, "queue-full", "The queue is full", "wait", retry_after=60))
    bring(page, photo)
    page.get_by_role("button", name="Try now").click()
    page.wait_for_selector("#hits li")


def test_an_error_shows_its_words_and_the_id_to_copy(page, world, photo):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    fails_once(world, "/v1/search", problem(422, "invalid", "An option is wrong", "top: wanted 1 to 1000"))
    bring(page, photo)
    alert = page.get_by_role("alert")
    alert.get_by_text("top: wanted 1 to 1000").wait_for()
    assert alert.get_by_role("heading").text_content() == "An option is wrong"
    wanted = "urn:uuid:00000000-0000-0000-0000-0000000001a6"
    assert page.locator("#notice code").text_content() == wanted
    page.get_by_role("button", name="Copy request id").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == wanted
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("#hits li")


@pytest.mark.parametrize("answer", [Answer(502, b"<h1>Bad gateway</h1>", "text/html"), Answer(200, b'{"results":')])
def test_what_is_no_answer_of_the_server_is_told(page, world, photo, answer):
    fails_once(world, "/v1/search", answer)
    bring(page, photo)
    told = "502 Bad Gateway" if answer.status == 502 else "The answer broke off"
    page.get_by_role("alert").get_by_text(told).wait_for()
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("#hits li")


def test_without_a_connection_it_says_so_and_goes_on_later(page, photo):
    page.context.set_offline(True)
    bring(page, photo)
    page.get_by_role("alert").get_by_text("The server does not answer").wait_for()
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("#hits li")


def test_no_neighbours(page, world, photo):
    world.hits = lambda ask: []
    bring(page, photo)
    page.get_by_text("Nothing in the index is a neighbour of it.").wait_for()
    assert page.get_by_role("heading", name="0 neighbours").is_visible()
    assert not page.locator("#results-actions").is_visible()


def test_an_empty_index(page_of, server, world, photo):
    world.info["indexes"] = [world.info["indexes"][0] | {"rows": 0}]
    world.hits = lambda ask: []
    page = page_of()
    page.goto(server.address)
    page.get_by_text("The index places is empty.").wait_for()
    assert "landmark-onnx index add" in page.locator("#has").text_content()
    assert not page.locator("#by-id").is_visible()
    bring(page, photo)
    page.get_by_text("The index places is empty: images get into it").wait_for()


@pytest.mark.parametrize("keep", [False, True])
def test_a_key_is_asked_for_once_and_kept_only_if_that_is_wished(page_of, server, world, keep):
    def guarded(ask, handler):
        if ask.key != "secret":
            raise problem(401, "unauthorized", "A key is needed", "the request has none, or an unknown one")

    world.before = guarded
    world.info["key_required"] = True
    page = page_of()
    page.goto(server.address + "?index=places&id=photos/01.jpg")
    page.get_by_label("Key", exact=True).fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    page.get_by_role("alert").get_by_text("A key is needed").wait_for()
    page.get_by_label("Key", exact=True).fill("secret")
    page.get_by_label("Remember it").set_checked(keep)
    page.get_by_role("button", name="Use this key").click()
    page.wait_for_selector("#hits li")
    page.wait_for_selector("#hits img[src^='blob:']")
    page.wait_for_selector("#photo[src^='blob:']")
    assert "secret" not in page.url
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Open the picture of photos/00.jpg").click()
    popup.value.close()
    page.reload()
    page.wait_for_selector("#hits li" if keep else "#key")


WITH_A_KEY = """
sessionStorage.setItem("landmark-onnx.key", "secret");
window.held = new Set();
const { createObjectURL, revokeObjectURL } = URL;
URL.createObjectURL = (data) => {
  const url = createObjectURL.call(URL, data);
  held.add(url);
  return url;
};
URL.revokeObjectURL = (url) => {
  held.delete(url);
  revokeObjectURL.call(URL, url);
};
"""
"""What a page begins with: a key, and the addresses of blobs that are not given back."""


def picture(ask, name, side):
    return (ask.query.get("id"), ask.query.get("side")) == ([name], [str(side)])


def started_with_a_key(page_of, server):
    page = page_of()
    page.add_init_script(WITH_A_KEY)
    page.goto(server.address + "?index=places&id=photos/01.jpg")
    page.wait_for_selector("#hits li")
    page.wait_for_selector("body:not(.busy)")
    return page


def test_pictures_that_go_are_fetched_no_further_and_give_their_memory_back(page_of, server, world):
    first = iter([True])

    def before(ask, handler):
        if picture(ask, "photos/00.jpg", 180) and next(first, False):
            handler.wait_until_left(ask)

    world.before = before
    page = started_with_a_key(page_of, server)
    assert world.waiting.get(timeout=20) == "/v1/indexes/places/image"
    page.locator("#index").select_option("others")
    assert world.gone.get(timeout=20) == "/v1/indexes/places/image"
    page.locator("#asked").get_by_text("in others").wait_for()
    page.locator("#hits img[src^='blob:']").nth(19).wait_for(state="attached")
    shown = page.locator("#photo, #hits img").evaluate_all("images => images.map((image) => image.src)")
    assert sorted(page.evaluate("[...held]")) == sorted(shown)


def test_with_a_key_a_large_picture_has_its_window_before_it_is_there(page_of, server, world):
    opened = threading.Event()

    def before(ask, handler):
        if picture(ask, "photos/02.jpg", 2048):
            opened.wait(60)

    world.before = before
    page = started_with_a_key(page_of, server)
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Open the picture of photos/02.jpg").click()
    opened.set()
    popup.value.wait_for_url(re.compile("^blob:"))
    assert popup.value.evaluate("opener") is None


def test_with_a_key_a_large_picture_that_is_gone_leaves_no_window(page_of, server, world):
    del world.pictures["photos/02.jpg"]
    page = started_with_a_key(page_of, server)
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Open the picture of photos/02.jpg").click()
    if not popup.value.is_closed():
        popup.value.wait_for_event("close")


def test_a_damaged_photo_is_named(page, world, photo):
    fails_once(world, "/v1/search", problem(422, "bad-image", "The image cannot be read", "square.jpg: cut off"))
    bring(page, photo)
    page.get_by_role("alert").get_by_text("square.jpg: cut off").wait_for()


def test_what_the_browser_cannot_read_is_not_sent(page, world):
    bring(page, b"no image at all", "letter.jpg")
    page.get_by_role("alert").get_by_text("letter.jpg is damaged").wait_for()
    assert world.of("/v1/search") == []


def test_pictures_that_are_gone_are_told_and_the_search_goes_on(page_of, server, world):
    world.pictures.clear()
    page = page_of()
    page.goto(server.address + "?index=places&id=photos/01.jpg")
    page.get_by_text("photos/01.jpg: its picture is not where it was.").wait_for()
    page.get_by_text("no picture").nth(5).wait_for()
    assert page.get_by_role("heading", name="60 neighbours").is_visible()
    assert world.of("/v1/classify") == []


@pytest.mark.parametrize(
    ("fact", "now"),
    [({"generation": 8}, "generation 8 · 60 images"), ({"rows": 61}, "generation 7 · 61 images")],
    ids=["generation", "rows"],
)
def test_a_change_of_the_index_since_is_said(page, world, give, fact, now):
    give(page)
    page.locator(".pick").nth(2).click()
    page.get_by_text("photos/02.jpg in places").wait_for()
    world.row("places").update(fact)
    page.go_back()
    told = f"These results are of generation 7 · 60 images; it is at {now} now."
    page.get_by_role("alert").get_by_text(told).wait_for()
    page.get_by_role("button", name="Search again").click()
    page.locator("#asked").get_by_text(now).wait_for()


def test_an_uploaded_photo_is_gone_after_a_reload(page, give):
    give(page)
    page.locator(".pick").nth(2).click()
    page.get_by_text("photos/02.jpg in places").wait_for()
    page.reload()
    page.get_by_text("photos/02.jpg in places").wait_for()
    page.go_back()
    page.get_by_role("alert").get_by_text("An uploaded photo has no address").wait_for()
    assert page.locator("#drop").is_visible()


def test_nothing_comes_from_elsewhere(page_of, server, give):
    page = page_of()
    elsewhere = []
    page.on("request", lambda request: elsewhere.append(request.url))
    page.goto(server.address)
    page.wait_for_selector("#welcome:not([hidden])")
    give(page)
    page.locator(".pick").first.click()
    page.get_by_text("photos/00.jpg in places").wait_for()
    assert [url for url in elsewhere if not url.removeprefix("blob:").startswith(server.address)] == []
    assert len(elsewhere) > 20


def test_names_of_others_are_text(page_of, server, world, photo, give):
    evil = "<img src=x onerror=alert(1)>"
    world.pictures[evil] = photo
    world.hits = lambda ask: [(evil, 0.9, evil), ("photos/01.jpg", 0.8, "</b><script>alert(1)</script>")]
    world.detections = [{"category_id": 1, "name": evil, "bbox": [0, 0, 300, 200], "score": 0.9}]
    world.labels = [{"index": 0, "score": 0.5, "name": evil}]
    world.info["models"][1]["name"] = evil
    page = page_of()
    alarms = []
    page.on("dialog", lambda dialog: (alarms.append(dialog.message), dialog.dismiss()))
    page.goto(server.address)
    page.wait_for_selector("#welcome:not([hidden])")
    give(page, name=evil)
    page.locator("#why summary").click()
    page.locator("#objects summary").click()
    for place in ("#query-name", "#landmark-name", "#why-body", "#classes-body", "#boxes-body", "#hits", "#asked"):
        assert evil in page.locator(place).text_content(), place
    assert page.locator("img[src=x], main script").count() == 0
    assert alarms == []


def test_the_policy_holds_against_a_page_that_is_tampered_with(page_of, server):
    context_page = page_of()
    context_page.goto(server.address)
    context_page.wait_for_selector("#welcome:not([hidden])")
    refused = context_page.evaluate("""() => {
      try { document.body.innerHTML = "<b>x</b>"; return "set"; } catch (error) { return error.name; }
    }""")
    assert refused == "TypeError"
