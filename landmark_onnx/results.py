"""What a model answers: frozen, with NumPy arrays for programs and `to_json()` for everything else."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from landmark_onnx.errors import ImageError, LandmarkError
from landmark_onnx.types import Float32, Int64


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that one image took in each stage; inference is the batch's time by the number of its images."""

    decode: float
    preprocess: float
    inference: float
    postprocess: float

    def to_json(self) -> dict[str, float]:
        """Stage -> milliseconds, to the microsecond."""
        return {f"{stage}_ms": round(seconds * 1000, 3) for stage, seconds in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What every answer carries. image: path or position of the image. time: where it went."""

    image: str = ""
    time: Timing | None = None

    def of(self, image: str, time: Timing) -> Self:
        """The same answer, of `image`."""
        return dataclasses.replace(self, image=image, time=time)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {"image": self.image}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding(Result):
    """vector: (D,) float32, D = 512 in the releases, not L2-normalised unless the card says so.

    >>> import numpy as np
    >>> Embedding(image="a.jpg", vector=np.array([0.5, 1], np.float32)).to_json()
    {'image': 'a.jpg', 'embedding': [0.5, 1.0]}
    """

    vector: Float32

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {"image": self.image, "embedding": self.vector.tolist()}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Similarity(Result):
    """cosine: of the embeddings of `query` and `image`, clamped to 0..1 as the original prints it."""

    query: str
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {"query": self.query, "image": self.image, "cosine": self.cosine}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classification(Result):
    """The k most probable classes, best first.

    indices: (k,) int64. scores: (k,) float32 softmax probabilities. names: k names, None where no map says.
    """

    indices: Int64
    scores: Float32
    names: tuple[str | None, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        rows = zip(self.indices.tolist(), self.scores.tolist(), self.names, strict=True)
        labels = [{"index": index, "score": score, "name": name} for index, score, name in rows]
        return {"image": self.image, "labels": labels}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections(Result):
    """N boxes, by class and then by falling score, as the original lists them.

    boxes: (N, 4) float32 x, y, width, height in pixels of the image as decoded; the right edge is x + width - 1.
    classes: (N,) int64, as the network numbers them; of the decoder "rois" 1 and up, for 0 is background.
    scores: (N,) float32. names: N names, None where no map says.
    """

    boxes: Float32
    classes: Int64
    scores: Float32
    names: tuple[str | None, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        rows = zip(self.classes.tolist(), self.names, self.boxes.tolist(), self.scores.tolist(), strict=True)
        keys = ("category_id", "name", "bbox", "score")
        return {"image": self.image, "detections": [dict(zip(keys, row, strict=True)) for row in rows]}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An image that got no answer, and why. kind: what a call with this image alone raises. id: if that was given."""

    image: str
    error: str
    kind: type[LandmarkError] = ImageError
    id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        known = {} if self.id is None else {"id": self.id}
        return {"image": self.image, **known, "error": self.error}


def named(names: Mapping[int, str], indices: Int64) -> tuple[str | None, ...]:
    """The name of each index, None where there is none."""
    return tuple(names.get(index) for index in indices.tolist())
