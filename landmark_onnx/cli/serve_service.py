"""From the options of `landmark-onnx serve` to a service that is ready: indexes opened, models loaded and asked."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from landmark_onnx.cli.moved import moves
from landmark_onnx.cli.serve_loader import ServingLoader
from landmark_onnx.cli.serve_options import ServedIndexes
from landmark_onnx.cli.votes import Veto, Voting
from landmark_onnx.extras import versions

if TYPE_CHECKING:
    from landmark_onnx.inference.scheduler import Scheduler
    from landmark_onnx.serving.live_index import IndexEvents, LiveIndex
    from landmark_onnx.serving.metrics import Metrics
    from landmark_onnx.serving.models import HostedModels
    from landmark_onnx.serving.service import RecognitionRules, Service
    from landmark_onnx.serving.settings import Limits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is to be served. models: names or files, beside those of indexes and votes."""

    models: Sequence[str]
    indexes: ServedIndexes
    voting: Voting
    veto: Veto

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to serve."""
        return not (self.models or self.indexes.index or self.voting.cls or self.veto.det)

    def start(self, loader: ServingLoader, limits: "Limits", *, key_required: bool) -> "Service":
        """A service that is ready. Raises: LandmarkError for whatever cannot be served."""
        import cv2

        from landmark_onnx.serving.body import BodyMemory
        from landmark_onnx.serving.lifecycle import Lifecycle
        from landmark_onnx.serving.metrics import Metrics
        from landmark_onnx.serving.service import Service

        cv2.setNumThreads(1)  # each decoder is a thread, and the other cores are the models'
        lifecycle, memory = Lifecycle(), BodyMemory(limits.body_memory)
        metrics = Metrics(lifecycle)
        # Files are read first: models take long.
        moved = tuple(moves(self.indexes.moved or []))
        indexes = {index.name: index for index in self._open(metrics)}
        recognition = self._recognition(loader)
        models = self._models(loader, indexes.values())
        scheduler, searches = _schedulers(models, limits, metrics)
        metrics.watch_queue(lambda: scheduler.waiting, lambda: memory.used)
        _count_loaded(models, loader, metrics)
        for index in indexes.values():
            lifecycle.on_hangup.append(index.reload)
            index.start()
        lifecycle.ready = True
        return Service(
            models=models,
            limits=limits,
            scheduler=scheduler,
            searches=searches,
            metrics=metrics,
            lifecycle=lifecycle,
            memory=memory,
            indexes=indexes,
            moved=moved,
            recognition=recognition,
            key_required=key_required,
        )

    def _open(self, events: "IndexEvents") -> "Iterator[LiveIndex]":
        from landmark_onnx.serving.live_index import LiveIndex

        labels = self.indexes.sources()
        for name, folder in self.indexes.folders().items():
            yield LiveIndex(name, folder, labels=labels[name], events=events)

    def _recognition(self, loader: ServingLoader) -> "RecognitionRules":
        from landmark_onnx.serving.service import RecognitionRules

        class_names, rules = self.voting.class_names(), self.veto.read_rules()
        return RecognitionRules(
            voters=tuple(self.voting.voters(loader, class_names)),
            detector=self.veto.detector(loader, rules),
            rules=rules,
            neighbours=self.voting.neighbours,
            neighbour_weight=self.voting.neighbour_weight,
        )

    def _models(self, loader: ServingLoader, indexes: "Iterable[LiveIndex]") -> "HostedModels":
        """Load the rest of the models, those of indexes too, and ask each of all once."""
        from landmark_onnx.serving.models import HostedModels

        named = {loader.of_any_task(name).card.name: name for name in self.models}
        for index in indexes:
            ensemble = index.current.ensemble
            given = [named[model.name] for model in ensemble.models if model.name in named]
            loader.of_index(ensemble, given, f"index {index.name}")
            index.serve_with(ensemble.models)
        return HostedModels.of(loader.loaded.values())


def _schedulers(models: "HostedModels", limits: "Limits", metrics: "Metrics") -> "tuple[Scheduler, Scheduler]":
    """Of the models, and of searches, which take turns with models that run on the CPU too."""
    from landmark_onnx.inference.admission import QueueLimits
    from landmark_onnx.inference.scheduler import Scheduler

    bounds = QueueLimits(
        images=limits.queued_images, client_share=limits.client_share, decoded_bytes=limits.decoded_memory
    )
    scheduler = Scheduler(limits=bounds, events=metrics)
    return scheduler, scheduler if models.on_cpu else Scheduler(limits=bounds, events=metrics)


def _count_loaded(models: "HostedModels", loader: ServingLoader, metrics: "Metrics") -> None:
    for hosted in models.models:
        metrics.model_loaded(hosted.name, loader.seconds[hosted.name])
    found = versions("landmark-onnx", "onnxruntime", "onnxruntime-gpu", "openvino")
    own = found.pop("landmark-onnx", "")
    provider = models.models[0].model.session.provider
    metrics.build(own, ", ".join(f"{name} {number}" for name, number in found.items()), provider)
