"""An index as its readers see it: vectors, ids and sources, all read where they are mapped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from landmark_onnx.errors import SearchError
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.exact import search_exact
from landmark_onnx.search.manifest import Manifest
from landmark_onnx.search.neighbours import Float32, Neighbours
from landmark_onnx.search.texts import Texts, text_files

TRIES = 100
"""Each time, a writer would have to replace the files between two reads of ours."""


class Index:
    """One state of an index: what is added or removed later shows in an index opened later.

    vectors: (N, D) float32, memory-mapped, rows of norm 1 in the order added. ids, sources: N texts each.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Map the files of `manifest`. Raises: SearchError if one is damaged; FileNotFoundError."""
        self.folder = folder
        self.manifest = manifest
        rows, ensemble = manifest.rows, manifest.ensemble
        self.vectors: Float32 = mapped(manifest.vectors_path(folder), "<f4", (rows, ensemble.dim))
        self.ids: Sequence[str] = self._texts("ids", manifest.id_bytes)
        self.sources: Sequence[str] = self._texts("sources", manifest.source_bytes)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The index in a folder. Raises: SearchError if there is none, or it is damaged."""
        folder = Path(path)
        manifest = Manifest.read(folder)
        for _ in range(TRIES):
            try:
                return cls(folder, manifest)
            except FileNotFoundError as error:
                missing, before = error.filename, manifest
                manifest = Manifest.read(folder)
                if manifest.generation == before.generation:
                    break
        raise SearchError(f"{missing}: missing: the index is damaged; build it anew")

    def __len__(self) -> int:
        return self.manifest.rows

    @property
    def ensemble(self) -> Ensemble:
        """What the vectors are made of, and what queries have to be made of."""
        return self.manifest.ensemble

    def search(self, queries: Float32, top: int) -> Neighbours:
        """The K = min(top, N) nearest rows to each of (Q, D) float32 queries of norm 1; as `search_exact`."""
        return search_exact(self.vectors, queries, top)

    def _texts(self, column: str, size: int) -> Texts:
        ends, data = text_files(self.folder, column, self.manifest.generation)
        return Texts(mapped(ends, "<i8", (self.manifest.rows,)), mapped(data, "u1", (size,)))


def mapped(path: Path, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The beginning of a file as an array. Raises: FileNotFoundError; SearchError if the file is too short."""
    wanted = int(np.prod(shape)) * np.dtype(kind).itemsize
    if (size := path.stat().st_size) < wanted:
        raise SearchError(f"{path}: {size:,} bytes, wanted {wanted:,}: the index is damaged; build it anew")
    # An empty file cannot be mapped.
    return np.memmap(path, kind, "r", shape=shape) if wanted else np.empty(shape, kind)
