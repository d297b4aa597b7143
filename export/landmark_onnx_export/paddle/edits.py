"""Edits of a ProgramDesc on its way to paddle2onnx: dynamic sizes, ops under our own names, weights left out."""

import dataclasses
import types
from collections.abc import Iterable, Sequence
from typing import Any

from landmark_onnx.errors import ExportError
from landmark_onnx.tasks import INPUTS, OUTPUTS, Task
from landmark_onnx_export.ops.signatures import BODIES, prepare
from landmark_onnx_export.paddle.variables import (
    FP32,
    LOD_TENSOR,
    framework_pb2,
    parse_program,
    persistable_names,
    tensor_desc,
)

INT_ATTRIBUTE = 0
"""AttrType of a whole number."""

RANKS: types.MappingProxyType[str, int] = types.MappingProxyType({"image": 4, "im_info": 2})

SHAPES: types.MappingProxyType[str, str] = types.MappingProxyType(
    {"embedding": "(N, D)", "probability": "(N, C)", "rois": "(R, 4)", "deltas": "(R, 4 C)"}
)
"""Of our outputs, all float32, as an error says them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tensors:
    """The program's own names of our inputs and outputs, in the order of `types.INPUTS` and `types.OUTPUTS`."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def tensors(program: Any, task: Task) -> Tensors:
    """Which feed and fetch is which. Raises: ExportError where their number, rank or type is not the task's."""
    block = program.blocks[0]
    known = {var.name: tensor_desc(var.type) for var in block.vars if var.type.type == LOD_TENSOR}
    ranks = {name: len(tensor.dims) for name, tensor in known.items()}
    feeds = _columns((op, _fed(op)) for op in block.ops if op.type == "feed")
    fetches = _columns((op, _only(op, op.inputs)) for op in block.ops if op.type == "fetch")
    wanted = INPUTS[task]
    if len(feeds) != len(wanted) or len(fetches) != len(OUTPUTS[task]):
        raise ExportError(
            f"task {task} has inputs {', '.join(wanted)} and outputs {', '.join(OUTPUTS[task])}; "
            f"the program has inputs {', '.join(feeds)} and outputs {', '.join(fetches)}"
        )
    inputs = tuple(next((feed for feed in feeds if ranks.get(feed) == RANKS[name]), "") for name in wanted)
    if not all(inputs) or len(set(inputs)) != len(inputs):
        found = ", ".join(f"{feed} (rank {ranks.get(feed)})" for feed in feeds)
        raise ExportError(f"wanted inputs {', '.join(f'{name} (rank {RANKS[name]})' for name in wanted)}; got {found}")
    _check_outputs(task, [(name, known[name]) for name in fetches if name in known])
    return Tensors(inputs, tuple(fetches))


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


def _check_outputs(task: Task, fetched: Sequence[tuple[str, Any]]) -> None:
    """Raises: ExportError that says what was wanted and what there is, if an output is no float32 of rank 2."""
    if all(len(tensor.dims) == 2 and tensor.data_type == FP32 for _, tensor in fetched):
        return
    wanted = ", ".join(f"{name} {SHAPES[name]}" for name in OUTPUTS[task])
    found = []
    for name, tensor in fetched:
        sides = ", ".join("?" if side < 0 else str(side) for side in tensor.dims)
        found.append(f"{name} ({sides})" + ("" if tensor.data_type == FP32 else f" of type {_type_name(tensor)}"))
    raise ExportError(
        f"task {task} wants the outputs {wanted} in float32; the program has {', '.join(found)}: save it again with "
        "those as its outputs"
    )


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
