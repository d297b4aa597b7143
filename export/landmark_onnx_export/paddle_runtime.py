"""Paddle, imported quietly and in the mode that still speaks ProgramDesc."""

import importlib
import os
import warnings
from collections.abc import Mapping
from typing import Any

from landmark_onnx.errors import MissingExtraError

ENVIRONMENT: Mapping[str, str] = {"FLAGS_enable_pir_api": "0", "GLOG_minloglevel": "2"}
"""Paddle 3 builds another IR than ProgramDesc unless told otherwise before it is imported."""


def paddle_module() -> Any:
    """The paddle module. Raises: MissingExtraError if it is not installed."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a missing ccache, which only its own C++ extensions would use
            return importlib.import_module("paddle")
    except ImportError as error:
        raise MissingExtraError("paddlepaddle", "export") from error
