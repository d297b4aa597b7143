"""Paddle, imported quietly and in the mode that still speaks ProgramDesc."""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landmark_onnx.errors import MissingExtraError
from landmark_onnx.extras import extra

ENVIRONMENT: Mapping[str, str] = {"FLAGS_enable_pir_api": "0", "GLOG_minloglevel": "2"}
"""Paddle 3 builds another IR than ProgramDesc unless told otherwise before it is imported."""


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
