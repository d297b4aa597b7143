"""Pictures of an index's images as JPEGs made here: never a file's own bytes, which may say where it was taken."""

import asyncio
import collections
import dataclasses
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from landmark_onnx.search.thumbnails import SIDE, locate, thumbnail

SIDES = (SIDE, 2048)
"""Pixels of the longer side: in a list, and alone."""
MAX_BYTES = 64 << 20
AT_ONCE = 2
NICE = 10
"""How far the makers stand back where the system has a priority for each thread: searches go first."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Key:
    """Which picture. member: of a tar, or "". state: of the file, which may be replaced under its name."""

    path: str
    member: str
    side: int
    state: tuple[int, int]


class Pictures:
    """Makes pictures, AT_ONCE together, and keeps those that were asked for last."""

    def __init__(self, *, moved: Sequence[tuple[str, str]] = (), max_bytes: int = MAX_BYTES) -> None:
        """moved: as `locate` has it. max_bytes: of all pictures that are kept."""
        self._moved = moved
        self._max_bytes = max_bytes
        self._kept: collections.OrderedDict[_Key, bytes] = collections.OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._makers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pictures", initializer=_stand_back)

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures that are kept."""
        return self._bytes

    async def picture(self, source: str, side: int) -> bytes | None:
        """The image of a row of an index as a JPEG, its longer side at most `side` pixels; None if its file is gone.

        source: as the row has it. Raises: ImageError that names the file if it cannot be read.
        """
        key = await asyncio.to_thread(_key, source, side, self._moved)
        if key is None:
            return None
        if (kept := self._get(key)) is not None:
            return kept
        return await asyncio.wrap_future(self._makers.submit(self._make, key))

    def close(self) -> None:
        """End the makers; what waits for them is cancelled."""
        self._makers.shutdown(cancel_futures=True)

    def _make(self, key: _Key) -> bytes:
        # Another request may have wanted the same meanwhile.
        if (kept := self._get(key)) is not None:
            return kept
        made = thumbnail(key.path, key.member, side=key.side)
        self._put(key, made)
        return made

    def _get(self, key: _Key) -> bytes | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _put(self, key: _Key, made: bytes) -> None:
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._kept.popitem(last=False)[1])


def _key(source: str, side: int, moved: Sequence[tuple[str, str]]) -> _Key | None:
    place = locate(source, moved)
    if place is None:
        return None
    try:
        state = Path(place[0]).stat()
    except OSError:
        return None
    return _Key(*place, side, (state.st_mtime_ns, state.st_size))


def _stand_back() -> None:
    if sys.platform == "linux":  # elsewhere this is for the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
