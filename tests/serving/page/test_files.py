"""The page's files without a browser: all that are there and no others are served, and they are small."""

import importlib.resources
import re
from pathlib import Path

from landmark_onnx.serving.page_files import HERE, PAGE_HEADERS, page_files

FOLDER = Path(str(importlib.resources.files(HERE[0]).joinpath(HERE[1])))

BUDGET = 80 << 10


def texts():
    return {path: file.data.decode() for path, file in page_files().items()}


def test_every_file_of_the_page_is_served_and_no_other():
    there = {path.name for path in FOLDER.iterdir()}
    served = {path.rpartition("/")[2] for path in page_files()}
    assert served - {"", "cards.css", "favicon.ico"} == there - {"index.html"}


def test_the_page_is_small():
    assert sum(len(file.data) for path, file in page_files().items() if path != "/favicon.ico") <= BUDGET


def test_what_the_page_asks_for_is_served():
    served = page_files()
    asked = set(re.findall(r'(?:src|href)="(assets/[^"]*)"', texts()["/"]))
    assert len(asked) >= 4
    for text in (text for path, text in texts().items() if path.endswith(".js")):
        asked |= {f"assets/{name}" for name in re.findall(r'from "\./([^"]*)"', text)}
    assert {f"/{path}" for path in asked} <= set(served)
    assert {f"assets/{path.name}" for path in FOLDER.glob("*.js")} <= asked


def test_no_script_makes_markup_or_code_of_text():
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert [path for path, text in texts().items() if re.search(forbidden, text)] == []


def test_the_markup_has_no_script_or_style_of_its_own():
    text = texts()["/"]
    assert not re.search(r"<style|<script(?![^>]*src=)|\son\w+=|\sstyle=", text)


def test_nothing_is_fetched_from_elsewhere():
    for path, text in texts().items():
        assert set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text)) <= {"http://www.w3.org/2000/svg"}, path


def test_tags_are_of_the_bytes_and_headers_forbid_all_that_is_not_named():
    files = page_files()
    assert len({file.etag for path, file in files.items() if path != "/favicon.ico"}) == len(files) - 1
    assert all(re.fullmatch(r'"[0-9a-f]{20}"', file.etag) for file in files.values())
    policy = PAGE_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
