"""Whatever a folder is: an index in its own files, or one that Qdrant keeps."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from landmark_onnx.search import writer
from landmark_onnx.search.ensemble import FILE as ENSEMBLE_FILE
from landmark_onnx.search.ensemble import Ensemble, load_ensemble
from landmark_onnx.search.index import Index
from landmark_onnx.search.qdrant import QdrantIndex
from landmark_onnx.search.qdrant_place import FILE as QDRANT_FILE

if TYPE_CHECKING:
    from landmark_onnx.embedding.feature_folder import Batch
    from landmark_onnx.search.answers import Answer
    from landmark_onnx.search.queries import Queries
    from landmark_onnx.search.rerank.state import Step


class AnyIndex(Protocol):
    """What every index can do, wherever it is kept."""

    @property
    def ensemble(self) -> Ensemble:
        """What its vectors are made of."""

    @property
    def ids(self) -> "Iterable[str]":
        """The id of each row."""

    def __len__(self) -> int: ...

    def answer(
        self, queries: "Queries", top: int, *, steps: "Sequence[Step]" = (), approximate: bool = False
    ) -> "Iterator[Answer]":
        """The neighbours of each query, by name."""

    def check(self, *, steps: "Sequence[Step]" = (), approximate: bool = False) -> None:
        """Raises: SearchError, MissingExtraError if it cannot answer so; to be asked before the queries are made."""

    def add(self, batches: "Iterable[Batch]", *, replace: bool = False) -> None:
        """Append rows; seen by who opens the index next."""

    def remove(self, ids: Collection[str]) -> None:
        """Take rows out; seen by who opens the index next."""

    def verify(self, on_done: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Check every byte. on_done: of bytes checked, and of all. Raises: SearchError, also if that cannot be done."""

    def close(self) -> None:
        """Let go of what is open; `contextlib.closing` calls it."""

    def describe(self) -> str:
        """What there is, in a line."""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON-ready data."""


class LocalIndex(Index):
    """An index in its own files, with what changes them; this one stays as it is."""

    def add(self, batches: "Iterable[Batch]", *, replace: bool = False) -> None:
        """As `writer.add`."""
        writer.add(self.folder, batches, replace=replace)

    def remove(self, ids: Collection[str]) -> None:
        """As `writer.remove`."""
        writer.remove(self.folder, ids)


def open_index(folder: Path) -> AnyIndex:
    """The index in `folder`. Raises: SearchError if there is none, it is damaged, or its server does not answer."""
    return QdrantIndex.open(folder) if (folder / QDRANT_FILE).exists() else LocalIndex.open(folder)


def open_ensemble(folder: Path) -> Ensemble:
    """The ensemble that a folder has: an index's, or one in ensemble.json. Raises: SearchError."""
    if (folder / ENSEMBLE_FILE).exists():
        return load_ensemble(folder)
    with contextlib.closing(open_index(folder)) as index:
        return index.ensemble
