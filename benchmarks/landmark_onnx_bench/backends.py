"""What runs a contestant in its child process: this package, or a peer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.model import Classifier, Detector, Model, Retriever
from landmark_onnx.results import Failure, Result
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.tasks import Task
from landmark_onnx.types import Tensors
from landmark_onnx_bench.peers import OnnxRuntimePeer, OpenVinoPeer, Paddle
from landmark_onnx_bench.targets import Contestant, Runtime

KINDS: Mapping[Task, type[Model[Any]]] = {"retrieval": Retriever, "cls": Classifier, "det": Detector}


class Backend(Protocol):
    """A loaded contestant.

    providers: what really runs it, first one first. batch_size: images it runs together. as_uint8: it takes bytes.
    note: what a user may want to know of how it was loaded, or nothing.
    """

    card: ModelCard
    providers: tuple[str, ...]
    batch_size: int
    as_uint8: bool
    note: str

    def run(self, feeds: Tensors) -> Tensors:
        """Our named tensors -> our named tensors."""

    def answers(self, paths: Sequence[str]) -> Iterator[Result]:
        """Photos -> what a user gets, in their order. Raises: LandmarkError for one without an answer."""


class Own:
    """The package itself, as a user holds it."""

    def __init__(self, contestant: Contestant) -> None:
        """Load the model. Raises: ModelFileError, SessionError, MissingExtraError."""
        self.card = ModelCard.from_dict(contestant.card, contestant.path)
        self._model = KINDS[self.card.task](
            contestant.path,
            provider=ProviderRequest(name=contestant.provider, options=contestant.options.get("provider_options", {})),
            precision=contestant.precision,
            threads=contestant.threads,
            batch_size=contestant.batch_size,
            offline=True,
        )
        self._session = self._model.session
        self.providers = self._session.providers
        self.batch_size = self._session.largest_batch(contestant.batch_size)
        self.as_uint8 = self._session.input_kind == "uint8"
        self.note = self._session.note

    def run(self, feeds: Tensors) -> Tensors:
        """As `Backend.run`."""
        return self._session.run(feeds)

    def answers(self, paths: Sequence[str]) -> Iterator[Result]:
        """As `Backend.answers`, through the package's own pipeline."""
        for result in self._model.stream(paths):
            if isinstance(result, Failure):
                raise result.kind(result.error)
            yield result


ENGINES: Mapping[Runtime, Callable[[Contestant], Backend]] = {
    "landmark-onnx": Own,
    "onnxruntime": OnnxRuntimePeer,
    "openvino": OpenVinoPeer,
    "paddle": Paddle,
}
