"""The models that are served: loaded, asked once, and found by task and name."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from landmark_onnx.embedding.identity import file_sha256
from landmark_onnx.errors import ModelFileError
from landmark_onnx.inference.pipeline import Pipeline
from landmark_onnx.model import Model
from landmark_onnx.runtime.providers import CPU, OPENVINO_PACKAGE
from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.tasks import Task

_SIDE = 64
_ON_CPU = (CPU, OPENVINO_PACKAGE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostedModel:
    """A model that is served. name: of its card. sha256: of its file."""

    name: str
    sha256: str
    model: Model[Any]

    @property
    def task(self) -> Task:
        """What it does."""
        return self.model.card.task

    @property
    def pipeline(self) -> Pipeline[Any]:
        """What a scheduler runs."""
        return self.model.pipeline

    def facts(self) -> dict[str, str]:
        """Which model it is, as answers say it."""
        return {"name": self.name, "sha256": self.sha256}

    def to_json(self) -> dict[str, str]:
        """The same and how it runs, as JSON-ready data."""
        session = self.model.session
        return self.facts() | {"task": self.task, "precision": session.precision, "provider": session.provider}


@dataclasses.dataclass(frozen=True, slots=True)
class HostedModels:
    """All models that are served, each by its name."""

    models: tuple[HostedModel, ...]

    @classmethod
    def of(cls, models: Iterable[Model[Any]]) -> Self:
        """Loaded models, each of which answers to a made-up image first; one that is there twice counts once.

        Raises: ModelFileError if a file is not what was sealed, or two models have one name; SessionError.
        """
        found: dict[str, HostedModel] = {}
        for model in models:
            name = model.card.name
            if name not in found:
                model(np.full((_SIDE, _SIDE, 3), 128, np.uint8))
                found[name] = HostedModel(name=name, sha256=file_sha256(model.session.path), model=model)
            elif found[name].model is not model:
                paths = f"{found[name].model.session.path} and {model.session.path}"
                raise ModelFileError(f"{paths} are both called {name}: serve one of them")
        return cls(tuple(found.values()))

    @property
    def on_cpu(self) -> bool:
        """Whether they run where searches do."""
        return all(each.model.session.provider in _ON_CPU for each in self.models)

    def choose(self, task: Task, name: str | None) -> HostedModel:
        """The model of a task by its name, or the only one.

        Raises: ProblemError, not-found if there is none; invalid if there are several and no name was given.
        """
        fit = [each for each in self.models if each.task == task and name in (None, each.name)]
        there = ", ".join(each.name for each in self.models if each.task == task)
        if not fit:
            what = f"no model is called {name!r} here" if name else f"no model of task {task} is served"
            raise ProblemError("not-found", f"{what}; of task {task} there are: {there or 'none'}")
        if len(fit) > 1:
            raise ProblemError("invalid", f"option model: several of task {task} are served, name one: {there}")
        return fit[0]
