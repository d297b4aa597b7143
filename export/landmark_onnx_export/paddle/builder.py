"""Write Paddle programs (framework.proto) message by message: no Paddle executor, no weights, no global state."""

from collections.abc import Mapping, Sequence
from typing import Any

from landmark_onnx_export.paddle.variables import FP32, LOD_TENSOR, ProgramDesc, framework_pb2, tensor_desc

VERSION = 1008005
"""Paddle 1.8.5: its readers then expect the attributes that ops had in 2020."""

_FEED_MINIBATCH, _FETCH_LIST = 9, 10
_INT, _FLOAT, _STRING, _INTS, _FLOATS, _BOOLEAN = 0, 1, 2, 3, 4, 6

Attribute = bool | int | float | str | Sequence[int] | Sequence[float]


class ProgramBuilder:
    """One block of ops and variables, in the order of the calls."""

    def __init__(self) -> None:
        self._desc: ProgramDesc = framework_pb2().ProgramDesc()
        self._desc.version.version = VERSION
        self._block = self._desc.blocks.add(idx=0, parent_idx=-1)
        self._counts: dict[str, int] = {}
        for name, kind in (("feed", _FEED_MINIBATCH), ("fetch", _FETCH_LIST)):
            self._block.vars.add(name=name, persistable=True).type.type = kind

    def variable(self, name: str, shape: Sequence[int], dtype: int = FP32, persistable: bool = False) -> str:
        """Declare a tensor; returns its name."""
        kind = self._block.vars.add(name=name, persistable=persistable).type
        kind.type = LOD_TENSOR
        tensor = tensor_desc(kind)
        tensor.data_type = dtype
        tensor.dims.extend(shape)
        return name

    def feed(self, name: str, shape: Sequence[int]) -> str:
        """Declare an input; returns its name."""
        column = self._count("feed")
        self._append("feed", {"X": ["feed"]}, {"Out": [self.variable(name, shape)]}, {"col": column})
        return name

    def fetch(self, name: str) -> None:
        """Make a tensor an output."""
        self._append("fetch", {"X": [name]}, {"Out": ["fetch"]}, {"col": self._count("fetch")})

    def op(
        self,
        kind: str,
        inputs: Mapping[str, str | Sequence[str]],
        outputs: Mapping[str, Sequence[int]],
        **attributes: Attribute,
    ) -> str:
        """Append an op. outputs: slot -> shape of a new float tensor; returns the name of the first."""
        number = self._count(kind)
        names = {
            slot: [self.variable(f"{kind}_{number}.tmp_{index}", shape)]
            for index, (slot, shape) in enumerate(outputs.items())
        }
        self.bare_op(kind, inputs, names, **attributes)
        return next(iter(names.values()))[0]

    def bare_op(
        self,
        kind: str,
        inputs: Mapping[str, str | Sequence[str]],
        outputs: Mapping[str, str | Sequence[str]],
        **attributes: Attribute,
    ) -> None:
        """Append an op on variables that are declared already."""
        self._append(kind, inputs, outputs, attributes)

    def serialize(self) -> bytes:
        """The ProgramDesc's bytes; the same calls give the same bytes."""
        return bytes(self._desc.SerializeToString(deterministic=True))

    def _append(
        self,
        kind: str,
        inputs: Mapping[str, str | Sequence[str]],
        outputs: Mapping[str, str | Sequence[str]],
        attributes: Mapping[str, Attribute],
    ) -> None:
        op = self._block.ops.add(type=kind)
        for slots, mapping in ((op.inputs, inputs), (op.outputs, outputs)):
            for slot, names in mapping.items():
                slots.add(parameter=slot, arguments=[names] if isinstance(names, str) else names)
        for name, value in attributes.items():
            field, number = _field(value)
            op.attrs.add(name=name, type=number, **{field: value})

    def _count(self, kind: str) -> int:
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        return number


def _field(value: Attribute) -> tuple[str, int]:
    """The field and the `AttrType` of an attribute's value."""
    match value:
        case bool():
            return "b", _BOOLEAN
        case int():
            return "i", _INT
        case float():
            return "f", _FLOAT
        case str():
            return "s", _STRING
        case [float(), *_]:
            return "floats", _FLOATS
    return "ints", _INTS


def attributes(op: Any) -> dict[str, Any]:
    """An op's attributes as Python values."""
    fields = {_INT: "i", _FLOAT: "f", _STRING: "s", _INTS: "ints", _FLOATS: "floats", _BOOLEAN: "b"}
    return {item.name: getattr(item, fields[item.type]) for item in op.attrs if item.type in fields}
