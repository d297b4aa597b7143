"""What errors say."""

import sys

import pytest

from landmark_onnx.doctor import environment as installation
from landmark_onnx.errors import ExportError, MissingExtraError


@pytest.mark.parametrize("extra", ["export", "demo"])
def test_where_the_exporter_cannot_be_installed_no_command_pretends_that_it_can(monkeypatch, extra):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    text = str(MissingExtraError("paddle2onnx", extra))
    assert "pip install" not in text
    assert "no release for Python 3.13 and newer: export with Python 3.11 or 3.12" in text
    assert "landmark-onnx bundle" in text


@pytest.mark.parametrize("version", [(3, 11, 9), (3, 12, 1)])
def test_where_it_can_the_command_is_named(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", (*version, "final", 0))
    text = str(MissingExtraError("paddle2onnx", "export", "demo"))
    assert text == "paddle2onnx is not installed; run: pip install 'landmark-onnx[export]' (or with extra demo)"


def test_other_extras_are_for_every_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    assert "pip install 'landmark-onnx[search]'" in str(MissingExtraError("faiss", "search"))


def test_the_doctor_says_where_export_is_not_to_be_had(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    assert "no release for Python 3.13" in installation.export_tools().text
    monkeypatch.setattr(sys, "version_info", (3, 12, 0, "final", 0))
    assert "3.13" not in installation.export_tools().text


def test_an_error_on_a_release_is_one_line_whatever_its_names_are():
    assert (
        str(ExportError("a.tar: wanted the parameters of x\n\x1b[2J")) == r"a.tar: wanted the parameters of x\n\x1b[2J"
    )
