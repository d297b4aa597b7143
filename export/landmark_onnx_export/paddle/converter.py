"""paddle2onnx: which of its two lines is here, and its compiled module.

Version 1 takes ProgramDesc with ops under names of our own. Version 2 takes PIR alone: it has Paddle translate a
ProgramDesc, and that refuses our names and the ops of 2019, which lack attributes. They cannot be installed together.
"""

import importlib.machinery
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from landmark_onnx.errors import ExportError, MissingExtraError
from landmark_onnx_export.paddle.runtime import paddle_module
from landmark_onnx_export.releases.source import Kind

_NAME = "paddle2onnx"
_KINDS: Mapping[Kind, str] = {
    "train": "variables without a program",
    "binary": "a program of Paddle's older format (ProgramDesc)",
    "pir": "a program of Paddle 3 (PIR)",
}


def check_converter(path: Path, kind: Kind) -> None:
    """Raises: MissingExtraError without paddle2onnx; ExportError naming `path` and the extra if this cannot do it."""
    extra = "export-pir" if kind == "pir" else "export"
    try:
        version = importlib.metadata.version(_NAME)
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError(_NAME, extra) from None
    if _takes_pir(version) != (kind == "pir"):
        raise ExportError(
            f"{path}: {_KINDS[kind]}, which {_NAME} {version} cannot convert; export it in an environment of its own: "
            f"python3 -m venv DIR, then DIR/bin/pip install 'landmark-onnx[cpu,{extra}]'"
        )


def converter_module() -> ModuleType:
    """The compiled module, without its Python wrapper. Raises: MissingExtraError."""
    found = importlib.util.find_spec(_NAME)
    for folder in (found.submodule_search_locations or []) if found else []:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(folder, "paddle2onnx_cpp2py_export" + suffix)
            if path.is_file():
                if _takes_pir(importlib.metadata.version(_NAME)):
                    paddle_module()  # brings the library that it links to
                spec = importlib.util.spec_from_file_location(f"{_NAME}.paddle2onnx_cpp2py_export", path)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    raise MissingExtraError(_NAME, "export")


def _takes_pir(version: str) -> bool:
    return int(version.partition(".")[0]) >= 2
