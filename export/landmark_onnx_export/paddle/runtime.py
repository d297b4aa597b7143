"""Paddle, imported quietly and in the mode that still speaks ProgramDesc."""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.errors import MissingExtraError
from landmark_onnx.extras import extra
from landmark_onnx.types import Array

ENVIRONMENT: Mapping[str, str] = {"FLAGS_enable_pir_api": "0", "GLOG_minloglevel": "2"}
"""Paddle 3 builds another IR than ProgramDesc unless told otherwise before it is imported."""

PIR_SUFFIX = ".json"
"""Paddle Inference and paddle2onnx know a program of Paddle 3 by it."""


def paddle_folder() -> Path:
    """Where the paddle package is, which is not imported. Raises: MissingExtraError if it is not installed."""
    spec = importlib.util.find_spec("paddle")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("paddlepaddle", "export")
    return Path(spec.submodule_search_locations[0])


def paddle_module() -> Any:
    """The paddle module. Raises: MissingExtraError if it is not installed."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with extra("export", what="paddlepaddle"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a missing ccache, which only its own C++ extensions would use
        return importlib.import_module("paddle")


def inference_config(program: str, params: str, threads: int) -> Any:
    """Paddle Inference's configuration for the CPU; what else it may do is for the caller to say.

    Raises: MissingExtraError if Paddle is not installed.
    """
    config = paddle_module().inference.Config(program, params)
    config.disable_gpu()
    config.disable_glog_info()
    if not program.endswith(PIR_SUFFIX):  # Paddle has no such pass for PIR, and says so with an error
        config.enable_memory_optim()
    config.set_cpu_math_library_num_threads(threads)
    return config


def predict(predictor: Any, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    """What a predictor of Paddle Inference answers; all by the program's own names."""
    for name, values in inputs.items():
        predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(values))
    predictor.run()
    return [predictor.get_output_handle(name).copy_to_cpu() for name in outputs]
