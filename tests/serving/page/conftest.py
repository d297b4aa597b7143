"""A browser for each file of tests, and for each test a fresh profile and a server of its own."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

import serving_page_server
from serving_page_server import HITS, PageServer, World, jpeg

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 20_000
"""Milliseconds that a machine which is shared may take for what is there at once."""


def _missing(reason: str) -> None:
    """Where the browser has to be, its absence is a failure."""
    pytest.fail(reason) if os.environ.get("LANDMARK_ONNX_BROWSER") == "1" else pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """For a module, not the session: while Playwright is at work, asyncio cannot run beside it."""
    path = shutil.which("chromium")
    if path is None:
        _missing("no chromium on the PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("no playwright: pip install 'landmark-onnx[test-page]'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe() -> Any:
    """What looks for barriers."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        _missing("no axe-playwright-python: pip install 'landmark-onnx[test-page]'")
    return Axe()


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A JPEG of 400 x 300 pixels, with something to see."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
    return jpeg(cv2.resize(coarse, (400, 300), interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def world(photo) -> World:
    """Sixty indexed images; each looks like the photo in another tint."""
    image = cv2.resize(cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR), (160, 120))
    tinted = [jpeg(np.roll(image, 5 * number, axis=1)) for number in range(6)]
    return World(pictures={name: tinted[at % 6] for at, (name, _, _) in enumerate(HITS)})


@pytest.fixture
def server(world) -> Iterator[PageServer]:
    with serving_page_server.page_server(world) as running:
        yield running


@pytest.fixture
def context_of(chromium) -> Iterator[Callable[..., Any]]:
    """A fresh profile, by whatever options."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Any:
            context = chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
            context.set_default_timeout(PATIENCE)
            stack.callback(context.close)
            return context

        yield make


@pytest.fixture
def page_of(context_of) -> Iterator[Callable[..., Any]]:
    """An empty page in a profile; what its scripts fail at, or its policy forbids, fails the test."""
    faults: list[str] = []

    def make(**options: Any) -> Any:
        page = context_of(**options).new_page()
        # From now on, not from the moment that one is expected: that would be a race.
        page.on("filechooser", lambda chooser: None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Security Policy" in said.text else None)
        return page

    yield make
    assert faults == []


@pytest.fixture
def page(page_of, server) -> Any:
    """The page as it begins."""
    page = page_of()
    page.goto(server.address)
    page.wait_for_selector("#welcome:not([hidden])")
    return page


@pytest.fixture
def give(photo) -> Callable[..., None]:
    """Chooses the photo, and waits for all answers."""

    def choose(page: Any, data: bytes = photo, name: str = "square.jpg") -> None:
        page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": data})
        page.wait_for_selector("#hits li")
        _settled(page)

    return choose


def _settled(page: Any) -> None:
    page.wait_for_selector("body:not(.busy)")
