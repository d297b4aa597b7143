"""What a session asks of a runtime, whichever it is."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from landmark_onnx.types import Array, Tensors

FLOATS = ("float16", "float32", "float64")
"""Kinds of floating-point values."""


@dataclasses.dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a file.

    shape: None where a size is free, empty where the file does not say how many there are. kind: of the values, by
    NumPy's name; the runtime's own word for what is no such array.
    """

    shape: tuple[int | None, ...]
    kind: str


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape in a message.

    >>> shape_text((None, 3, 224, 224))
    '(?, 3, 224, 224)'
    """
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"


class Runner(Protocol):
    """A loaded model file.

    providers: what really runs it, best first. metadata: the file's own strings. inputs, outputs: by every name that
    the runtime knows them by. note: what a user may want to know of how it was loaded, or nothing.
    """

    providers: tuple[str, ...]
    metadata: Mapping[str, str]
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    note: str

    def run(self, outputs: Sequence[str], feeds: Tensors) -> list[Array]:
        """The named outputs. Raises: whatever the runtime raises."""
        ...
