"""A Paddle release -> one checked ONNX file that says what it is."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import onnx
from onnx import TensorProto, helper

from landmark_onnx.agreement import Agreement
from landmark_onnx.cards import ModelCard
from landmark_onnx.errors import ExportError
from landmark_onnx.files import publish
from landmark_onnx.labels import parse_labels
from landmark_onnx.seal import append_metadata
from landmark_onnx.types import INPUTS, OUTPUTS
from landmark_onnx_export import ops, parity, programs
from landmark_onnx_export.child import run_child
from landmark_onnx_export.fluid import Variable
from landmark_onnx_export.networks import build, write_binary_model
from landmark_onnx_export.sources import Source, open_source

INLINE_LIMIT = (1 << 31) - (64 << 20)
"""Bytes of weights beyond which they go to a file beside the model: a protobuf message ends at 2 GiB."""

ALIGNMENT = 4096
"""Of each weight in that file, so that it can be memory-mapped."""

TOOLS = ("landmark-onnx", "paddlepaddle", "paddle2onnx", "onnx", "onnxscript")

DIMS: Mapping[str, tuple[str | int, ...]] = {
    "image": ("batch", 3, "height", "width"),
    "im_info": ("batch", 3),
    "embedding": ("batch", "dimension"),
    "probability": ("batch", "class"),
    "rois": ("roi", 4),
    "deltas": ("roi", "delta"),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export made. agreement: with Paddle, None if not asked. unused: variables of the source left aside."""

    path: Path
    card: ModelCard
    seconds: float
    agreement: Agreement | None
    unused: tuple[str, ...]


def export_model(
    card: ModelCard,
    source: Path,
    output: Path,
    *,
    check_parity: bool = True,
    say: Callable[[str], None] = lambda stage: None,
) -> ExportReport:
    """Export `source` (tar, folder, binary model) to the ONNX file `output`; on any error nothing is left there.

    say: called with the name of each stage as it begins.
    Raises: ExportError, MissingExtraError.
    """
    start = time.perf_counter()
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent) as work,
        open_source(source) as opened,
    ):
        folder = Path(work)
        say("program")
        program, unused = _program(card, opened, folder)
        tensors = programs.tensors(programs.parse_program(program), card.task)
        say("convert")
        model = _convert(card, program, tensors, folder)
        say("weights")
        written = _write(model, opened, folder / output.name)
        measured = None
        if check_parity:
            say("parity")
            files = write_binary_model(program, opened.variables, folder)
            paddle = parity.PaddleModel(*files, tensors.inputs, tensors.outputs)
            measured = parity.measure(card, paddle, written.model, folder)
        with written.model.open("r+b") as file:
            append_metadata(file, _metadata(card, opened, written, measured))
            file.flush()
            os.fsync(file.fileno())
        _publish(written, output)
    return ExportReport(
        path=output,
        card=card,
        seconds=time.perf_counter() - start,
        agreement=measured and measured.agreement,
        unused=unused,
    )


def _program(card: ModelCard, source: Source, folder: Path) -> tuple[bytes, tuple[str, ...]]:
    """The program with dynamic sizes, and the variables it does not use."""
    data = source.program
    if data is None:
        if card.source.network == "program":
            raise ExportError(f"{source.path}: a train model without a program; {card.name} needs a binary model")
        data = build(card.source.network, card.task, source.variables)
    resized = folder / "resized.pdmodel"
    resized.write_bytes(programs.with_open_sizes(data))
    run_child("shapes", {"program": str(resized)})
    data = resized.read_bytes()
    used = set(programs.persistable_names(programs.parse_program(data)))
    return data, tuple(sorted(set(source.variables) - used))


def _convert(card: ModelCard, program: bytes, tensors: programs.Tensors, folder: Path) -> onnx.ModelProto:
    """The ONNX model without weights: standard ops alone, our tensor names, weights still among the inputs."""
    given, made = folder / "converter.pdmodel", folder / "converted.onnx"
    given.write_bytes(programs.converter_input(program))
    run_child("paddle2onnx", {"program": str(given), "output": str(made), "custom_ops": dict(ops.CUSTOM_OPS)})
    model = ops.lower(onnx.load(made))
    names = dict(zip((*tensors.inputs, *tensors.outputs), (*INPUTS[card.task], *OUTPUTS[card.task]), strict=True))
    _rename(model.graph, names)
    graph = model.graph
    graph.name = card.name
    del graph.value_info[:]  # of the sizes the program was saved with
    for value in [*graph.input, *graph.output]:
        if value.name in DIMS:
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, _dims(value)))
    model.producer_name, model.producer_version = "landmark-onnx", importlib.metadata.version("landmark-onnx")
    model.doc_string = card.summary
    return model


