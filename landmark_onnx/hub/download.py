"""One file from one address, however often the line breaks; nothing is at its path until it is whole and accepted.

What has arrived lies in `PATH.part`, its address, size and validator in `PATH.part.json`, so that the next attempt, or
the next run, goes on from there. Certificates are verified, and no redirect leads from HTTPS to plain HTTP. Plain HTTP
is for this machine alone, and for a host of the user's own choice (`plain=True`).
"""

import contextlib
import dataclasses
import logging
import os
import random
import re
import shutil
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx

from landmark_onnx.errors import DownloadError, LandmarkError
from landmark_onnx.files.atomic import publish
from landmark_onnx.hub.addresses import Address
from landmark_onnx.hub.deadline import Deadline
from landmark_onnx.hub.resume import Fetched, Part
from landmark_onnx.hub.urls import check_address, check_redirect, public

logger = logging.getLogger(__name__)

Received: TypeAlias = Callable[[int, int | None], None]
"""Told how many bytes are there, of how many if that is known."""

MAX_REDIRECTS = 5
PATIENCE = frozenset({408, 425, 429})
"""Client errors that pass; those of the server (500 and above) do too."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How patient a download is, and how careful. Times are in seconds, sizes in bytes.

    attempts: in a row without `progress` more bytes. backoff: before the second one; it doubles up to longest_wait.
    stall: the longest silence; over such a time, `slowest` bytes per second count as silence too. The head of an answer
    has `connect` and `stall` together, TLS and all redirects included.
    margin: what must stay free on the disk.
    """

    attempts: int = 5
    progress: int = 1 << 20
    backoff: float = 1.0
    longest_wait: float = 60.0
    connect: float = 15.0
    stall: float = 30.0
    slowest: int = 1 << 10
    max_bytes: int = 16 << 30
    margin: int = 256 << 20


_SIZE = r"[0-9]{1,18}"
"""Longer numbers are none, and Python refuses to read those of thousands of digits."""


class _Interrupted(Exception):  # noqa: N818  # no error yet: the next attempt may do
    """An attempt that failed. wait: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    place: str | Address,
    path: Path,
    *,
    check: Callable[[Fetched], None] = lambda fetched: None,
    on_done: Received = lambda done, total: None,
    rules: Rules | None = None,
    plain: bool = False,
) -> Fetched:
    """Bring the file at an https, http or file address to `path`. One process at a time may do so.

    check: raises LandmarkError if the file, still at a temporary path, is not acceptable; then nothing of it is kept.
    plain: the user named this very host with plain HTTP. Raises: DownloadError.
    """
    if isinstance(place, str):
        place = Address(url=place, plain=plain)
    rules = rules or Rules()
    part = Part(path, public(place.url))
    try:
        check_address(place.url, place.plain)
        path.parent.mkdir(parents=True, exist_ok=True)
        if place.size:
            _check_room(part, place.size - part.size, rules)
        if urlsplit(place.url).scheme == "file":
            _copy(place, part, rules, on_done)
        else:
            _persist(place, part, rules, on_done)
        fetched = part.finish()
    except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadError(f"{part.url}: {error}") from error
    try:
        check(fetched)
    except LandmarkError:
        part.discard()
        raise
    publish(part.path, path)
    part.discard()
    return dataclasses.replace(fetched, path=path)


def _persist(place: Address, part: Part, rules: Rules, on_done: Received) -> None:
    """Attempt after attempt, until the file is whole or they make no progress."""
    failures = 0
    best = part.size
    while not part.complete:
        try:
            _attempt(place, part, rules, on_done)
            return
        except _Interrupted as error:
            failures = 1 if part.size >= best + rules.progress else failures + 1
            best = max(best, part.size)
            if failures >= rules.attempts:
                raise DownloadError(f"{part.url}: {error}; gave up after {failures} attempts") from error
            if error.wait is not None and error.wait > rules.longest_wait:
                raise DownloadError(f"{part.url}: {error}; it asks to wait for {error.wait:.0f} s") from error
            # Jitter, lest all who lost one server at once come back at once.
            pause = rules.backoff * 2 ** (failures - 1) * random.uniform(0.5, 1.5)  # noqa: S311
            pause = min(rules.longest_wait, pause) if error.wait is None else error.wait
            logger.info(
                "%s: %s; attempt %d of %d failed, again in %.1f s", part.url, error, failures, rules.attempts, pause
            )
            time.sleep(pause)


def _attempt(place: Address, part: Part, rules: Rules, on_done: Received) -> None:
    """One request, for what is missing yet. Raises: _Interrupted if another one may help, else DownloadError."""
    logger.info("%s: asked for%s", part.url, f" what follows byte {part.size}" if part.size else "")
    headers = {"Range": f"bytes={part.size}-", "If-Range": part.validator} if part.size else {}
    if place.token:  # httpx takes it away where a redirect leads to another host
        headers["Authorization"] = f"Bearer {place.token}"
    deadline = Deadline(rules.connect + rules.stall)
    try:
        with deadline, _client(rules) as client, _response(client, place.url, headers, deadline) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise DownloadError(f"{part.url}: the server compresses what it was asked to send as it is")
            if response.status_code == httpx.codes.PARTIAL_CONTENT and part.size:
                _check_range(response, part)
            elif response.status_code == httpx.codes.OK:
                length = re.fullmatch(_SIZE, response.headers.get("content-length", ""))
                part.begin(_validator(response), _size(place, part, int(length[0]) if length else None))
            else:
                raise _refusal(response, part)
            _save(_paced(response.iter_raw(), rules, deadline), part, rules, on_done)
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        if deadline.expired:
            raise _Interrupted(f"stalled: nothing of use within {deadline.seconds:g} s") from error
        if _is_final(error):
            raise DownloadError(f"{part.url}: {reason}") from error
        raise _Interrupted(reason) from error


def _save(chunks: Iterable[bytes], part: Part, rules: Rules, on_done: Received) -> None:
    """Append what comes to what is there. Raises: _Interrupted if it ends early."""
    done = part.path.stat().st_size if part.path.exists() else 0
    _check_room(part, (part.total or 0) - done, rules)
    limit = rules.max_bytes if part.total is None else part.total
    with part.path.open("ab") as file:
        on_done(done, part.total)
        for chunk in chunks:
            done += len(chunk)
            if done > limit:
                part.discard()
                raise DownloadError(f"{part.url}: wanted at most {limit} bytes, got more")
            file.write(chunk)
            on_done(done, part.total)
    if part.total is not None and done != part.total:
        raise _Interrupted(f"ended early: {done} of {part.total} bytes")


def _copy(place: Address, part: Part, rules: Rules, on_done: Received) -> None:
    """From a file:// address."""
    parts = urlsplit(place.url)
    source = Path(url2pathname(parts.path))
    if parts.netloc not in ("", "localhost") or not source.is_file():
        raise DownloadError(f"{part.url}: there is no such file")
    with source.open("rb") as file:
        part.begin("", _size(place, part, os.fstat(file.fileno()).st_size))
        _save(iter(lambda: file.read(1 << 20), b""), part, rules, on_done)


