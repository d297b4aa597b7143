"""`index.json`: what an index holds; replacing this file is what changes an index.

The files that it names only grow, and it says how much of them counts. So whoever has read it has all of one state,
however much is written meanwhile; and a writer that is killed leaves what no manifest speaks of.
"""

import dataclasses
import json
from pathlib import Path
from typing import Self

from landmark_onnx.documents import VersionError, read_versioned
from landmark_onnx.errors import SearchError
from landmark_onnx.files import atomic_write
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.texts import text_files
from landmark_onnx.structure import Count, DocumentError, FileName, brief, structure

FILE = "index.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The approximate index beside. file: FAISS' own. positions: file of the position of each of its nodes, -1 if gone.

    nodes: how many it has, dead ones among them. dead: those. links: of a node. effort: candidates that a search
    holds. recall: share of the `at` exact neighbours found, over `sample` rows as queries.
    """

    file: FileName
    positions: FileName
    nodes: Count
    dead: Count
    links: Count
    effort: Count
    recall: float
    at: Count
    sample: Count

    def describe(self) -> str:
        """What it is and finds, in a line."""
        gone = f", {self.dead:,} of them dead" if self.dead else ""
        return (
            f"HNSW graph of {self.nodes:,} nodes{gone}, {self.links} links, effort {self.effort}: "
            f"recall@{self.at} {self.recall:.4f} over {self.sample} rows as queries"
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """generation: of the files. rows: of each column. id_bytes, source_bytes: of their texts."""

    generation: Count
    rows: Count
    id_bytes: Count
    source_bytes: Count
    ensemble: Ensemble
    graph: Graph | None = None

    def vectors_path(self, folder: Path) -> Path:
        """(rows, ensemble.dim) float32, little-endian, no header: it could not say how much of the file counts."""
        return folder / f"vectors-{self.generation}.f32"

    def files(self, folder: Path) -> frozenset[Path]:
        """Every file that belongs to this state, but the manifest itself."""
        whitening = self.ensemble.whitening
        return frozenset(
            [
                self.vectors_path(folder),
                *text_files(folder, "ids", self.generation),
                *text_files(folder, "sources", self.generation),
                *([folder / whitening.file] if whitening else []),
                *([folder / self.graph.file, folder / self.graph.positions] if self.graph else []),
            ]
        )

    def write(self, folder: Path) -> None:
        """Make this the state of the index, whole or not at all."""
        data = {
            "format": FORMAT,
            **{key: getattr(self, key) for key in ("generation", "rows", "id_bytes", "source_bytes")},
            "dim": self.ensemble.dim,
            "ensemble": self.ensemble.to_json(folder),
            "graph": dataclasses.asdict(self.graph) if self.graph else None,
        }
        with atomic_write(folder / FILE) as file:
            file.write(json.dumps(data, indent=1).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The state of an index. Raises: SearchError if there is none, or it is damaged or of another version."""
        path = folder / FILE
        try:
            data = read_versioned(path, "format", FORMAT)
            dim = data.pop("dim", None)
            data["ensemble"] = Ensemble.from_json(data.get("ensemble"), folder)
            manifest = structure(cls, data)
            if dim != manifest.ensemble.dim:
                raise DocumentError(f"dim: wanted {manifest.ensemble.dim}, got {brief(dim)}")
            return manifest
        except FileNotFoundError as error:
            raise SearchError(
                f"{folder}: no index; make one: landmark-onnx index build FEATURES -o {folder}"
            ) from error
        except OSError as error:
            raise SearchError(f"{path}: {error.strerror}") from error
        except VersionError as error:
            raise SearchError(f"{path}: {error}: made by another version; build the index again") from error
        except DocumentError as error:
            raise SearchError(f"{path}: damaged ({error}); build the index again") from error
