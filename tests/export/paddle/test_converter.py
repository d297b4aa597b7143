"""Which of paddle2onnx's two lines is here, and what whoever needs the other is told."""

import importlib.metadata
from pathlib import Path

import pytest

from landmark_onnx.errors import ExportError, MissingExtraError

converter = pytest.importorskip("landmark_onnx_export.paddle.converter")
EXTRAS = {"train": "export", "binary": "export", "pir": "export-pir"}


@pytest.mark.parametrize("version", ["1.3.1", "2.1.0", "10.0"])
@pytest.mark.parametrize("kind", EXTRAS)
def test_what_is_here_cannot_convert_is_refused_with_what_can(kind, version, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    if (version == "1.3.1") == (kind != "pir"):
        converter.check_converter(Path("x.tar"), kind)
        return
    words = (
        rf"x\.tar: .*which paddle2onnx {version} cannot convert.* of its own: .*'landmark-onnx\[cpu,{EXTRAS[kind]}\]'"
    )
    with pytest.raises(ExportError, match=words):
        converter.check_converter(Path("x.tar"), kind)


@pytest.mark.parametrize("kind", EXTRAS)
def test_without_any_the_fitting_extra_is_named(kind, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr("landmark_onnx.errors.can_export", lambda: True)
    with pytest.raises(MissingExtraError, match=rf"pip install 'landmark-onnx\[{EXTRAS[kind]}\]'"):
        converter.check_converter(Path("x.tar"), kind)
