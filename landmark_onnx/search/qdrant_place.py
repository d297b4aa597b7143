"""Where the rows of an index are that a Qdrant server keeps: the file `qdrant.json` of its folder."""

import dataclasses
from pathlib import Path
from typing import Self

from landmark_onnx.files.sealed import write_sealed
from landmark_onnx.files.structure import Count, structure
from landmark_onnx.search.contents import remedy
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.sealed import read_sealed

FILE = "qdrant.json"
FORMAT = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """url: http(s)://, or file:// for Qdrant's embedded mode. following: the position that the next row gets."""

    url: str
    collection: str
    following: Count
    ensemble: Ensemble

    def write(self, folder: Path) -> None:
        """Write qdrant.json."""
        facts = {key: getattr(self, key) for key in ("url", "collection", "following")}
        write_sealed(folder / FILE, FORMAT, {**facts, "ensemble": self.ensemble.to_json(folder)})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What `write` wrote. Raises: SearchError if it is missing or damaged."""
        with read_sealed(folder / FILE, FORMAT, remedy(folder, url="URL")) as facts:
            ensemble = Ensemble.from_json(facts.get("ensemble"), folder)
            return structure(cls, facts | {"ensemble": ensemble})
