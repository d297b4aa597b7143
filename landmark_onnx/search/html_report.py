"""A contact sheet of answers in one HTML file: it opens offline, runs no script, and asks for nothing from anywhere.

Each picture is in it once, as a rule of its stylesheet, however many answers show it.
"""

import base64
import contextlib
import html
import importlib.resources
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from landmark_onnx.errors import LandmarkError
from landmark_onnx.files.atomic import streaming_write
from landmark_onnx.images.ids import as_text
from landmark_onnx.results import Failure
from landmark_onnx.search.answers import Answer, Hit
from landmark_onnx.search.thumbnails import locate, thumbnail

SHOWN = 50
"""Neighbours of one query: a hundred more thumbnails help nobody."""

MAX_BYTES = 32 << 20
"""Of a page: browsers take seconds for it. The answers that come after are counted."""

HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{cards}
:root {{ print-color-adjust: exact; -webkit-print-color-adjust: exact }}
body {{ padding: 1.5rem clamp(1rem, 3vw, 2rem) }}
h1 {{ margin: 0 0 1.2rem; font-size: 1.3rem; font-weight: 600; letter-spacing: -.01em }}
section {{ display: flex; gap: 2rem; border-top: 1px solid var(--line); padding: 1.4rem 0 }}
section > * {{ min-width: 0 }}
.query {{ flex: 0 0 220px; position: sticky; top: 0; align-self: flex-start }}
.query figure > div {{ height: 165px }}
.hits {{ flex: 1 }}
@media (max-width: 600px) {{
section {{ flex-direction: column; gap: 1rem }}
.query {{ flex: none; width: 220px; max-width: 100%; position: static }}
.hits {{ flex: none }}
}}
"""
CARDS = "cards.css"
"""Beside this file: what the page of the service shows its cards by, too."""


class ContactSheet:
    """A page that grows by answers. pictures: the different ones so far. left_out: answers that it had no room for.

    missing: sources of pictures that are not where they were. unreadable: why others cannot be shown.
    """

    def __init__(self, rules: BinaryIO, body: BinaryIO, moved: Sequence[tuple[str, str]]) -> None:
        """rules: where the stylesheet goes on. body: what comes after it. moved: as for `locate`."""
        self.pictures = 0
        self.left_out = 0
        self.missing: list[str] = []
        self.unreadable: list[str] = []
        self._rules = rules
        self._body = body
        self._moved = moved
        self._bytes = 0
        self._plates: dict[str, str] = {}

    def show(self, answer: Answer | Failure) -> None:
        """Add a query with its SHOWN best neighbours, or with the reason why it has none.

        Below each neighbour are its score, its landmark if it has one, and its id.
        """
        if self._bytes >= MAX_BYTES:
            self.left_out += 1
        elif isinstance(answer, Failure):
            plate = '<div class="failed">no answer</div>'
            query = _figure(answer.image, plate, f"<b>query</b> {_text(answer.image)}")
            self._write(f'<section><div class="query">{query}</div><p>{_text(answer.error)}</p></section>\n')
        else:
            query = self._figure(answer.source, f"<b>query</b> {_text(answer.image)}")
            hits = "".join(self._figure(hit.source, _caption(hit)) for hit in answer.hits[:SHOWN])
            hidden = len(answer.hits) - SHOWN
            more = f"<p>{hidden} more are not shown.</p>" if hidden > 0 else ""
            self._write(f'<section><div class="query">{query}{more}</div><div class="hits">\n{hits}</div></section>\n')

    def _write(self, text: str) -> None:
        self._bytes += self._body.write(text.encode())

    def _figure(self, source: str, caption: str) -> str:
        if source not in self._plates:
            self._plates[source] = self._plate(source)
        return _figure(source, self._plates[source], caption)

    def _plate(self, source: str) -> str:
        """What stands for a picture wherever it is shown; its pixels are written now."""
        self.pictures += 1
        place = locate(source, self._moved)
        if place is None:
            self.missing.append(source)
            return '<div class="missing">missing</div>'
        try:
            data = thumbnail(*place)
        except LandmarkError as error:
            self.unreadable.append(str(error))
            return '<div class="missing">unreadable</div>'
        name = f"p{self.pictures}"
        uri = base64.b64encode(data).decode()
        self._bytes += self._rules.write(f".{name}{{background-image:url(data:image/jpeg;base64,{uri})}}\n".encode())
        return f'<div class="{name}"></div>'


@contextlib.contextmanager
def contact_sheet(path: Path, title: str, moved: Sequence[tuple[str, str]] = ()) -> Iterator[ContactSheet]:
    """Takes answers one by one; `path` appears when the block ends well.

    moved: folders of pictures that are elsewhere now, old and new.
    """
    with streaming_write(path) as file, tempfile.TemporaryFile() as body:
        file.write(HEAD.format(title=_text(title), cards=_cards()).encode())
        sheet = ContactSheet(file, body, moved)
        yield sheet
        file.write(f"</style>\n<h1>{_text(title)}</h1>\n".encode())
        body.seek(0)
        shutil.copyfileobj(body, file)
        if sheet.left_out:
            file.write(f"<p>{sheet.left_out:,} more queries are not shown.</p>\n".encode())


def _cards() -> str:
    return importlib.resources.files(__package__).joinpath(CARDS).read_text(encoding="utf-8")


def _caption(hit: Hit) -> str:
    landmark = "" if hit.landmark is None else f"<i>{_text(hit.landmark)}</i> "
    return f"{hit.rank}. <b>{hit.score:.4f}</b> {landmark}{_text(hit.id)}"


def _figure(source: str, plate: str, caption: str) -> str:
    return f'<figure title="{_text(source)}">{plate}<figcaption>{caption}</figcaption></figure>\n'


def _text(text: str) -> str:
    """Escaped; bytes of a name that are no text would not encode."""
    return html.escape(as_text(text))
