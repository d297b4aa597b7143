"""What features are wanted, and what is called while they are made."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from landmark_onnx.embedding.duplicates import SharedIds
from landmark_onnx.embedding.feature_folder import SHARD_SIZE
from landmark_onnx.embedding.manifest import DType, FeatureManifest, ListPart, ModelIdentity
from landmark_onnx.embedding.worklist import Worklist
from landmark_onnx.images.decode import Damaged
from landmark_onnx.images.ids import as_text


@dataclasses.dataclass(frozen=True, slots=True)
class UpdateCounts:
    """Images that an update keeps the rows of, embeds, and drops."""

    kept: int
    fresh: int
    gone: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmbedProgress:
    """What is called as a job goes on. Counts are of images.

    on_found: how many are on the list by now. on_duplicates: the ids that several have. on_kept: how many are done from
    before. on_compared: how many of how many were compared with the rows of an update's folder. on_update: what came of
    that. on_done: how many of how many are. on_bad: a shard that is damaged, and is rebuilt. on_stopped: by
    Ctrl-C, how many are kept.
    """

    on_found: Callable[[int], None] = lambda count: None
    on_duplicates: Callable[[SharedIds], None] = lambda shared: None
    on_kept: Callable[[int], None] = lambda count: None
    on_compared: Callable[[int, int], None] = lambda count, total: None
    on_update: Callable[[UpdateCounts], None] = lambda counts: None
    on_done: Callable[[int, int], None] = lambda count, total: None
    on_bad: Callable[[str], None] = lambda reason: None
    on_stopped: Callable[[int, int], None] = lambda count, total: None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRequest:
    """What features are wanted: a folder that holds others is another job's.

    damaged: as the images are read. shard_size: images of one file. part: of the list, if not all of it.
    """

    models: Sequence[ModelIdentity]
    dtype: DType = "float32"
    damaged: Damaged = "refuse"
    shard_size: int = SHARD_SIZE
    part: ListPart | None = None

    def manifest(self, plan: Worklist) -> FeatureManifest:
        """Of a folder that will have them for the images of a list."""
        return FeatureManifest(
            models=tuple(self.models),
            dtype=self.dtype,
            shard_size=self.shard_size,
            inputs=plan.sha256,
            rows=plan.rows,
            base=as_text(str(Path.cwd())),
            damaged=self.damaged,
            recorded=True,
            part=plan.part,
        )
