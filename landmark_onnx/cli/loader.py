"""Models as a command's options say: pulled first if need be, with notes on what runs them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from landmark_onnx.cli.options import BatchReading, Downloads, ExecutionOptions, PrecisionChoice
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.inference.batching import BATCH_SIZE

if TYPE_CHECKING:
    from landmark_onnx.hub.fetching import PullProgress
    from landmark_onnx.model import Model, Retriever
    from landmark_onnx.runtime.providers import ProviderRequest
    from landmark_onnx.runtime.tuned import TunedChoice
    from landmark_onnx.search.ensemble import Ensemble

    M = TypeVar("M", bound=Model[Any])


NO_CARD = Downloads()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How one model runs: as the options say, and where they leave it to tune, as that chose."""

    request: "ProviderRequest"
    threads: int
    batch_size: int
    tuned: "TunedChoice | None" = None


def settle(engine: ExecutionOptions, model: Path, batch_size: int | None = None) -> Settled:
    """How the fp32 file `model` runs. Raises: SessionError if precision auto is asked for, and tune chose nothing."""
    if engine.precision is not PrecisionChoice.AUTO:
        return Settled(request=engine.request(), threads=engine.threads, batch_size=batch_size or BATCH_SIZE)
    from landmark_onnx.runtime.tuned import read_choice

    tuned = read_choice(model)
    return Settled(
        request=tuned.request(),
        threads=engine.threads or tuned.threads,
        batch_size=batch_size or tuned.batch_size,
        tuned=tuned,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Loader:
    """Where models come from, what runs them, and who hears of it."""

    engine: ExecutionOptions
    batch: BatchReading
    report: Reporter
    source: Downloads = NO_CARD

    def load(self, kind: "type[M]", name: str, **own: Any) -> "M":
        """The model `name` as a `kind`, and a note on what "auto" took. own: arguments of that kind."""
        card = self.source.read_card()
        path = self.find(name)
        settled = settle(self.engine, path, self.batch.batch_size)
        model = kind(
            path,
            provider=settled.request,
            threads=settled.threads,
            batch_size=settled.batch_size,
            max_pixels=self.batch.max_pixels,
            damaged=self.batch.damaged.value,
            card=card,
            **own,
        )
        if settled.tuned:
            self.report.note(f"{name}: --precision auto took {settled.tuned.words()}")
        self.report.took(model.session, settled.request.name)
        if model.session.note:
            self.report.note(f"{model.session.path.name}: {model.session.note}")
        return model

    def find(self, name: str) -> Path:
        """The file of the model `name`, pulled first if the store has it not."""
        from landmark_onnx.hub.pull import ensure

        with self.report.lengthy(f"{name} is not in the store yet: pulling it"):
            progress = pull_progress(name, self.report)
            return ensure(name, self.engine.stored(), offline=self.source.offline, progress=progress)

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
