"""Who may ask: keys, of which the server knows no more than their SHA-256."""

import dataclasses
import hashlib
import hmac
import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

from landmark_onnx.errors import LandmarkError
from landmark_onnx.files.documents import read_toml
from landmark_onnx.files.structure import DocumentError, Matches, Sha256, Some, structure

VARIABLE = "LANDMARK_ONNX_API_KEY"
"""The environment's one key, which may do everything; its name in the log is `environment`."""
SHORTEST = 16
"""Characters of the environment's key: shorter ones can be tried out."""

Permission: TypeAlias = Literal["read", "metrics"]
ALL: frozenset[Permission] = frozenset(get_args(Permission))
KeyName = Annotated[str, Matches(r"[\w.-]{1,64}", "1 to 64 letters, digits, '.', '_' and '-'")]

logger = logging.getLogger(__name__)


class KeyFileError(LandmarkError):
    """A key, or a file of keys, that cannot be used; names the file and the key's name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is known of a key. sha256: of its UTF-8 bytes. may: `read` asks, `metrics` reads /metrics."""

    sha256: Sha256
    may: Annotated[frozenset[Permission], Some()] = frozenset({"read"})


class Keys:
    """The keys of a file and of the environment.

    Raises: KeyFileError for a file, or a key, that cannot be used; OSError.
    """

    def __init__(self, file: Path | None = None, environment: str | None = None) -> None:
        self._file = file
        self._own: dict[str, ApiKey] = {}
        if environment is not None:
            if len(environment) < SHORTEST or not (environment.isascii() and environment.isprintable()):
                raise KeyFileError(f"{VARIABLE}: wanted at least {SHORTEST} printable ASCII characters")
            self._own = {"environment": ApiKey(sha256=_digest(environment), may=ALL)}
        self._keys = self._read()

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, token: str) -> tuple[str, frozenset[Permission]] | None:
        """The name of a key and what it may; it takes the same time whichever it is, and if it is none."""
        digest, found = _digest(token), None
        for name, key in self._keys.items():
            if hmac.compare_digest(digest, key.sha256):
                found = name, key.may
        return found

    def reload(self) -> None:
        """Read the file again; one that cannot be used is logged, and the former keys stay."""
        try:
            self._keys = self._read()
        except (KeyFileError, OSError) as error:
            logger.warning("the former keys stay: %s", error)
        else:
            logger.info("%d keys", len(self._keys))

    def _read(self) -> Mapping[str, ApiKey]:
        if self._file is None:
            return self._own
        try:
            keys = structure(Mapping[KeyName, ApiKey], read_toml(self._file))  # type: ignore[type-abstract]
        except DocumentError as error:
            raise KeyFileError(f"{self._file}: {error}") from error
        if both := keys.keys() & self._own.keys():
            raise KeyFileError(f"{self._file}: the name {both.pop()!r} is that of the key in {VARIABLE}")
        if len({key.sha256 for key in keys.values()}) < len(keys):
            raise KeyFileError(f"{self._file}: two names have the same key")
        return {**keys, **self._own}


def make_key(name: str) -> tuple[str, str]:
    """A new key of 256 random bits, and its line for the file. Raises: KeyFileError for a name that cannot be."""
    try:
        structure(KeyName, name)
    except DocumentError as error:
        raise KeyFileError(f"key {name!r}: {error}") from error
    key = secrets.token_urlsafe(32)
    return key, f'"{name}" = {{ sha256 = "{_digest(key)}", may = ["read"] }}'


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
