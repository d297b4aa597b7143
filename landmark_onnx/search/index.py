"""An index as its readers see it: vectors, ids and sources, all read where they are mapped."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from landmark_onnx.errors import SearchError
from landmark_onnx.search.answers import Answer, answers
from landmark_onnx.search.change import check_sizes
from landmark_onnx.search.codes import CodesSearch
from landmark_onnx.search.columns import mapped
from landmark_onnx.search.contents import check_contents, remedy
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.exact import load_faiss, search_exact
from landmark_onnx.search.hnsw import GraphSearch
from landmark_onnx.search.manifest import FILE, IndexManifest
from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.search.queries import Queries
from landmark_onnx.search.texts import Texts, check_ends, text_files
from landmark_onnx.types import Float32

if TYPE_CHECKING:
    from landmark_onnx.search.rerank.chain import Chain
    from landmark_onnx.search.rerank.state import Step

logger = logging.getLogger(__name__)


class Index:
    """One state of an index: what is added or removed later shows in an index opened later.

    vectors: (N, D) float32, memory-mapped, rows of norm 1 in the order added. ids, sources: N texts each.
    """

    def __init__(self, folder: Path, manifest: IndexManifest) -> None:
        """Map the files of `manifest`. Raises: SearchError if one is missing, or cannot be what was written.

        What is seen here costs no more than reading where the texts end; `verify` reads all.
        """
        check_sizes(folder, manifest)
        self.folder = folder
        self.manifest = manifest
        rows, ensemble = manifest.rows, manifest.ensemble
        self.vectors: Float32 = mapped(manifest.vectors_path(folder), "<f4", (rows, ensemble.dim))
        self.ids: Sequence[str] = self._texts("ids")
        self.sources: Sequence[str] = self._texts("sources")
        self._last: tuple[tuple[Step, ...], Chain] | None = None
        logger.info("%s: opened: %s", folder, self.describe())

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The index in a folder. Raises: SearchError if there is none, or it is damaged."""
        folder = Path(path)
        while True:
            seen = _state(folder)
            try:
                return cls(folder, IndexManifest.read(folder))
            except SearchError:
                # A writer may have replaced the files after their names were read: then there is another manifest.
                if _state(folder) == seen:
                    raise

    def __len__(self) -> int:
        return self.manifest.rows

    @property
    def ensemble(self) -> Ensemble:
        """What the vectors are made of, and what queries have to be made of."""
        return self.manifest.ensemble

    def search(self, queries: Float32, top: int, *, approximate: bool = False) -> Neighbours:
        """The K = min(top, N) nearest rows to each of (Q, D) float32 queries of norm 1; as `search_exact`.

        approximate: by the graph or the compressed rows, which may miss some. Raises: SearchError, also without them.
        """
        if approximate:
            return self._approximate.search(queries, top)
        return search_exact(self.vectors, queries, top)

    def answer(
        self, queries: Queries, top: int, *, steps: "Sequence[Step]" = (), approximate: bool = False
    ) -> Iterator[Answer]:
        """The neighbours of each query by name, after `steps`, which search exactly. Raises: SearchError, StepError."""
        found = self.ranked(queries.vectors, top, steps=steps, approximate=approximate)
        return answers(queries, found, self.ids, self.sources)

    def ranked(
        self, queries: Float32, top: int, *, steps: "Sequence[Step]" = (), approximate: bool = False
    ) -> Neighbours:
        """As `search`, after `steps`, which search exactly. Raises: SearchError, StepError."""
        if steps:
            return self._chain(tuple(steps))(queries, top)
        return self.search(queries, top, approximate=approximate)

    def load(self) -> None:
        """Read the approximate index now, if there is one: else the first search by it does. Raises: SearchError."""
        if self.manifest.approximate:
            _ = self._approximate  # no assert, which `python -O` leaves out

    def check(self, *, steps: "Sequence[Step]" = (), approximate: bool = False) -> None:
        """Raises: SearchError if that needs an approximate index that is not there; MissingExtraError without FAISS."""
        load_faiss()
        if approximate and self.manifest.approximate is None:
            raise SearchError(
                f"{self.folder}: no approximate index; build one: index build --approximate, or --compress sq8"
            )

    def verify(self, on_done: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Read every byte that counts. on_done: of bytes read, and of all.

        Raises: SearchError that names the first place where a file is not what was written.
        """
        check_contents(self.folder, self.manifest.files, on_done)

    def close(self) -> None:
        """Files stay mapped as long as their arrays are used: there is nothing to end."""

    def describe(self) -> str:
        """What there is, in a line."""
        approximate = self.manifest.approximate
        text = f"{len(self):,} rows of {self.ensemble.describe()}"
        return f"{text}; {approximate.describe()}" if approximate else text

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        approximate = self.manifest.approximate
        size = sum((self.folder / name).stat().st_size for name in self.manifest.names)
        facts = {"index": str(self.folder), "rows": len(self), "bytes": size, **self.ensemble.facts()}
        return {**facts, "approximate": approximate.describe() if approximate else None}

    def _chain(self, steps: "tuple[Step, ...]") -> "Chain":
        """What the last steps have made of the database is kept for the queries that come next."""
        from landmark_onnx.search.rerank.chain import Chain

        last = self._last
        if last is None or last[0] != steps:
            last = self._last = (steps, Chain(steps, self.vectors))
        return last[1]

    @functools.cached_property
    def _approximate(self) -> GraphSearch | CodesSearch:
        self.check(approximate=True)
        if self.manifest.codes:
            return CodesSearch(self.folder, self.manifest)
        return GraphSearch(self.folder, self.manifest, self.vectors)

    def _texts(self, column: str) -> Texts:
        ends, data = text_files(column, self.manifest.generation)
        size = self.manifest.files[data].bytes
        positions = mapped(self.folder / ends, "<i8", (self.manifest.rows,))
        try:
            check_ends(positions, size)
        except ValueError as error:
            raise SearchError(f"{self.folder / ends}: {error}: the index is damaged; {remedy(self.folder)}") from error
        return Texts(positions, mapped(self.folder / data, "u1", (size,)))


def _state(folder: Path) -> bytes | None:
    try:
        return (folder / FILE).read_bytes()
    except OSError:
        return None
