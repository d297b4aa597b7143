"""Edits of a ProgramDesc on its way to paddle2onnx: dynamic sizes, ops under our own names, weights left out."""

import dataclasses
import types
from collections.abc import Iterable
from typing import Any

from landmark_onnx.errors import ExportError
from landmark_onnx.types import INPUTS, OUTPUTS, Task
from landmark_onnx_export.fitting import BODIES, prepare
from landmark_onnx_export.fluid import LOD_TENSOR, parse_program, persistable_names, tensor_desc

RANKS: types.MappingProxyType[str, int] = types.MappingProxyType({"image": 4, "im_info": 2})


@dataclasses.dataclass(frozen=True, slots=True)
class Tensors:
    """The program's own names of our inputs and outputs, in the order of `types.INPUTS` and `types.OUTPUTS`."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def tensors(program: Any, task: Task) -> Tensors:
    """Which feed and fetch is which. Raises: ExportError where their number or rank is not the task's."""
    block = program.blocks[0]
    ranks = {var.name: len(tensor_desc(var.type).dims) for var in block.vars if var.type.type == LOD_TENSOR}
    feeds = _columns((op, op.outputs[0].arguments[0]) for op in block.ops if op.type == "feed")
    fetches = _columns((op, op.inputs[0].arguments[0]) for op in block.ops if op.type == "fetch")
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
    return Tensors(inputs, tuple(fetches))


def with_open_sizes(data: bytes) -> bytes:
    """Batch, height and width of every input unknown; the shapes that follow from them are to be inferred anew."""
    program = parse_program(data)
    feeds = {op.outputs[0].arguments[0] for op in program.blocks[0].ops if op.type == "feed"}
    for var in program.blocks[0].vars:
        if var.name in feeds:
            dims = tensor_desc(var.type).dims
            dims[0] = -1
            if len(dims) == RANKS["image"]:
                dims[2] = dims[3] = -1
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
        feed = type(feeds[0])()
        feed.CopyFrom(feeds[0])
        del feed.outputs[0].arguments[:]
        feed.outputs[0].arguments.append(name)
        next(attr for attr in feed.attrs if attr.name == "col").i = column
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


def _columns(ops: Iterable[tuple[Any, str]]) -> list[str]:
    """Names in the order of their `col` attribute."""
    columns = {next((attr.i for attr in op.attrs if attr.name == "col"), 0): name for op, name in ops}
    return [columns[column] for column in sorted(columns)]
