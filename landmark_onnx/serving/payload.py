"""What a request asks about, whichever way it is written: raw bytes, multipart/form-data or JSON."""

import asyncio
import binascii
import contextlib
import dataclasses
import io
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, TypeVar

from starlette.requests import Request

from landmark_onnx.images.headers import image_format
from landmark_onnx.images.jpeg import has_more_scans
from landmark_onnx.serving.body import BodyMemory, Lease, chunks
from landmark_onnx.serving.multipart import FormPart, FormReader, boundary_of
from landmark_onnx.serving.problems import ProblemError, pointer
from landmark_onnx.serving.settings import Limits
from landmark_onnx.serving.strict_json import PIECE, parse

RAW = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
"""The types of a body that is an image; which one it is, its bytes say."""
MULTIPART, JSON = "multipart/form-data", "application/json"
LONGEST_NAME = 255
THREAD_FROM = 64 << 10
"""Bytes of JSON from which it is read in a thread: the event loop serves everybody."""
JSON_COPIES = 3
"""Times a JSON body's size that it takes while it is read: its bytes, its texts, its images."""
OPTIONS_BYTES = 64 << 10
MOST_OPTIONS = 32
"""Names of options, whatever they are: what refuses an unknown one says so of each."""

_LITERALS = frozenset({"top", "min_score", "timeout", "approximate"})
"""Options that are numbers or true or false; in a query they are written as in JSON."""
_LISTS = frozenset({"steps"})
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class Crop:
    """A part of an image, in its pixels as decoded, or with `relative` in parts of its sides; not empty."""

    x: float
    y: float
    width: float
    height: float
    relative: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """An image that is asked about: its encoded bytes, or the id of one in an index.

    name: what the answer calls it, at most 255 printable characters without folders. index: None for the usual one.
    """

    name: str
    data: bytes = b""
    id: str | None = None
    index: str | None = None
    crop: Crop | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Payload:
    """What a request asks. options: as they were sent, not looked at, without `crop`. vectors: as they were sent."""

    images: tuple[Upload, ...]
    options: Mapping[str, Any]
    vectors: list[Any] | None = None


@contextlib.asynccontextmanager
async def reading(request: Request, limits: Limits, memory: BodyMemory) -> AsyncIterator[Payload]:
    """A request's images and options; within the block their bytes are counted in `memory`.

    Raises: ProblemError for what cannot be used, or is over a limit of a request; ClientDisconnect.
    """
    with memory.lease() as lease:
        yield await _read(request, limits, lease)


async def _read(request: Request, limits: Limits, lease: Lease) -> Payload:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (*RAW, MULTIPART, JSON) or request.headers.get("content-encoding", "identity") != "identity":
        wanted = ", ".join((*RAW, MULTIPART, JSON))
        raise ProblemError("unsupported-media-type", f"wanted one of {wanted}, without Content-Encoding")
    query = request.query_params.multi_items()
    if query and kind not in RAW:
        raise ProblemError("invalid", f"with {kind}, options go into the body", errors=_errors("no query", "query"))
    pieces = chunks(request.headers, request.receive, limits, lease)
    if kind == MULTIPART:
        form = FormReader(boundary_of(request.headers["content-type"]), limits)
        async for piece in pieces:
            form.feed(piece)
        form.close()
        return _of_form(form.parts, limits)
    body = io.BytesIO()
    async for piece in pieces:
        body.write(piece)
    data = body.getvalue()
    if kind != JSON:
        return _payload([Upload("", data)], query_options(query), limits)
    lease.hold(JSON_COPIES * len(data))
    payload = await _off_the_loop(len(data), lambda: _of_json(parse(data, limits.json_depth), limits))
    lease.hold(len(data))
    return payload


async def _off_the_loop(size: int, work: Callable[[], _T]) -> _T:
    return await asyncio.to_thread(work) if size > THREAD_FROM else work()


