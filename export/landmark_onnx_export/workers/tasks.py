"""What child processes do: infer shapes, convert with paddle2onnx, optimise, answer with Paddle and ONNX Runtime."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ExportError, reason_of
from landmark_onnx.runtime.onnxruntime_backend import FATAL
from landmark_onnx.runtime.providers import CPU, ProviderRequest, onnxruntime
from landmark_onnx.runtime.session import Session
from landmark_onnx_export.paddle.converter import converter_module
from landmark_onnx_export.paddle.edits import op_types
from landmark_onnx_export.paddle.runtime import PIR_SUFFIX, inference_config, paddle_module, predict

OPSET = 17
THREADS = 2
"""Fixed, because a sum's order follows from it, and the same source must give the same file."""


def infer_shapes(program: str) -> None:
    """Let Paddle infer every shape of the program file again. Raises: ExportError if an op needs a fixed image size."""
    path = Path(program)
    paddle = paddle_module()
    paddle.enable_static()
    graph = paddle.static.Program.parse_from_string(path.read_bytes())
    block = graph.global_block()
    for op in block.ops:
        if op.type not in ("feed", "fetch"):
            try:
                op.desc.infer_shape(block.desc)
            except Exception as error:  # Paddle's errors have no public base class
                raise ExportError(f"op {op.type} cannot take any image size: {_reason(error)}") from error
    path.write_bytes(graph.desc.serialize_to_string())


def convert(program: str, output: str, custom_ops: dict[str, str]) -> None:
    """Convert the program file into an ONNX file without weights; `custom_ops` become nodes of domain Paddle.

    Raises: ExportError that says what paddle2onnx said, or lists every op nobody knows; of PIR it does not tell them.
    """
    converter = converter_module()
    if not program.endswith(PIR_SUFFIX):
        known = {*converter.get_all_supported_operators(), *custom_ops}
        if unknown := sorted(op_types(Path(program).read_bytes()) - known):
            raise ExportError(f"no ONNX form is known of the Paddle ops: {', '.join(unknown)}")
    # The module takes them by position alone; these are its wrapper's names.
    arguments = {
        "model_filename": program,
        "params_filename": "",
        "opset_version": OPSET,
        "auto_upgrade_opset": True,
        "verbose": False,
        "enable_onnx_checker": False,
        "enable_experimental_op": True,
        "enable_optimize": True,
        "custom_op_info": custom_ops,
        "deploy_backend": "onnxruntime",
        "calibration_file": "",
        "external_file": "",
        "export_fp16_model": False,
    }
    try:
        data = converter.export(*arguments.values())
    except Exception as error:  # Paddle's errors have no public base class
        raise ExportError(f"paddle2onnx: {reason_of(error)}") from error
    if not data:
        raise ExportError("paddle2onnx returned nothing")
    Path(output).write_bytes(data)


def _reason(error: Exception) -> str:
    """The last line that says what kind of error it is, else the last of all: Paddle's errors begin with stacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error: " in line), lines[-1] if lines else repr(error))


def run_paddle(program: str, params: str, inputs: list[str], outputs: list[str], runs: list[str]) -> None:
    """Answer each run's `<run>.<input>.npy` files with Paddle Inference, into `<run>.paddle.<output>.npy`.

    inputs, outputs: the program's names in the order of ours. Raises: ExportError with Paddle's reason.
    """
    config = inference_config(program, params, THREADS)
    # The original ran the program as it is; fused ops add in another order.
    config.switch_ir_optim(False)
    # oneDNN keeps weights in a layout of its own for each input shape; the original ran on the plain kernels, too.
    config.disable_mkldnn()
    try:
        predictor = paddle_module().inference.create_predictor(config)
        for run in runs:
            given = {name: np.load(f"{run}.{position}.npy") for position, name in enumerate(inputs)}
            for position, values in enumerate(predict(predictor, given, outputs)):
                np.save(f"{run}.paddle.{position}.npy", values)
    except Exception as error:  # Paddle's errors have no public base class
        raise ExportError(f"Paddle cannot run the program: {_reason(error)}") from error


def optimise(model: str, output: str, data: str) -> None:
    """Write the model as ONNX Runtime's basic level leaves it, larger weights into the file `data` beside it."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = output
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", data)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    try:
        ort.InferenceSession(model, options, providers=[CPU])
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        raise ExportError(f"ONNX Runtime cannot optimise the graph: {reason_of(error)}") from error


def run_onnx(model: str, card: dict[str, Any], runs: list[str]) -> None:
    """Answer the same runs with ONNX Runtime on the CPU, into `<run>.onnx.<output>.npy`."""
    facts = ModelCard.from_dict(card, model)
    session = Session(Path(model), ProviderRequest(name="cpu"), threads=THREADS)
    session.bind(facts, own=True)
    for run in runs:
        feeds = {name: np.load(f"{run}.{position}.npy") for position, name in enumerate(facts.input_keys())}
        for position, values in enumerate(session.run(feeds).values()):
            np.save(f"{run}.onnx.{position}.npy", values)


STEPS: Mapping[str, Callable[..., None]] = {
    "shapes": infer_shapes,
    "paddle2onnx": convert,
    "paddle": run_paddle,
    "optimise": optimise,
    "onnxruntime": run_onnx,
}
