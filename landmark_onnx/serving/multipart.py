"""multipart/form-data as a stream: images and options, under limits, in memory alone (RFC 7578)."""

import dataclasses
import io
import logging

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.serving.settings import Limits

_PLAIN_ENCODINGS = frozenset({b"", b"binary", b"8bit", b"7bit"})

# The parser logs each fault that it raises; without a handler, Python would write that to standard error.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())


@dataclasses.dataclass(frozen=True, slots=True)
class FormPart:
    """name: of the field. filename: as the client sent it, "" without one."""

    name: str
    filename: str
    data: bytes


class FormReader:
    """Takes the pieces of a body; `parts` are those that are complete.

    boundary: as the Content-Type has it. Raises: ProblemError, here and in every method, for what cannot be used.
    """

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        if not 0 < len(boundary) <= limits.boundary:
            raise ProblemError(
                "bad-multipart",
                f"a boundary has 1 to {limits.boundary} bytes",
                limit=limits.boundary,
                got=len(boundary),
            )
        self.parts: list[FormPart] = []
        self._limits = limits
        self._ended = False
        self._begun = 0
        self._data = io.BytesIO()
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._name, self._value = b"", b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_name,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_count=limits.part_headers,
            max_header_size=limits.part_header_bytes,
        )

    def feed(self, piece: bytes) -> None:
        """The next piece of the body; what comes after its last boundary is passed over."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _bad(str(error)) from None

    def close(self) -> None:
        """There are no more pieces."""
        if not self._ended:
            raise _bad("the body ends before its last boundary")

    def _begin(self) -> None:
        self._begun += 1
        if self._begun > self._limits.parts:
            detail = f"more than {self._limits.parts} parts"
            raise ProblemError("bad-multipart", detail, limit=self._limits.parts)
        self._headers, self._header_bytes = {}, 0
        self._data = io.BytesIO()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.part_header_bytes:
            limit = self._limits.part_header_bytes
            raise ProblemError("bad-multipart", f"a part has more than {limit:,} bytes of headers", limit=limit)

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _end_header(self) -> None:
        name = self._name.lower()
        if name in self._headers:
            raise _bad("a part has a header twice")
        self._headers[name] = self._value
        self._name, self._value = b"", b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data.write(memoryview(data)[start:end])

    def _end_part(self) -> None:
        self.parts.append(_part(self._headers, self._data.getvalue()))
        self._data = io.BytesIO()

    def _end(self) -> None:
        self._ended = True


def boundary_of(content_type: str) -> bytes:
    """The parameter of a Content-Type; empty without one."""
    return parse_options_header(content_type)[1].get(b"boundary", b"")


def _bad(reason: str) -> ProblemError:
    return ProblemError("bad-multipart", reason)


def _part(headers: dict[bytes, bytes], data: bytes) -> FormPart:
    kind, said = parse_options_header(headers.get(b"content-disposition", b"").decode("latin-1"))
    if kind != b"form-data" or b"name" not in said:
        raise _bad("a part has no Content-Disposition: form-data with a name")
    if headers.get(b"content-type", b"").lower().lstrip().startswith(b"multipart/"):
        raise _bad("a part is multipart itself")
    if headers.get(b"content-transfer-encoding", b"").strip().lower() not in _PLAIN_ENCODINGS:
        raise _bad("a part has a Content-Transfer-Encoding; its bytes are taken as they are")
    name, filename = (said.get(key, b"").decode("utf-8", "replace") for key in (b"name", b"filename"))
    return FormPart(name, filename, data)