def _size(place: Address, part: Part, found: int | None) -> int | None:
    """The size of the file in bytes, if it is known. Raises: DownloadError if it is not what its card says."""
    if place.size and found is not None and found != place.size:
        part.discard()
        raise DownloadError(f"{part.url}: wanted {place.size} bytes, as its card declares, got {found}")
    return place.size or found


def _check_room(part: Part, missing: int, rules: Rules) -> None:
    if (part.total or 0) > rules.max_bytes:
        raise DownloadError(f"{part.url}: wanted at most {rules.max_bytes} bytes, it has {part.total}")
    free = shutil.disk_usage(part.path.parent).free
    if free < missing + rules.margin:
        wanted = f"{missing} bytes and {rules.margin} to spare"
        raise DownloadError(f"{part.url}: {wanted} do not fit where {part.path.parent} is: {free} are free")


@contextlib.contextmanager
def _response(client: httpx.Client, url: str, headers: dict[str, str], deadline: Deadline) -> Iterator[httpx.Response]:
    """The answer to GET, its body still to be read, after as many redirects as are decent."""
    request = client.build_request("GET", url, headers=headers, extensions={"trace": deadline.trace})
    for _ in range(MAX_REDIRECTS + 1):
        response = client.send(request, stream=True)
        try:
            if response.next_request is None:
                yield response
                return
            check_redirect(request.url, response.next_request.url)
            request = response.next_request
            logger.info("%s: redirected to %s", public(url), public(str(request.url)))
        finally:
            response.close()
    raise DownloadError(f"{public(url)}: more than {MAX_REDIRECTS} redirects")


def _client(rules: Rules) -> httpx.Client:
    return httpx.Client(
        timeout=httpx.Timeout(rules.stall, connect=rules.connect),
        headers={"User-Agent": f"landmark-onnx/{version('landmark-onnx')}", "Accept-Encoding": "identity"},
    )


def _validator(response: httpx.Response) -> str:
    """What tells this version of the file from every other: a strong entity tag, or "" where there is none."""
    tag: str = response.headers.get("etag", "")
    return tag if tag.isascii() and not tag.startswith("W/") else ""


def _check_range(response: httpx.Response, part: Part) -> None:
    """Raises: _Interrupted, with nothing kept, unless the answer goes on where the part ends."""
    found = re.fullmatch(rf"bytes ({_SIZE})-{_SIZE}/({_SIZE}|\*)", response.headers.get("content-range", ""))
    # Without a validator it may be a part of any version: some servers look at Range and not at If-Range.
    same = part.validator == response.headers.get("etag")
    if found and int(found[1]) == part.size and same and found[2] in ("*", str(part.total)):
        return
    part.discard()
    raise _Interrupted("the file has changed on the server")


def _refusal(response: httpx.Response, part: Part) -> Exception:
    """What an answer without the file means."""
    code = response.status_code
    reason = f"the server answers {code} {response.reason_phrase}".rstrip()
    if code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and part.size:
        part.discard()
        return _Interrupted(reason)
    if code in PATIENCE or code >= 500:
        return _Interrupted(reason, _retry_after(response))
    return DownloadError(f"{part.url}: {reason}")


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait, if it says so in seconds."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None


def _paced(chunks: Iterator[bytes], rules: Rules, deadline: Deadline) -> Iterator[bytes]:
    """Lets the deadline pass when they come too slowly: no single read of a trickle times out."""
    deadline.allow(rules.stall)
    arrived = 0
    for chunk in chunks:
        arrived += len(chunk)
        if arrived >= rules.slowest * rules.stall:
            deadline.allow(rules.stall)
            arrived = 0
        yield chunk


def _is_final(error: BaseException) -> bool:
    """Whether trying again is in vain: a certificate that is not good, a protocol that nobody speaks."""
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    return any(isinstance(cause, httpx.UnsupportedProtocol | ssl.SSLCertVerificationError) for cause in causes)
