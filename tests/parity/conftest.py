"""Small releases of our own, each made and exported once."""

from pathlib import Path

import pytest

from landmark_onnx.cards.catalogue import card
from landmark_onnx.cards.schema import ModelCard


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """Name of a card -> its tar with narrow random weights."""
    pytest.importorskip("paddle")
    from landmark_onnx_export.synthetic.release import write_release

    folder = tmp_path_factory.mktemp("releases")

    def make(name: str) -> Path:
        path = folder / f"{name}.tar"
        return path if path.exists() else write_release(card(name), folder)

    return make


@pytest.fixture(scope="session")
def exported(release, tmp_path_factory):
    """Name of a card -> its narrow release, exported with parity."""
    from landmark_onnx_export.convert import ExportReport, export_model

    folder = tmp_path_factory.mktemp("exported")
    reports: dict[str, ExportReport] = {}

    def export(name: str) -> ExportReport:
        if name not in reports:
            reports[name] = export_model(card(name), release(name), folder / f"{name}.onnx")
        return reports[name]

    return export


@pytest.fixture
def export_quietly(tmp_path):
    """(card, source) -> the file exported without parity."""
    from landmark_onnx_export.convert import export_model

    def export(model_card: ModelCard, source: Path, name: str = "model") -> Path:
        return export_model(model_card, source, tmp_path / "quiet" / f"{name}.onnx", check_parity=False).path

    return export
