"""What one request, one client and all of them together may take of the service, in one place."""

import dataclasses
from typing import Any

from landmark_onnx.images.headers import Format


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes, counts and seconds; what is over one of them is refused by the problem that `problems.KINDS` names for it.

    request_bytes, image_bytes: of a body, and of an encoded image in it. pixels: of a decoded image. images: of a
    request. formats: what an image may be. jpeg_scans: of a JPEG; a progressive one costs time for each.

    parts, part_headers, part_header_bytes, boundary: of multipart/form-data; header bytes are those of a part's headers
    together. json_depth: how deep JSON may nest.

    body_memory: bytes of all bodies that are read or held. decoded_memory: bytes of all decoded images.
    queued_images: images that wait, of everybody. client_share: what part of them may be one client's.

    connections: open at once. header_seconds: until a request's header is complete, from when its connection is
    opened or idle. body_rate, body_grace_seconds: a body comes at so many bytes a second, and may at no time be more
    than so many seconds behind. answer_seconds: until a client has taken its answer. timeout: seconds from a request's
    acceptance to its answer.

    drain_delay: seconds in which new requests are still accepted after the signal to end; None is 5, or 0 where only
    this machine can connect. drain_timeout: seconds until everything that was accepted is answered.
    """

    request_bytes: int = 64 << 20
    image_bytes: int = 32 << 20
    pixels: int = 50_000_000
    images: int = 32
    formats: tuple[Format, ...] = ("JPEG", "PNG", "WebP")
    jpeg_scans: int = 100

    parts: int = 33
    part_headers: int = 8
    part_header_bytes: int = 4 << 10
    boundary: int = 256
    json_depth: int = 32

    body_memory: int = 256 << 20
    decoded_memory: int = 512 << 20
    queued_images: int = 256
    client_share: float = 0.5

    connections: int = 512
    header_seconds: float = 10
    body_grace_seconds: float = 10
    body_rate: int = 1 << 10
    answer_seconds: float = 60
    timeout: float = 60

    drain_delay: float | None = None
    drain_timeout: float = 30

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data, under the same names."""
        return {**dataclasses.asdict(self), "formats": list(self.formats)}
