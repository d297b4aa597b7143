"""A Qdrant server: how it is reached, with which key, and what it says where it does not answer."""

import contextlib
import logging
import os
import urllib.parse
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from landmark_onnx.errors import SearchError, reason_of
from landmark_onnx.extras import extra

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

logger = logging.getLogger(__name__)

KEY = "QDRANT_API_KEY"
"""The environment variable with the server's key: never an option, and in no file of ours."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def connect(url: str) -> "QdrantClient":
    """A client, with the key that the environment has. Raises: MissingExtraError, SearchError."""
    with extra("qdrant", what="qdrant-client"):
        from qdrant_client import QdrantClient
    with asking(url):
        if url.startswith("file://"):
            return QdrantClient(path=url.removeprefix("file://"))
        key = _key_for(url)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection", UserWarning)
            # Its check of versions asks in a thread of its own, and speaks by warnings.
            return QdrantClient(url=url, check_compatibility=False, api_key=key)


def _key_for(url: str) -> str | None:
    """Raises: SearchError for a key that is none, or that is part of the address, which is written down."""
    address = urllib.parse.urlsplit(url)
    if address.username or address.password or address.query:
        host = f"{address.scheme}://{address.hostname}"
        raise SearchError(
            f"{host}: an address may hold no name, password or key; set {KEY} to the key, and leave it out"
        )
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise SearchError(f"{KEY} is no key: it has control characters, or such as are not ASCII")
    if key and address.scheme == "http" and address.hostname not in LOOPBACK:
        logger.warning("%s: the key of %s goes there unencrypted; use https", url, KEY)
    return key or None


@contextlib.contextmanager
def asking(url: str) -> Iterator[None]:
    """Whatever the client raises in this block becomes a SearchError that names the server."""
    from httpx import HTTPError
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = reason_of(error)
        if key := os.environ.get(KEY, "").strip():
            reason = reason.replace(key, "(the key)")
        if getattr(error, "status_code", None) in (401, 403):
            reason += f"; is the key in {KEY} the server's?" if key else f"; set {KEY} to its key"
        raise SearchError(f"{url}: Qdrant: {reason}") from None
