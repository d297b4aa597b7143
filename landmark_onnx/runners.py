"""What a session asks of a runtime, whichever it is."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from landmark_onnx.types import Array, Tensors


class Runner(Protocol):
    """A loaded model file.

    providers: what really runs it, best first. metadata: the file's own strings. inputs: name -> shape, where what is
    no int is free. outputs: names. note: what a user may want to know of how it was loaded, or nothing.
    """

    providers: tuple[str, ...]
    metadata: Mapping[str, str]
    inputs: Mapping[str, Sequence[object]]
    outputs: Sequence[str]
    note: str

    def run(self, outputs: Sequence[str], feeds: Tensors) -> list[Array]:
        """The named outputs. Raises: whatever the runtime raises."""
        ...
