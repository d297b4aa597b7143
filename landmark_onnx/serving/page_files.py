"""The page's files as they are served: a fixed table, so that no path of a request reaches the disk."""

import dataclasses
import functools
import hashlib
import importlib.resources
from collections.abc import Mapping
from types import MappingProxyType

PAGE_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
            "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
        ),
        "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    }
)
"""What a browser may do for the page. Its camera is the system's own, by a file field, which needs no permission."""

MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "css": "text/css; charset=utf-8",
        "html": "text/html; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
)

HERE = ("landmark_onnx.serving", "page")
SCRIPTS = (
    "address.js",
    "answers.js",
    "api.js",
    "dom.js",
    "export.js",
    "keys.js",
    "main.js",
    "notices.js",
    "options.js",
    "region.js",
    "search.js",
    "stage.js",
)
CARDS = ("landmark_onnx.search", "cards.css")
"""Of the contact sheet that a search leaves."""


@dataclasses.dataclass(frozen=True, slots=True)
class PageFile:
    """A file with what its answer says of it. etag: with its quotes."""

    data: bytes
    media_type: str
    etag: str


@functools.cache
def page_files() -> Mapping[str, PageFile]:
    """The path of a request -> the file."""
    named = {f"/assets/{name}": _read(*HERE, name) for name in (*SCRIPTS, "icon.svg", "style.css")}
    named["/assets/cards.css"] = _read(*CARDS)
    return MappingProxyType({"/": _read(*HERE, "index.html"), "/favicon.ico": named["/assets/icon.svg"], **named})


def _read(package: str, *path: str) -> PageFile:
    data = importlib.resources.files(package).joinpath(*path).read_bytes()
    name = path[-1]
    return PageFile(data, MEDIA_TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(data).hexdigest()[:20]}"')
