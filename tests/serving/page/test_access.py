"""The page for everybody: without a mouse, by a reader, on a phone, enlarged, on a slow network, without scripts."""

import pytest

from serving_page_server import HITS, problem

pytestmark = pytest.mark.browser


def bring(page, photo):
    page.set_input_files("#file", {"name": "square.jpg", "mimeType": "image/jpeg", "buffer": photo})


def focused(page, selector):
    return page.locator(selector).evaluate("node => node === document.activeElement")


# --- keys ---


def test_everything_goes_without_a_mouse(page, world, photo):
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("/")
    chooser.value.set_files({"name": "square.jpg", "mimeType": "image/jpeg", "buffer": photo})
    page.wait_for_selector("#hits li")
    page.wait_for_selector("body:not(.busy)")
    page.keyboard.press("c")
    page.keyboard.press("Enter")
    page.get_by_text("region 80, 60").wait_for()
    page.keyboard.press("o")
    assert page.evaluate("document.activeElement.id") == "top"
    page.keyboard.press("Control+A")
    page.keyboard.type("30")
    page.keyboard.press("Enter")
    page.get_by_text("30 neighbours in").wait_for()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert not page.locator("#options").is_visible()
    for key, at in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        assert page.locator(".pick").nth(at).evaluate("node => node === document.activeElement")
    with page.expect_download() as download:
        page.keyboard.press("e")
    assert download.value.suggested_filename == "places.csv"
    page.keyboard.press("Enter")
    page.get_by_text(f"{HITS[1][0]} in places").wait_for()
    page.wait_for_selector("body:not(.busy)")
    assert focused(page, "#results")
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


def test_the_focus_reaches_all_and_is_seen(page, give):
    give(page)
    page.locator("#skip").focus()
    seen = ["skip"]
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert float(width.removesuffix("px")) >= 2, seen[-1]
    wanted = {"skip", "index", "options-button", "keys-button", "region", "Region in numbers"}
    assert wanted <= set(seen)


def test_keys_of_one_letter_are_switched_off(page, give):
    give(page)
    page.keyboard.press("?")
    page.get_by_label("keys of one letter are on").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("o")
    assert not page.locator("#options").is_visible()
    page.reload()
    page.wait_for_selector("#welcome:not([hidden])")
    page.keyboard.press("?")
    assert not page.get_by_role("dialog").is_visible()
    page.get_by_role("button", name="Keys").click()
    page.get_by_label("keys of one letter are on").check()
    page.keyboard.press("Escape")
    page.keyboard.press("o")
    assert page.locator("#options").is_visible()


def test_letters_in_a_field_are_letters(page):
    page.locator("#id").focus()
    page.keyboard.type("o/c?jke")
    assert page.locator("#id").input_value() == "o/c?jke"
    assert not page.locator("#options").is_visible()


# --- readers ---

LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True},
    "forced": {"forced_colors": "active"},
}


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(page_of, server, world, photo, axe, look):
    def check(state):
        found = axe.run(page).response["violations"]
        told = [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found]
        assert told == [], state

    def fails(answer):
        def before(ask, handler):
            if ask.path == "/v1/search":
                raise answer

        return before

    world.detections = [{"category_id": 1, "name": "Tower", "bbox": [40, 30, 200, 150], "score": 0.75}]
    page = page_of(**LOOKS[look])
    page.goto(server.address)
    page.wait_for_selector("#welcome:not([hidden])")
    check("nothing yet")
    bring(page, photo)
    page.wait_for_selector("#hits li")
    page.wait_for_selector("body:not(.busy)")
    page.get_by_role("button", name="Options").click()
    page.locator("#rerank").select_option("k-reciprocal")
    page.get_by_text("k-reciprocal ·").wait_for()
    page.wait_for_selector("body:not(.busy)")
    page.wait_for_selector(".box")
    for summary in page.locator("summary").all():
        summary.click()
    page.locator("#region").focus()
    page.keyboard.press("+")
    page.keyboard.press("-")
    check("results, with all that opens")
    page.locator("#keys").evaluate("dialog => dialog.showModal()")
    check("keys")
    page.keyboard.press("Escape")
    world.hits = lambda ask: []
    bring(page, photo)
    page.get_by_text("Nothing in the index").wait_for()
    page.wait_for_selector("body:not(.busy)")
    check("no neighbours")
    for answer in (
        problem(401, "unauthorized", "Key", "none"),
        problem(503, "queue-full", "Full", "w", retry_after=60),
    ):
        world.before = fails(answer)
        bring(page, photo)
        page.get_by_role("alert").wait_for()
        check(f"problem {answer.status}")


