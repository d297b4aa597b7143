"""What the routes of a service need: models, indexes, limits, schedulers, and what is counted."""

import dataclasses
import time
from collections.abc import Mapping

from landmark_onnx.inference.scheduler import Scheduler
from landmark_onnx.recognition.recognizer import FramingDetector, Voter
from landmark_onnx.recognition.rules import Rule
from landmark_onnx.recognition.votes import NEIGHBOURS
from landmark_onnx.serving.body import BodyMemory
from landmark_onnx.serving.lifecycle import Lifecycle
from landmark_onnx.serving.live_index import LiveIndex
from landmark_onnx.serving.metrics import Metrics
from landmark_onnx.serving.models import HostedModels
from landmark_onnx.serving.pictures import Pictures
from landmark_onnx.serving.settings import Limits

GRACE = 3.0
"""Seconds at the end for threads that are in the middle of something: a batch, a search, a new state of an index."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecognitionRules:
    """What decides on a landmark beside an index, as `Recognizer` has it."""

    voters: tuple[Voter, ...] = ()
    detector: FramingDetector | None = None
    rules: tuple[Rule, ...] = ()
    neighbours: int = NEIGHBOURS
    neighbour_weight: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running service.

    scheduler: of the models' device. searches: of searches; the same one where models run on the CPU. memory: for
    bodies that are being read or answered. moved: folders of the indexes' pictures that are elsewhere now, old and new.
    key_required: whether a client without a key may ask nothing.
    """

    models: HostedModels
    limits: Limits
    scheduler: Scheduler
    searches: Scheduler
    metrics: Metrics
    lifecycle: Lifecycle
    memory: BodyMemory
    indexes: Mapping[str, LiveIndex] = dataclasses.field(default_factory=dict)
    moved: tuple[tuple[str, str], ...] = ()
    recognition: RecognitionRules = RecognitionRules()
    key_required: bool = False
    pictures: Pictures = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pictures", Pictures(moved=self.moved))

    def close(self) -> None:
        """End all threads; what waits is dropped, and GRACE is what indexes and schedulers may take."""
        self.pictures.close()
        end = time.monotonic() + GRACE
        threads = [each.close for each in self.indexes.values()]
        for close in (*threads, self.scheduler.close, self.searches.close):
            close(max(0.0, end - time.monotonic()))