def _dims(value: onnx.ValueInfoProto) -> list[str | int]:
    """Symbolic dimensions, with the numbers that the converter knows for those that no image changes."""
    known = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    fixed = ("dimension", "class", "delta")
    named = DIMS[value.name]
    return [number if name in fixed and number > 0 else name for name, number in zip(named, known, strict=True)]


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors; whatever bears one of the new names already makes room."""
    taken = {name: f"{name}.paddle" for name in names.values() if names.get(name) != name}
    renames = taken | names
    for value in [*graph.input, *graph.output]:
        value.name = renames.get(value.name, value.name)
    for node in graph.node:
        for field in (node.input, node.output):
            for position, name in enumerate(field):
                field[position] = renames.get(name, name)


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """The files of a model under work. data: the weights beside it, with their digest, or None if they are inside."""

    model: Path
    data: Path | None = None
    data_sha256: str = ""


def _write(model: onnx.ModelProto, source: Source, path: Path) -> Written:
    """Turn the weights' inputs into initializers straight from the source, and write the file.

    Raises: ExportError if the graph wants a weight that the source has not, or the checker refuses the result.
    """
    graph = model.graph
    weights = [value.name for value in graph.input if value.name not in DIMS]
    inputs = [value for value in graph.input if value.name in DIMS]
    del graph.input[:]
    graph.input.extend(inputs)
    variables = [source.variables[name] for name in sorted(weights)]
    data = None
    digest = ""
    if sum(variable.nbytes for variable in variables) > INLINE_LIMIT:
        data = path.with_name(path.name + ".data")
        with data.open("wb") as file:
            digest = _write_external(graph, variables, file)
        # The digest in its name lets an old model keep its own weights until the new one is in place.
        data = data.rename(path.with_name(f"{path.stem}-{digest[:12]}.onnx.data"))
        for tensor in graph.initializer:
            next(entry for entry in tensor.external_data if entry.key == "location").value = data.name
    else:
        graph.initializer.extend(_inline(variable) for variable in variables)
    path.write_bytes(model.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(str(path), full_check=False)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{source.path}: the converted graph is not valid ONNX: {error}") from error
    return Written(path, data, digest)


def _inline(variable: Variable) -> TensorProto:
    tensor = _tensor(variable)
    tensor.raw_data = variable.read().tobytes()
    return tensor


def _write_external(graph: onnx.GraphProto, variables: list[Variable], file: BinaryIO) -> str:
    """Stream the weights into `file`, refer to them from `graph`; the file's SHA-256."""
    for variable in variables:
        offset = -(-file.tell() // ALIGNMENT) * ALIGNMENT
        file.write(bytes(offset - file.tell()))
        variable.copy_data(file)
        tensor = _tensor(variable)
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": file.name, "offset": str(offset), "length": str(variable.nbytes)}
        tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=entries[key]) for key in entries)
        graph.initializer.append(tensor)
    file.flush()
    os.fsync(file.fileno())
    with Path(file.name).open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()


def _tensor(variable: Variable) -> TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(variable.dtype)
    return TensorProto(name=variable.name, data_type=kind, dims=variable.shape)


def _metadata(card: ModelCard, source: Source, written: Written, measured: parity.Parity | None) -> dict[str, Any]:
    """What the file says of itself: see `landmark_onnx.seal`."""
    metadata: dict[str, Any] = {
        "card": card.to_dict(),
        "source": {"name": source.path.name, "kind": source.kind, "sha256": source.sha256},
        "tools": {tool: version for tool in TOOLS for version in _version(tool)},
    }
    if card.source.labels and (text := source.read_text(card.source.labels)) is not None:
        metadata["labels"] = {str(index): name for index, name in parse_labels(text, card.source.labels).items()}
    if measured:
        metadata |= {"parity": measured.to_json(), "probe": measured.probe.to_json()}
    if written.data:
        metadata["data"] = {"file": written.data.name, "sha256": written.data_sha256}
    return metadata


def _version(package: str) -> Iterator[str]:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        yield importlib.metadata.version(package)


def _publish(written: Written, output: Path) -> None:
    """Move the files into place, the weights first: until the model itself is there, the old one stays whole."""
    if written.data:
        publish(written.data, output.with_name(written.data.name))
    publish(written.model, output)