def test_the_status_is_said_and_the_structure_is_there(page, give):
    give(page)
    assert page.locator("[aria-live], [role=status], output").count() == 1
    assert page.locator("#status").text_content() == "60 neighbours in 0.45 s."
    assert page.locator("main, header").count() == 2
    assert page.locator("h1").count() == 1
    page.get_by_role("link", name="Skip to the results").focus()
    page.keyboard.press("Enter")
    assert focused(page, "#results")


# --- small, enlarged, slow ---


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
        {"viewport": {"width": 640, "height": 450}, "device_scale_factor": 2},  # 1280 x 900 at 200 %
        {"viewport": {"width": 320, "height": 256}, "device_scale_factor": 4},  # at 400 %
    ],
    ids=["phone", "200 %", "400 %"],
)
def test_nothing_is_cut_off_or_too_small_to_hit(page_of, server, world, give, options):
    world.hits = lambda ask: [("a/very-long-name-without-a-space-in-it" * 6, 0.5, "L" * 90), *HITS[:5]]
    page = page_of(**options)
    page.goto(server.address)
    page.wait_for_selector("#welcome:not([hidden])")
    wide = "[document.documentElement.scrollWidth, innerWidth]"
    scrolled, inner = page.evaluate(wide)
    assert scrolled <= inner
    give(page)
    page.get_by_role("button", name="Options").click()
    for summary in page.locator("summary:visible").all():
        summary.click()
    scrolled, inner = page.evaluate(wide)
    assert scrolled <= inner
    targets = page.locator("button:visible, a.pick:visible, a.large:visible, select:visible, label.check:visible")
    sizes = targets.evaluate_all("nodes => nodes.map((node) => [node.id, node.offsetWidth, node.offsetHeight])")
    assert [each for each in sizes if min(each[1:]) < 24] == []


def test_text_of_twice_the_size_fits(page, give):
    give(page)
    page.evaluate("document.documentElement.style.fontSize = '30px'")
    scrolled, inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert scrolled <= inner


@pytest.mark.slow
def test_a_slow_phone_on_a_slow_network_gets_there(page_of, server, photo):
    page = page_of(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    speed = {"latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000, "offline": False}
    devtools.send("Network.emulateNetworkConditions", speed)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    page.set_default_timeout(120_000)
    page.goto(server.address)
    page.wait_for_selector("#welcome:not([hidden])")
    bring(page, photo)
    page.wait_for_selector("#hits li")


def test_without_scripts_it_says_what_it_needs(page_of, server):
    page = page_of(java_script_enabled=False)
    page.goto(server.address)
    assert page.locator("noscript p").is_visible()


SEARCHES = """async ([start, stop]) => {
  const at = (id) => document.getElementById(id);
  for (let number = start; number < stop; number += 1) {
    at("region-x").value = number % 300;
    at("region-width").value = 90;
    at("region-form").requestSubmit();
    const told = () => at("asked").textContent.startsWith(`region ${number % 300}, 0, 90`);
    while (document.body.classList.contains("busy") || !told()) await new Promise((done) => setTimeout(done, 5));
  }
}"""


@pytest.mark.slow
def test_five_hundred_searches_leave_nothing_behind(page, world, give):
    give(page)
    devtools = page.context.new_cdp_session(page)
    devtools.send("HeapProfiler.enable")

    def held():
        world.asked.clear()
        devtools.send("HeapProfiler.collectGarbage")
        counts = devtools.send("Memory.getDOMCounters")
        return devtools.send("Runtime.getHeapUsage")["usedSize"], counts["nodes"], counts["jsEventListeners"]

    page.evaluate(SEARCHES, [0, 100])  # code is compiled, and the browser's own lists are full
    before = held()
    page.evaluate(SEARCHES, [100, 600])
    assert [after <= 1.1 * first for after, first in zip(held(), before, strict=True)] == [True] * 3
