"""A model as Triton Inference Server wants it: `NAME/1/model.onnx` and `NAME/config.pbtxt`.

Triton runs the network alone: clients send what `landmark_onnx.inference.preprocess` makes, by the card in the
configuration.
Sources: Triton's model_config.proto; its onnxruntime_backend, onnxruntime.cc and onnxruntime_utils.cc (CompareDims).
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from landmark_onnx.cards.geometry import fixed_sides
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError
from landmark_onnx.runtime.backend import Port
from landmark_onnx.runtime.inputs import ImageInput
from landmark_onnx.runtime.session import signature

MODEL_FILE = "model.onnx"
LABELS_FILE = "labels.txt"
MAX_CLASSES = 1_000_000
CARD_PARAMETER = "landmark_onnx.card"

DATA_TYPES: Mapping[str, str] = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "float64": "TYPE_FP64",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
}
"""NumPy's name of a type -> Triton's."""

_HEURISTIC = "1"
"""Of cudnn_conv_algo_search, as in `landmark_onnx.runtime.providers`. The newer way to say this, an execution
accelerator, is overruled by the default, exhaustive search as soon as a configuration has any parameter."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How Triton runs a model. kind: of the instances. count: instances a device. max_batch: images of one batch."""

    kind: Literal["cpu", "gpu"] = "cpu"
    count: int = 1
    max_batch: int = 8


@dataclasses.dataclass(frozen=True, slots=True)
class TritonTensor:
    """An input or output. shape: -1 where any size will do."""

    name: str
    data_type: str
    shape: tuple[int, ...]


class Word(str):
    """Text without quotes: a protobuf enum's value."""

    __slots__ = ()


def configuration(card: ModelCard, model: Path, labels: Mapping[int, str], serving: Serving, *, name: str = "") -> str:
    """The text of config.pbtxt. name: what Triton calls the model, if not as its card does.

    Raises: ModelFileError if Triton cannot serve the file's tensors.
    """
    inputs, outputs = _tensors(model, card)
    batched = card.task != "det" and all(tensor.shape[0] == -1 for tensor in (*inputs, *outputs))
    if card.task == "det":
        # One image has one im_info, and the rois of several could not be told apart.
        inputs = [dataclasses.replace(tensor, shape=(1, *tensor.shape[1:])) for tensor in inputs]
    described = [_described(tensor, batched=batched) for tensor in outputs]
    if labels and card.task == "cls":
        described[0]["label_filename"] = LABELS_FILE
    message: dict[str, Any] = {
        "name": name or card.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "default_model_filename": MODEL_FILE,
        "max_batch_size": serving.max_batch if batched else 0,
        "input": [_described(tensor, batched=batched) for tensor in inputs],
        "output": described,
        "instance_group": [{"count": serving.count, "kind": Word(f"KIND_{serving.kind.upper()}")}],
        "parameters": _parameters(card, serving, varying=-1 in inputs[0].shape[1:]),
    }
    if batched:
        # Triton puts requests of equal shapes alone into a batch, unless allow_ragged_batch says otherwise.
        message["dynamic_batching"] = {}
    return "".join(f"{line}\n" for line in _lines(message))


def label_lines(labels: Mapping[int, str]) -> str:
    """One name a line, from class 0 on; a class without a name has its number."""
    names = (labels.get(index, str(index)) for index in range(min(max(labels) + 1, MAX_CLASSES)))
    return "".join(f"{' '.join(name.split())}\n" for name in names)


def _tensors(model: Path, card: ModelCard) -> tuple[list[TritonTensor], list[TritonTensor]]:
    """The file's inputs and outputs that the card names, the image first."""
    given, wanted = signature(model)
    image, *others = (_tensor(model, name, given) for name in card.input_names())
    last = ImageInput.of(card, given, own=True, origin=str(model)).channels_last
    return [_narrowed(card, image, 1 if last else 2), *others], [
        _tensor(model, name, wanted) for name in card.output_names()
    ]


def _tensor(model: Path, name: str, ports: Mapping[str, Port]) -> TritonTensor:
    if name not in ports:
        raise ModelFileError(f"{model}: wanted a tensor called {name}, got {', '.join(ports)}")
    port = ports[name]
    if port.kind not in DATA_TYPES or len(port.shape) < 2:
        raise ModelFileError(f"{model}: {name}: {port.kind} of shape {port.shape} is not for Triton")
    return TritonTensor(name, DATA_TYPES[port.kind], tuple(-1 if side is None else side for side in port.shape))


def _narrowed(card: ModelCard, image: TritonTensor, first: int) -> TritonTensor:
    """The image, with the sides that the card's preprocessing always makes; `first` is the axis of the height."""
    sides = fixed_sides(card.preprocess) or (-1, -1)
    known = dict(zip(range(first, first + 2), sides, strict=True))
    shape = tuple(known.get(axis, -1) if side == -1 else side for axis, side in enumerate(image.shape))
    return dataclasses.replace(image, shape=shape)


def _described(tensor: TritonTensor, *, batched: bool) -> dict[str, Any]:
    """A ModelInput or ModelOutput; the batch's own dimension is implied."""
    dims = tensor.shape[1:] if batched else tensor.shape
    return {"name": tensor.name, "data_type": Word(tensor.data_type), "dims": list(dims)}


def _parameters(card: ModelCard, serving: Serving, *, varying: bool) -> list[dict[str, Any]]:
    values = {CARD_PARAMETER: json.dumps(card.to_dict(), sort_keys=True)}
    if varying:
        values["enable_mem_pattern"] = "0"  # as in `landmark_onnx.runtime.session`
        if serving.kind == "gpu":
            values["cudnn_conv_algo_search"] = _HEURISTIC
    return [{"key": key, "value": {"string_value": value}} for key, value in values.items()]


def _lines(message: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Protobuf's text format. A list is a repeated field; a map is a list of key and value."""
    for name, value in message.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(each, f"{indent}  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {each if isinstance(each, int | Word) else _quoted(each)}"


def _quoted(text: str) -> str:
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else _escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return "".join(f"\\{byte:03o}" for byte in character.encode())
