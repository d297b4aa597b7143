"""Where each id of an index is: an index itself has its ids in the order of their rows, and no look-up."""

from collections.abc import Callable, Sequence

import numpy as np


class IdTable:
    """Hashes of the ids in order, and the row of each: 12 bytes a row, for at most 2^32 rows.

    Ids of one hash are told apart by the ids themselves, which are read where the index maps them.
    """

    def __init__(self, ids: Sequence[str], *, hashed: Callable[[str], int] = hash) -> None:
        """ids: of each row, all different. hashed: to 64 bits; Python's own is another in each process.

        So nobody can make ids that share a hash.
        """
        hashes = np.fromiter(map(hashed, ids), np.int64, len(ids))
        order = np.argsort(hashes)
        self._ids = ids
        self._hashed = hashed
        self._hashes = hashes[order]
        self._rows = order.astype(np.uint32)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self._hashes.nbytes + self._rows.nbytes

    def find(self, name: str) -> int | None:
        """The row of an id, None if it is not there."""
        wanted = self._hashed(name)
        start, end = (int(np.searchsorted(self._hashes, np.int64(wanted), side)) for side in ("left", "right"))
        return next((row for row in self._rows[start:end].tolist() if self._ids[row] == name), None)
