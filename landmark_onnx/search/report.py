"""A contact sheet of answers in one HTML file: it opens offline, and asks for nothing from anywhere."""

import contextlib
import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from landmark_onnx.files import streaming_write
from landmark_onnx.search.answers import Answer, Hit
from landmark_onnx.search.thumbnails import thumbnail

SHOWN = 50
"""Neighbours of one query: a hundred more thumbnails help nobody, and a page of all would hardly open."""

HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 14px/1.35 system-ui, sans-serif; --line: light-dark(#ddd, #444) }}
body {{ margin: 1.5rem }}
h1 {{ font-size: 1.2rem }}
section {{ display: flex; gap: 1.5rem; border-top: 1px solid var(--line); padding: 1rem 0 }}
.query {{ flex: 0 0 200px; position: sticky; top: 0; align-self: flex-start }}
.hits {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: .8rem; flex: 1 }}
figure {{ margin: 0; min-width: 0 }}
img, .missing {{ display: block; width: 100%; height: 130px; object-fit: contain }}
img, .missing {{ background: light-dark(#f4f4f4, #222) }}
.missing {{ display: grid; place-items: center; font-style: italic; opacity: .7 }}
figcaption {{ overflow-wrap: anywhere; font-size: .85em }}
b {{ font-variant-numeric: tabular-nums }}
</style>
<h1>{title}</h1>
"""


@contextlib.contextmanager
def contact_sheet(path: Path, title: str) -> Iterator[Callable[[Answer], None]]:
    """Takes answers one by one; `path` appears when the block ends well.

    The query is on the left, its SHOWN best neighbours beside it, with score and id; an image that cannot be read any
    more is said to be missing.
    """
    with streaming_write(path) as file:
        file.write(HEAD.format(title=html.escape(title)).encode())
        yield lambda answer: _write(file, answer)


def _write(file: BinaryIO, answer: Answer) -> None:
    query = _figure(answer.source, f"<b>query</b> {_text(answer.image)}")
    more = f"<p>{len(answer.hits) - SHOWN} more are not shown.</p>" if len(answer.hits) > SHOWN else ""
    file.write(f'<section><div class="query">{query}{more}</div><div class="hits">\n'.encode())
    for hit in answer.hits[:SHOWN]:
        file.write(_figure(hit.source, _caption(hit)).encode())
    file.write(b"</div></section>\n")


def _caption(hit: Hit) -> str:
    return f"{hit.rank}. <b>{hit.score:.4f}</b> {_text(hit.id)}"


def _figure(source: str, caption: str) -> str:
    uri = thumbnail(source)
    picture = f'<img src="{uri}" alt="">' if uri else '<span class="missing">missing</span>'
    return f'<figure title="{_text(source)}">{picture}<figcaption>{caption}</figcaption></figure>\n'


def _text(text: str) -> str:
    """Escaped; bytes of a name that are no text would not encode."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())
