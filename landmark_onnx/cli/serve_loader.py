"""Models to serve: each loaded once, whatever it is for, and nothing downloaded or exported."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from landmark_onnx.cli.loader import Loader, settle

if TYPE_CHECKING:
    from landmark_onnx.model import Model
    from landmark_onnx.tasks import Task

    M = TypeVar("M", bound=Model[Any])


@dataclasses.dataclass(frozen=True, slots=True)
class ServingLoader(Loader):
    """loaded: file -> its model, in the order of loading. seconds: name of a model -> what its loading took."""

    loaded: "dict[Path, Model[Any]]" = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def find(self, name: str) -> Path:
        """The file of the model `name`. Raises: ModelFileError, which names the command that pulls it."""
        from landmark_onnx.store.catalogue import find_model

        return find_model(name, self.engine.stored())

    def load(self, kind: "type[M]", name: str, **own: Any) -> "M":
        """The model `name`; a classifier answers with as many classes as a request may ask for."""
        from landmark_onnx.model import Classifier
        from landmark_onnx.serving.schema import MOST_CLASSES

        path = self.find(name).resolve()
        found = self.loaded.get(path)
        if found is None or found.task != kind.task:  # of another task, loading it says so
            if issubclass(kind, Classifier):
                own["top"] = MOST_CLASSES
            start = time.monotonic()
            found = super(ServingLoader, self).load(kind, name, **own)
            self.seconds[found.card.name] = time.monotonic() - start
            self.loaded[path] = found
        return cast("M", found)

    def of_any_task(self, name: str) -> "Model[Any]":
        """The model `name`, of whatever task its card says. Raises: ModelFileError, CardError."""
        from landmark_onnx.model import Classifier, Model, Retriever
        from landmark_onnx.recognition.recognizer import FramingDetector
        from landmark_onnx.store.catalogue import embedded_card, running_file

        kinds: dict[Task, type[Model[Any]]] = {"retrieval": Retriever, "cls": Classifier, "det": FramingDetector}
        path = self.find(name)
        card = embedded_card(running_file(path, settle(self.engine, path).request.precision))
        return self.load(kinds[card.task], name)
