"""What making a reduced precision answers, before it is a file."""

import dataclasses
from collections.abc import Mapping

import onnx


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReducedNetwork:
    """A reduced network.

    method: how ranges were cut, of `ranges.METHODS`; None for fp16. excluded: node -> why it stays fp32. layers: how
    many there were to quantise.
    """

    model: onnx.ModelProto
    method: str | None
    excluded: Mapping[str, str]
    layers: int
