"""Which of a program's inputs and outputs is which of ours, whatever format the program is in."""

import types
from collections.abc import Sequence
from dataclasses import dataclass

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ExportError

RANKS: types.MappingProxyType[str, int] = types.MappingProxyType(
    {"image": 4, "im_info": 2, "im_shape": 2, "scale_factor": 2}
)

SHAPES: types.MappingProxyType[str, str] = types.MappingProxyType(
    {"embedding": "(N, D)", "probability": "(N, C)", "rois": "(R, 4)", "deltas": "(R, 4 C)", "rows": "(R, 6)"}
)
"""Of our outputs, all float32, as an error says them."""

FLOAT32 = "FP32"
"""`Declared.dtype` of float32, as Paddle's `VarType` calls it."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A tensor as a program declares it. dims: -1 where a side is open; None if nothing is said of the tensor."""

    name: str
    dims: tuple[int, ...] | None = None
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class Tensors:
    """The program's own names of our inputs and outputs, in the order of the card's `input_keys` and `output_keys`."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def match(card: ModelCard, feeds: Sequence[Declared], fetches: Sequence[Declared]) -> Tensors:
    """Which feed and fetch is which. Raises: ExportError where their number, rank or type is not the card's.

    What tells two inputs apart is their rank, and then their name, which is the same in all of Paddle's detectors.
    Detectors that answer rows fetch how many there are behind them, which nobody needs.
    """
    wanted, outputs = card.input_keys(), card.output_keys()
    if unknown := [name for name in outputs if name not in SHAPES]:
        raise ExportError(f"postprocess.decoder {card.postprocess.decoder!r}: {unknown[0]}: of ONNX files alone")
    if outputs == ("rows",):
        fetches = fetches[:1]
    if len(feeds) != len(wanted) or len(fetches) != len(outputs):
        raise ExportError(
            f"task {card.task} has inputs {', '.join(wanted)} and outputs {', '.join(outputs)}; the program has "
            f"inputs {', '.join(feed.name for feed in feeds)} and outputs {', '.join(fetch.name for fetch in fetches)}"
        )
    inputs = tuple(_fed(name, feeds) for name in wanted)
    if not all(inputs) or len(set(inputs)) != len(inputs):
        found = ", ".join(f"{feed.name} (rank {_rank(feed)})" for feed in feeds)
        raise ExportError(f"wanted inputs {', '.join(f'{name} (rank {RANKS[name]})' for name in wanted)}; got {found}")
    _check_outputs(card, fetches)
    return Tensors(inputs, tuple(fetch.name for fetch in fetches))


def _fed(name: str, feeds: Sequence[Declared]) -> str:
    """The feed that is our input `name`, "" if there is none."""
    fitting = [feed.name for feed in feeds if _rank(feed) == RANKS[name]]
    return name if name in fitting else next(iter(fitting), "")


def _rank(tensor: Declared) -> int | None:
    return None if tensor.dims is None else len(tensor.dims)


def _check_outputs(card: ModelCard, fetches: Sequence[Declared]) -> None:
    """Raises: ExportError that says what was wanted and what there is, if an output is no float32 of rank 2."""
    known = [fetch for fetch in fetches if fetch.dims is not None]
    if all(_rank(fetch) == 2 and fetch.dtype == FLOAT32 for fetch in known):
        return
    wanted = ", ".join(f"{name} {SHAPES[name]}" for name in card.output_keys())
    found = []
    for fetch in known:
        sides = ", ".join("?" if side < 0 else str(side) for side in fetch.dims or ())
        found.append(f"{fetch.name} ({sides})" + ("" if fetch.dtype == FLOAT32 else f" of type {fetch.dtype}"))
    raise ExportError(
        f"task {card.task} wants the outputs {wanted} in float32; the program has {', '.join(found)}: save it again "
        "with those as its outputs"
    )
