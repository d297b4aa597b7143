"""Models as a command's options say: pulled first if need be, with notes on what runs them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from landmark_onnx.cli.options import BatchReading, Downloads, ExecutionOptions
from landmark_onnx.cli.progress import Reporter

if TYPE_CHECKING:
    from landmark_onnx.hub.fetching import PullProgress
    from landmark_onnx.model import Model, Retriever
    from landmark_onnx.search.ensemble import Ensemble

    M = TypeVar("M", bound=Model[Any])


NO_CARD = Downloads()


@dataclasses.dataclass(frozen=True, slots=True)
class Loader:
    """Where models come from, what runs them, and who hears of it."""

    engine: ExecutionOptions
    batch: BatchReading
    report: Reporter
    source: Downloads = NO_CARD

    def load(self, kind: "type[M]", name: str, **own: Any) -> "M":
        """The model `name` as a `kind`, and a note on the provider that "auto" took. own: arguments of that kind."""
        card = self.source.read_card()
        model = kind(
            self.find(name),
            provider=self.engine.request(),
            threads=self.engine.threads,
            batch_size=self.batch.batch_size,
            max_pixels=self.batch.max_pixels,
            damaged=self.batch.damaged.value,
            card=card,
            **own,
        )
        self.report.took(model.session, self.engine.provider)
        if model.session.note:
            self.report.note(f"{model.session.path.name}: {model.session.note}")
        return model

    def find(self, name: str) -> Path:
        """The file of the model `name`, pulled first if the store has it not."""
        from landmark_onnx.hub.pull import ensure

        with self.report.lengthy(f"{name} is not in the store yet: pulling it"):
            progress = pull_progress(name, self.report)
            return ensure(name, self.engine.precision.value, offline=self.source.offline, progress=progress)

    def retrievers(self, names: Sequence[str]) -> "list[Retriever]":
        """One for each name, in their order."""
        from landmark_onnx.model import Retriever

        return [self.load(Retriever, name) for name in names]

    def of_index(self, ensemble: "Ensemble", given: Sequence[str], index: str) -> "dict[str, Retriever]":
        """The models of an index's ensemble by name, in its order: those `given`, the others from the store.

        Raises: SearchError unless they are the same files.
        """
        from landmark_onnx.search.queries import check_retrievers

        found = {model.card.name: model for model in self.retrievers(given)}
        names = [model.name for model in ensemble.models]
        if found.keys() <= set(names):
            missing = [name for name in names if name not in found]
            found |= dict(zip(missing, self.retrievers(missing), strict=True))
        check_retrievers(ensemble, found, index)
        return {name: found[name] for name in names}


def pull_progress(name: str, report: Reporter) -> "PullProgress":
    """What `pull` tells of a model, for the progress bar."""
    from landmark_onnx.hub.fetching import PullProgress

    return PullProgress(
        on_stage=lambda text: report.stage(f"{name}: {text}"),
        on_done=lambda done, total: report.received(f"{name}: download", done, total),
    )
