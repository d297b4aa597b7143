"""Steps after the search, as text and as a chain: "dba:k=3,self=true", "alpha-qe:k=10", "k-reciprocal:lambda=0.3"."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import numpy as np

from landmark_onnx.errors import StepError
from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.search.rerank.diffusion import Diffusion
from landmark_onnx.search.rerank.k_reciprocal import KReciprocal
from landmark_onnx.search.rerank.query_expansion import AlphaQueryExpansion, DatabaseAugmentation
from landmark_onnx.search.rerank.state import Search, State, Step
from landmark_onnx.search.rerank.superglobal import SuperGlobal
from landmark_onnx.types import Float32

STEPS: Mapping[str, type[Step]] = {
    kind.name: kind for kind in (DatabaseAugmentation, AlphaQueryExpansion, KReciprocal, Diffusion, SuperGlobal)
}
BOOLEANS = {"true": True, "false": False}


def parse_steps(specs: Iterable[str]) -> tuple[Step, ...]:
    """Each NAME or NAME:key=value,key=value -> a step; what is not given has its default.

    Raises: StepError that names the step or key, and what there is.

    >>> parse_steps(["alpha-qe:k=5"])
    (AlphaQueryExpansion(k=5, alpha=3.0),)
    >>> parse_steps(["alpha-qe:n=5"])
    Traceback (most recent call last):
    landmark_onnx.errors.StepError: step 'alpha-qe:n=5': wanted key=value with a key of k, alpha; got 'n=5'
    """
    return tuple(map(parse_step, specs))


def parse_step(spec: str) -> Step:
    """One step. Raises: StepError."""
    name, _, rest = spec.partition(":")
    if name not in STEPS:
        raise StepError(f"step {spec!r}: no step {name!r}; there are {', '.join(STEPS)}")
    fields = {_key(field): field for field in dataclasses.fields(STEPS[name])}
    values: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, text = pair.partition("=")
        if key not in fields or not equals:
            raise StepError(f"step {spec!r}: wanted key=value with a key of {', '.join(fields)}; got {pair!r}")
        if fields[key].name in values:
            raise StepError(f"step {spec!r}: {key} is given twice")
        values[fields[key].name] = _value(STEPS[name], fields[key], text, spec)
    return STEPS[name](**values)


def spec(step: Step) -> str:
    """The text that means this step, with every parameter.

    >>> spec(parse_step("k-reciprocal:lambda=0.5"))
    'k-reciprocal:k1=20,k2=6,lambda=0.5,candidates=1000'
    """
    values = {_key(field): getattr(step, field.name) for field in dataclasses.fields(step)}
    return f"{step.name}:" + ",".join(f"{key}={str(value).lower()}" for key, value in values.items())


class Chain:
    """Steps around the search of one database; what they make of it alone is made once, with the first queries."""

    def __init__(self, steps: Sequence[Step], database: Float32, *, search: Search | None = None) -> None:
        """database: (N, D) float32, L2-normalised, memory-mapped or not. search: exact by FAISS unless given."""
        self._steps = tuple(steps)
        self._database = database
        self._search = search or _exact
        self._kept: dict[Any, Any] = {}

    def __call__(self, queries: Float32, top: int) -> Neighbours:
        """The min(top, N) first of each of (Q, D) float32 queries, L2-normalised; without steps, the search's own.

        A step that re-ranks looks at its own number of candidates, whatever `top`.
        """
        if not len(self._database):
            return self._search(self._database, np.asarray(queries, np.float32), top)
        width = min(len(self._database), max([top, *(step.reach for step in self._steps)]))
        state = State(np.asarray(queries, np.float32), self._database, self._search, width, kept=self._kept)
        for step in self._steps:
            state = step(state)
        found = state.neighbours()
        return Neighbours(found.positions[:, :top], found.scores[:, :top])


def run_steps(
    steps: Sequence[Step], queries: Float32, database: Float32, top: int, *, search: Search | None = None
) -> Neighbours:
    """A `Chain` for these queries alone."""
    return Chain(steps, database, search=search)(queries, top)


def _exact(database: Float32, queries: Float32, top: int) -> Neighbours:
    from landmark_onnx.search.exact import search_exact

    return search_exact(database, queries, top)


def _key(field: dataclasses.Field[Any]) -> str:
    return field.metadata["key"] or field.name


def _value(kind: type[Step], field: dataclasses.Field[Any], text: str, spec: str) -> Any:
    hint = get_type_hints(kind)[field.name]
    where = f"step {spec!r}: {_key(field)}"
    if choices := BOOLEANS if hint is bool else {choice: choice for choice in get_args(hint)}:
        if text not in choices:
            raise StepError(f"{where}: wanted {' or '.join(choices)}, got {text!r}")
        return choices[text]
    try:
        value = hint(text)
    except ValueError:
        raise StepError(f"{where}: wanted {'a whole' if hint is int else 'a'} number, got {text!r}") from None
    least, most = field.metadata["least"], field.metadata["most"]
    if not least <= value <= most or value == float("inf"):
        limits = f"at least {least}" if most == float("inf") else f"{least} to {most}"
        raise StepError(f"{where}: wanted {limits}, got {text}")
    return value
