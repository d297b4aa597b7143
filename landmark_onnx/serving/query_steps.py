"""Steps after the search that one request may ask for: those whose cost is bounded, with a bound for each parameter."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from landmark_onnx.errors import StepError
from landmark_onnx.search.rerank.chain import STEPS, parse_step
from landmark_onnx.search.rerank.state import Step

MOST_STEPS = 3
REACH = 1000
"""Neighbours of a query that a step looks at."""

BOUNDS: Mapping[str, Mapping[str, float]] = {
    "alpha-qe": {"k": 100, "alpha": 100},
    "k-reciprocal": {"k1": 100, "k2": 20, "lambda": 1, "candidates": REACH},
    "superglobal": {"m": REACH, "k": 20, "beta": 10},
    "diffusion": {
        "k": 200,
        "kq": REACH,
        "gamma": 100,
        "alpha": 0.9999,
        "iterations": 50,
        "tolerance": 1,
        "truncation": REACH,
    },
}
"""The largest value of each parameter that has a number. Of 2,048 values a query, none of the steps then takes more
than 0.5 GB of memory.
"""


def query_steps(specs: Sequence[str]) -> tuple[Step, ...]:
    """Each NAME or NAME:key=value,key=value -> a step.

    Raises: StepError for more than MOST_STEPS, as `parse_steps`, and for what costs too much for one request.
    """
    if len(specs) > MOST_STEPS:
        raise StepError(f"wanted at most {MOST_STEPS} steps, got {len(specs)}")
    steps = tuple(map(parse_step, specs))
    for text, step in zip(specs, steps, strict=True):
        _check(text, step)
    return steps


def step_facts() -> list[dict[str, Any]]:
    """The steps with the kind, default and range of each parameter: JSON-ready data."""
    return [{"name": name, "parameters": _parameters(STEPS[name], BOUNDS[name])} for name in BOUNDS]


def _check(text: str, step: Step) -> None:
    if step.name not in BOUNDS or getattr(step, "graph", "candidates") != "candidates":
        raise StepError(
            f"step {text!r}: searches the whole index in itself, which is too much for one request; "
            f"there are {', '.join(BOUNDS)}"
        )
    for key, field in _fields(type(step)).items():
        value, most = getattr(step, field.name), BOUNDS[step.name].get(key)
        if most is not None and value > most:
            raise StepError(f"step {text!r}: {key}: wanted at most {most} in a request, got {value}")


def _parameters(kind: type[Step], bounds: Mapping[str, float]) -> list[dict[str, Any]]:
    fields, hints = _fields(kind), get_type_hints(kind)
    return [
        {
            "name": key,
            "kind": hints[fields[key].name].__name__,
            "default": fields[key].default,
            "min": fields[key].metadata["least"],
            "max": most,
        }
        for key, most in bounds.items()
    ]


def _fields(kind: type[Step]) -> dict[str, dataclasses.Field[Any]]:
    return {field.metadata["key"] or field.name: field for field in dataclasses.fields(kind)}