def query_options(query: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Options of a query, typed as in JSON. Raises: ProblemError for one that is given twice and is no list.

    >>> query_options([("top", "5"), ("model", "5"), ("steps", "alpha-qe"), ("crop", "0,0,0.5,1,relative")])
    {'top': 5, 'model': '5', 'steps': ['alpha-qe'], 'crop': [0, 0, 0.5, 1, 'relative']}
    """
    found: dict[str, Any] = {}
    for name, text in query:
        if name in _LISTS:
            found.setdefault(name, []).append(text)
        elif name in found:
            raise ProblemError("invalid", f"{name!r} is given twice", errors=_errors("given twice", "query", name))
        else:
            found[name] = _typed(name, text)
    return found


def _typed(name: str, text: str) -> Any:
    if name == "crop":
        return [_literal(each) for each in text.split(",", 5)]
    return _literal(text) if name in _LITERALS else text


def _literal(text: str) -> Any:
    """A number, true or false; what is none stays a text, which whoever checks the options refuses."""
    try:
        value = parse(text.encode("utf-8", "replace"), 0)
    except ProblemError:
        return text
    return value if isinstance(value, int | float) else text


def _of_form(parts: list[FormPart], limits: Limits) -> Payload:
    images: list[Upload] = []
    options: dict[str, Any] | None = None
    for part in parts:
        if part.name == "image":
            images.append(Upload(file_name(part.filename), part.data))
        elif part.name != "options":
            raise ProblemError("bad-multipart", "wanted parts 'image' and at most one 'options', got another name")
        elif options is not None or len(part.data) > OPTIONS_BYTES:
            raise ProblemError("bad-multipart", f"more than one part 'options', or over {OPTIONS_BYTES:,} bytes of it")
        else:
            options = _object(parse(part.data, limits.json_depth), "options")
    return _payload(images, options or {}, limits)


def _of_json(document: Any, limits: Limits) -> Payload:
    body = _object(document)
    _no_more(body, {"images", "options", "vectors"})
    for key in body.keys() & {"images", "vectors"}:
        if not isinstance(body[key], list):
            raise _invalid("wanted a list", key)
    given, vectors = body.get("images", []), body.get("vectors")
    _check_count(len(given), limits)
    images = [_image(_object(each, "images", at), at) for at, each in enumerate(given)]
    return _payload(images, _object(body.get("options", {}), "options"), limits, vectors)


def _image(entry: dict[str, Any], at: int) -> Upload:
    _no_more(entry, {"data", "name", "crop", "id", "index"}, "images", at)
    for key in entry.keys() - {"crop"}:
        if not isinstance(entry[key], str):
            raise _invalid("wanted a text", "images", at, key)
    if ("data" in entry) == ("id" in entry) or ("index" in entry and "id" not in entry):
        raise _invalid("wanted either data, or id with or without index", "images", at)
    return Upload(
        file_name(entry.get("name", "")),
        _bytes_of(entry["data"], at) if "data" in entry else b"",
        entry.get("id"),
        entry.get("index"),
        crop_of(entry["crop"], "images", at, "crop") if "crop" in entry else None,
    )


def _bytes_of(uri: str, at: int) -> bytes:
    """What a data URI holds (RFC 2397), in base64 without gaps."""
    head, comma, _ = uri[:LONGEST_NAME].partition(",")
    if not comma or not head.lower().startswith("data:") or not head.lower().endswith(";base64"):
        raise _invalid("wanted data:image/...;base64,...", "images", at, "data")
    found = io.BytesIO()
    try:
        # While a piece is read, no other thread runs, the event loop's neither.
        for start in range(len(head) + 1, len(uri), PIECE):
            piece = uri[start : start + PIECE]
            if start + PIECE < len(uri) and piece.endswith("="):
                raise ValueError("Excess data after padding")
            found.write(binascii.a2b_base64(piece, strict_mode=True))
    except ValueError as error:
        raise _invalid(f"base64: {error}", "images", at, "data") from None
    return found.getvalue()


def _payload(
    images: list[Upload], options: dict[str, Any], limits: Limits, vectors: list[Any] | None = None
) -> Payload:
    """The whole, a crop among the options given to the image that it is of."""
    _check_count(len(images), limits)
    if len(options) > MOST_OPTIONS:
        raise _invalid(f"wanted at most {MOST_OPTIONS} options, got {len(options):,}", "options")
    if bool(images) == (vectors is not None):
        raise ProblemError("invalid", "there is no image" if not images else "wanted images or vectors, got both")
    if "crop" in options:
        options = dict(options)
        crop = crop_of(options.pop("crop"), "options", "crop")
        if len(images) != 1 or images[0].crop:
            raise _invalid("a crop among the options is of one image, which has no other", "options", "crop")
        images = [dataclasses.replace(images[0], crop=crop)]
    return Payload(tuple(images), options, vectors)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.images:
        detail = f"a request has at most {limits.images} images"
        raise ProblemError("too-many-images", detail, limit=limits.images, got=count)


def crop_of(value: object, *keys: str | int) -> Crop:
    """[x, y, width, height] or [x, y, width, height, "relative"]. keys: its place. Raises: ProblemError."""
    wanted = '[x, y, width, height] with or without "relative", width and height over 0'
    items = list(value) if isinstance(value, list) else []
    relative = items[4:] == ["relative"]
    numbers = [float(each) for each in items if type(each) in (int, float)]
    if len(items) != 4 + relative or len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
        raise _invalid(f"wanted {wanted}", *keys)
    x, y, width, height = numbers
    return Crop(x, y, width, height, relative)


def file_name(text: str) -> str:
    r"""What an answer calls an image: the last part of a path, its printable characters, 255 at most.

    >>> file_name("..\\photos/b\0.jpg")
    'b.jpg'
    """
    base = text[-4 * LONGEST_NAME :].replace("\\", "/").rpartition("/")[2]
    return "".join(filter(str.isprintable, base))[:LONGEST_NAME]


def check_image(upload: Upload, limits: Limits) -> None:
    """Raises: ProblemError for bytes that are too many, of a format that is not read here, or of too many scans."""
    where = f"{upload.name}: " if upload.name else ""
    size, data = len(upload.data), upload.data
    if size > limits.image_bytes:
        detail = f"{where}an image has at most {limits.image_bytes:,} bytes"
        raise ProblemError("image-too-large", detail, limit=limits.image_bytes, got=size)
    if not data:
        raise ProblemError("bad-image", f"{where}there are no bytes")
    kind = image_format(data)
    if kind not in limits.formats:
        detail = f"{where}wanted {', '.join(limits.formats)}, got {kind or 'no image'}"
        raise ProblemError("unsupported-image", detail)
    if kind == "JPEG" and has_more_scans(data, limits.jpeg_scans):
        detail = f"{where}a JPEG has at most {limits.jpeg_scans} scans"
        raise ProblemError("bad-image", detail, limit=limits.jpeg_scans)


def _object(value: object, *keys: str | int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid("wanted an object", *keys)
    return value


def _no_more(found: Mapping[str, Any], wanted: set[str], *keys: str | int) -> None:
    for key in found.keys() - wanted:
        raise _invalid(f"no such key; there are {', '.join(sorted(wanted))}", *keys, key)


def _invalid(detail: str, *keys: str | int) -> ProblemError:
    return ProblemError("invalid", f"{pointer(*keys)}: {detail}", errors=_errors(detail, *keys))


def _errors(detail: str, *keys: str | int) -> list[dict[str, str]]:
    return [{"detail": detail, "pointer": pointer(*keys)}]
