"""Read and edit Paddle 3's programs (PIR, `inference.json`) without Paddle.

A program is JSON: its ops are `program.regions[0].blocks[0].ops`, each with its kind `#`, attributes `A`, results `O`.
The kind begins with the number of its dialect: `1.conv2d` is pd_op.conv2d. An op of kind `p` is a parameter, whose last
attribute is its name. Parameters lie in a params file as ever, sorted by name.
Source: Paddle 3 paddle/fluid/pir/serialize_deserialize/include/schema.h, and src/ir_serialize.cc.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ExportError
from landmark_onnx.files.documents import parse_json
from landmark_onnx.files.structure import DocumentError, structure
from landmark_onnx_export.paddle.interface import FLOAT32, RANKS, Declared, Tensors, match
from landmark_onnx_export.paddle.variables import MAX_PROGRAM_BYTES, Variable, read_params, stream_head

_MAGIC = re.compile(rb'\s*\{\s*"base_code"\s*:\s*\{[^{}]*"magic"\s*:\s*"pir"')
_PARAMETER, _FEEDS, _FETCH = "p", ("1.data", "1.feed"), "1.fetch"
_PLUMBING = {"data", "feed", "fetch", "full", "full_int_array"}
_DTYPES = {"f32": FLOAT32, "f16": "FP16", "bf16": "BF16", "f64": "FP64", "i64": "INT64", "i32": "INT32"}


@dataclass(frozen=True, slots=True)
class PirProgram:
    """A program of Paddle 3. parameters: shape by name. ops: their kinds, without dialect and plumbing."""

    document: dict[str, Any]
    parameters: Mapping[str, tuple[int, ...]]
    feeds: tuple[Declared, ...]
    fetches: tuple[Declared, ...]
    ops: frozenset[str]

    def tensors(self, card: ModelCard) -> Tensors:
        """Which input and output is which. Raises: ExportError where their number, rank or type is not the card's."""
        return match(card, self.feeds, self.fetches)


def looks_like_pir(head: bytes) -> bool:
    """Whether a file that begins with `head` (256 bytes or the whole file) can only be meant as such a program."""
    return _MAGIC.match(head) is not None


def parse_pir(data: bytes, origin: str = "program") -> PirProgram:
    """A program with at least one op. Raises: ExportError naming `origin` for anything else."""
    if len(data) > MAX_PROGRAM_BYTES:
        raise ExportError(f"{origin}: wanted a program of at most {MAX_PROGRAM_BYTES} bytes, got {len(data)}")
    with _reading(origin):
        document = structure(dict, parse_json(data))
        ops = list(_main_ops(document))
        parameters = {structure(str, op["A"][-1], "parameter"): op for op in ops if op["#"] == _PARAMETER}
        fetches = sorted((structure(int, _attribute(op, "col")), number, op) for number, op in _numbered(ops, _FETCH))
        return PirProgram(
            document,
            {name: _declared(name, op).dims or () for name, op in parameters.items()},
            tuple(_declared(structure(str, _attribute(op, "name")), op) for op in ops if op["#"] in _FEEDS),
            tuple(_declared(structure(str, _attribute(op, "name")), op) for _, _, op in fetches),
            frozenset(_kinds(document)) - _PLUMBING,
        )


def with_open_sizes(data: bytes) -> bytes:
    """Batch, height and width of every input unknown.

    What the ops behind say of their results stays as it was saved: Paddle runs any size all the same, and whether the
    graph made of it does is seen by parity, which asks in several.
    """
    program = parse_pir(data)
    with _reading("program"):
        for op in _main_ops(program.document):
            if op["#"] in _FEEDS:
                dims = _result(op)[1]
                for axis in (0, 2, 3) if len(dims) == RANKS["image"] else (0,)[: len(dims)]:
                    dims[axis] = -1
                for attribute in op["A"]:
                    if attribute["N"] == "shape":
                        attribute["AT"]["D"] = dims
    return _text(program)


def in_float32(data: bytes) -> bytes:
    """The program with float32 wherever it has float16, which Paddle computes on a GPU alone."""
    program = parse_pir(data)
    for value in _objects(program.document):
        if value.get("#") == "0.t_f16":
            value["#"] = "0.t_f32"
        elif value.get("#") == "1.a_dtype" and value.get("D") == "float16":
            value["D"] = "float32"
    return _text(program)


def widened(variables: Mapping[str, Variable], folder: Path) -> Mapping[str, Variable]:
    """The variables with float32 in place of float16, which is exact; these lie in a file in `folder`."""
    if all(variable.dtype != np.float16 for variable in variables.values()):
        return variables
    path = folder / "widened.pdiparams"
    with path.open("wb") as out:
        for name in sorted(variables):
            variable = variables[name]
            if variable.dtype == np.float16:
                out.write(stream_head(variable.shape))
                out.write(variable.read().astype("<f4").data)
            else:
                variable.copy_stream(out)
    return read_params(path, list(variables))


@contextlib.contextmanager
def _reading(origin: str) -> Iterator[None]:
    """Raises: ExportError naming `origin` for whatever is not where this block looks for it."""
    try:
        yield
    except DocumentError as error:
        raise ExportError(f"{origin}: not a program of Paddle 3 (PIR): {error}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise ExportError(f"{origin}: not a program of Paddle 3 (PIR): its ops cannot be read: {error!r}") from error


def _text(program: PirProgram) -> bytes:
    return json.dumps(program.document, separators=(",", ":")).encode()


def _main_ops(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    ops = document["program"]["regions"][0]["blocks"][0]["ops"]
    if not ops:
        raise DocumentError("it has no ops")
    yield from structure(tuple[Any, ...], ops, "ops")


def _numbered(ops: list[dict[str, Any]], kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((number, op) for number, op in enumerate(ops) if op["#"] == kind)


def _attribute(op: Mapping[str, Any], name: str) -> Any:
    for attribute in op["A"]:
        if attribute["N"] == name:
            return attribute["AT"]["D"]
    raise DocumentError(f"an op {op['#']} without the attribute {name}")


def _result(op: Mapping[str, Any]) -> Any:
    """[type, dims, ...] of the first result of an op, which is a parameter's, an input's or an output's only one."""
    results = op["O"]
    return (results if isinstance(results, dict) else results[0])["TT"]["D"]


def _declared(name: str, op: Mapping[str, Any]) -> Declared:
    kind, dims = _result(op)[:2]
    dtype = structure(str, kind["#"]).rpartition("t_")[2]
    return Declared(name, structure(tuple[int, ...], dims, name), _DTYPES.get(dtype, dtype))


def _kinds(document: Mapping[str, Any]) -> Iterator[str]:
    for value in _objects(document):
        if "I" in value and str(value.get("#")).startswith("1."):
            yield str(value["#"])[2:]


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a value, itself first; how deep they nest was limited when they were read."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _objects(item)
