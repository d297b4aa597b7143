"""Edits of a ProgramDesc on its way to paddle2onnx: dynamic sizes, ops under our own names, weights left out."""

from collections.abc import Iterable
from typing import Any

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ExportError
from landmark_onnx_export.ops.signatures import BODIES, prepare
from landmark_onnx_export.paddle.interface import RANKS, Declared, Tensors, match
from landmark_onnx_export.paddle.variables import (
    LOD_TENSOR,
    framework_pb2,
    parse_program,
    persistable_names,
    tensor_desc,
)

INT_ATTRIBUTE = 0
"""AttrType of a whole number."""


def tensors(program: Any, card: ModelCard) -> Tensors:
    """Which feed and fetch is which. Raises: ExportError where their number, rank or type is not the card's."""
    block = program.blocks[0]
    known = {var.name: _declared(var) for var in block.vars if var.type.type == LOD_TENSOR}
    feeds = _columns((op, _fed(op)) for op in block.ops if op.type == "feed")
    fetches = _columns((op, _only(op, op.inputs)) for op in block.ops if op.type == "fetch")
    return match(card, *([known.get(name, Declared(name)) for name in names] for names in (feeds, fetches)))


def with_open_sizes(data: bytes) -> bytes:
    """Batch, height and width of every input unknown; the shapes that follow from them are to be inferred again."""
    program = parse_program(data)
    feeds = {_fed(op) for op in program.blocks[0].ops if op.type == "feed"}
    for var in program.blocks[0].vars:
        if var.name in feeds:
            dims = tensor_desc(var.type).dims
            for axis in (0, 2, 3) if len(dims) == RANKS["image"] else (0,)[: len(dims)]:
                dims[axis] = -1
    return bytes(program.SerializeToString())


def converter_input(data: bytes) -> bytes:
    """The program as paddle2onnx gets it: every weight a feed, so that none passes through; ops with bodies prepared.

    Raises: ExportError if an op has a body, but not for what it does here.
    """
    program = parse_program(data)
    block = program.blocks[0]
    names = persistable_names(program)
    feeds = [op for op in block.ops if op.type == "feed"]
    others = [op for op in block.ops if op.type != "feed"]
    lifted = []
    for column, name in enumerate(names, start=len(feeds)):
        feed = framework_pb2().OpDesc(type="feed")
        feed.inputs.add(parameter="X", arguments=["feed"])
        feed.outputs.add(parameter="Out", arguments=[name])
        feed.attrs.add(name="col", type=INT_ATTRIBUTE, i=column)
        lifted.append(feed)
    for var in block.vars:
        if var.name in names:
            var.persistable = False
    shapes = {var.name: tuple(tensor_desc(var.type).dims) for var in block.vars if var.type.type == LOD_TENSOR}
    for op in others:
        if op.type in BODIES:
            prepare(op, shapes)
    reordered = [*feeds, *lifted, *others]
    copies = [type(op).FromString(op.SerializeToString()) for op in reordered]
    del block.ops[:]
    block.ops.extend(copies)
    return bytes(program.SerializeToString())


def op_types(data: bytes) -> set[str]:
    """The kinds of op in all blocks of a program, but for feed and fetch."""
    return {op.type for block in parse_program(data).blocks for op in block.ops} - {"feed", "fetch"}


def _declared(var: Any) -> Declared:
    tensor = tensor_desc(var.type)
    return Declared(var.name, tuple(tensor.dims), _type_name(tensor))


def _type_name(tensor: Any) -> str:
    kinds = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return str(kinds[tensor.data_type].name) if tensor.data_type in kinds else str(tensor.data_type)


def _fed(op: Any) -> str:
    """The variable that a feed op fills."""
    return _only(op, op.outputs)


def _only(op: Any, slots: Any) -> str:
    """The one argument of a feed's or fetch's slot. Raises: ExportError if there is none or another."""
    arguments = [argument for slot in slots for argument in slot.arguments]
    if len(arguments) != 1:
        raise ExportError(f"not a Paddle program: a {op.type} op has the variables {arguments}, wanted one")
    return str(arguments[0])


def _columns(ops: Iterable[tuple[Any, str]]) -> list[str]:
    """Names in the order of their `col` attribute."""
    columns = {next((attr.i for attr in op.attrs if attr.name == "col"), 0): name for op, name in ops}
    return [columns[column] for column in sorted(columns)]
