"""A program and its variables as Paddle's binary model."""

from collections.abc import Mapping
from pathlib import Path

from landmark_onnx.errors import ExportError
from landmark_onnx_export.paddle.variables import Variable, parse_program, persistable_names


def write_binary_model(program: bytes, variables: Mapping[str, Variable], folder: Path) -> tuple[Path, Path]:
    """Write `model` and `params` into `folder`, the weights in chunks; returns both paths."""
    model, params = folder / "model", folder / "params"
    names = persistable_names(parse_program(program))
    if missing := [name for name in names if name not in variables]:
        raise ExportError(f"the program wants the variable {missing[0]}, which is missing")
    model.write_bytes(program)
    with params.open("wb") as out:
        for name in names:
            variables[name].copy_stream(out)
    return model, params
