"""`index.json`: what an index holds; replacing this file is what changes an index.

The files that it names only grow, and it says how much of them counts. So a reader of it has all of one state,
however much is written meanwhile; and a writer that is killed leaves what no manifest speaks of.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from landmark_onnx.errors import SearchError
from landmark_onnx.files.documents import read_json
from landmark_onnx.files.hashing import blocks
from landmark_onnx.files.sealed import write_sealed
from landmark_onnx.files.structure import Count, DocumentError, FileName, brief, structure
from landmark_onnx.search.contents import EMPTY, Contents, remedy
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.sealed import read_sealed
from landmark_onnx.search.texts import ENDS, TEXT, text_files

FILE = "index.json"
FORMAT = 2
COLUMNS = ("ids", "sources")
OURS = re.compile(
    r"vectors-[0-9]+\.f32|(ids|sources)-[0-9]+\.(ends|text)|whitening-[0-9a-f]{16}\.npz"
    r"|graph-[0-9a-f]{16}\.(faiss|positions)|codes-[0-9a-f]{16}\.sq8"
)
"""The names of the files beside the manifest."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GraphFile:
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
class CodesFile:
    """The compressed rows beside. file: (2, D) float32, the ranges of the dimensions, then (N, D) bytes.

    recall: share of the `at` exact neighbours found, over `sample` rows as queries.
    """

    file: FileName
    kind: Literal["sq8"]
    recall: float
    at: Count
    sample: Count

    def describe(self) -> str:
        """What it is and finds, in a line."""
        return f"rows compressed by {self.kind}: recall@{self.at} {self.recall:.4f} over {self.sample} rows as queries"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexManifest:
    """generation: in the names of the columns' files. rows: of each column. files: what is in each, by its name.

    graph, codes: the approximate index beside; there is one of them, or none.
    """

    generation: Count
    rows: Count
    ensemble: Ensemble
    files: Mapping[str, Contents]
    graph: GraphFile | None = None
    codes: CodesFile | None = None

    def __post_init__(self) -> None:
        """Raises: DocumentError unless the files are those that so many rows have."""
        graph = self.graph
        columns = column_files(self.generation)
        sizes: dict[str, int | None] = {name: self.rows * 8 for name in columns if name.endswith(ENDS)}
        sizes |= {name: None for name in columns if name.endswith(TEXT)}
        sizes[vectors_file(self.generation)] = self.rows * self.ensemble.dim * 4
        if graph:
            sizes |= {graph.file: None, graph.positions: graph.nodes * 8}
            if graph.nodes - graph.dead != self.rows:
                raise DocumentError(f"graph: {graph.nodes} nodes, {graph.dead} of them dead, for {self.rows} rows")
        if self.codes:
            sizes[self.codes.file] = codes_bytes(self.rows, self.ensemble.dim)
        if graph and self.codes:
            raise DocumentError("codes: a graph is there too; wanted one of them")
        if sizes.keys() != self.files.keys() or not all(OURS.fullmatch(name) for name in sizes):
            raise DocumentError(f"files: wanted {', '.join(sizes)}, got {', '.join(self.files)}")
        for name, contents in self.files.items():
            if sizes[name] not in (None, contents.bytes):
                raise DocumentError(f"files: {name}: bytes: wanted {sizes[name]}, got {contents.bytes}")
            if len(contents.sha256) != blocks(contents.bytes):
                raise DocumentError(f"files: {name}: sha256: wanted {blocks(contents.bytes)} of them")

    @classmethod
    def empty(cls, generation: int, ensemble: Ensemble) -> Self:
        """No rows, in files that are not there yet."""
        return cls(
            generation=generation, rows=0, ensemble=ensemble, files=dict.fromkeys(column_files(generation), EMPTY)
        )

    @property
    def approximate(self) -> GraphFile | CodesFile | None:
        """The approximate index beside, None without one."""
        return self.graph or self.codes

    @property
    def columns(self) -> dict[str, Contents]:
        """The contents of the columns' files."""
        return {name: self.files[name] for name in column_files(self.generation)}

    @property
    def names(self) -> frozenset[str]:
        """The names of all files that belong to this state, but the manifest itself."""
        whitening = self.ensemble.whitening
        return frozenset([*self.files, *([whitening.file] if whitening else [])])

    def vectors_path(self, folder: Path) -> Path:
        """(rows, ensemble.dim) float32, little-endian, no header: it could not say how much of the file counts."""
        return folder / vectors_file(self.generation)

    def write(self, folder: Path) -> None:
        """Make this the state of the index, whole or not at all."""
        facts = {
            "generation": self.generation,
            "rows": self.rows,
            "dim": self.ensemble.dim,
            "ensemble": self.ensemble.to_json(folder),
            "files": {name: dataclasses.asdict(each) for name, each in sorted(self.files.items())},
            "graph": dataclasses.asdict(self.graph) if self.graph else None,
        }
        if self.codes:  # else the file is what it was before there were any
            facts["codes"] = dataclasses.asdict(self.codes)
        write_sealed(folder / FILE, FORMAT, facts)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The state of an index. Raises: SearchError if there is none, or it is damaged or of another version."""
        missing = f"{folder}: no index; make one: landmark-onnx index build FEATURES -o {folder}"
        with read_sealed(folder / FILE, FORMAT, remedy(folder), missing=missing) as facts:
            dim = facts.pop("dim", None)
            facts["ensemble"] = Ensemble.from_json(facts.get("ensemble"), folder)
            manifest = structure(cls, facts)
            if dim != manifest.ensemble.dim:
                raise DocumentError(f"dim: wanted {manifest.ensemble.dim}, got {brief(dim)}")
            return manifest


def vectors_file(generation: int) -> str:
    """The name of the file of vectors."""
    return f"vectors-{generation}.f32"


def codes_bytes(rows: int, dim: int) -> int:
    """The size of a file of compressed rows."""
    return 2 * 4 * dim + rows * dim


def column_files(generation: int) -> tuple[str, ...]:
    """The names of the files of vectors, ids and sources."""
    texts = [name for column in COLUMNS for name in text_files(column, generation)]
    return (vectors_file(generation), *texts)


def known_names(folder: Path) -> frozenset[str]:
    """The names of the files that the manifest makes an index's, of whatever version it is; none where there is none.

    Raises: SearchError if it is of something else, or damaged so that it does not say.
    """
    path = folder / FILE
    try:
        data = read_json(path)
        beside = [*(data["graph"] or {}).values(), *(data.get("codes") or {}).values()]
        given = [data["ensemble"]["whitening"], *beside, *data.get("files", ())]
        names = [*column_files(data["generation"]), *(name for name in given if isinstance(name, str))]
    except FileNotFoundError:
        return frozenset()
    except (DocumentError, KeyError, TypeError, AttributeError) as error:
        raise SearchError(
            f"{path}: of no index, or too damaged to be replaced; delete it, or name another folder"
        ) from error
    # A name from a file is taken only if it is one that we give: nothing else is ever deleted.
    return frozenset(name for name in names if OURS.fullmatch(name))
