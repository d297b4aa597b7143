"""A program and its variables as Paddle loads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from landmark_onnx.errors import ExportError
from landmark_onnx_export.paddle.pir import parse_pir
from landmark_onnx_export.paddle.runtime import PIR_SUFFIX
from landmark_onnx_export.paddle.variables import Variable, parse_program, persistable_names


def write_binary_model(program: bytes, variables: Mapping[str, Variable], folder: Path) -> tuple[Path, Path]:
    """Write `model` and `params` into `folder`, the weights in chunks; returns both paths."""
    return _write((folder / "model", folder / "params"), program, persistable_names(parse_program(program)), variables)


def write_pir_model(program: bytes, variables: Mapping[str, Variable], folder: Path) -> tuple[Path, Path]:
    """Write `inference.json` and `inference.pdiparams` into `folder`, the weights in chunks; returns both paths."""
    paths = folder / f"inference{PIR_SUFFIX}", folder / "inference.pdiparams"
    return _write(paths, program, sorted(parse_pir(program).parameters), variables)


def _write(
    paths: tuple[Path, Path], program: bytes, names: Sequence[str], variables: Mapping[str, Variable]
) -> tuple[Path, Path]:
    model, params = paths
    if missing := [name for name in names if name not in variables]:
        raise ExportError(f"the program wants the variable {missing[0]}, which is missing")
    model.write_bytes(program)
    with params.open("wb") as out:
        for name in names:
            variables[name].copy_stream(out)
    return paths
