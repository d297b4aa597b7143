"""The exporter, as whoever pulls a model reaches it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import EXPORTERS, MissingExtraError


def export_release(card: ModelCard, release: Path, output: Path, on_stage: Callable[[str], None]) -> None:
    """Export a release that the store has. Raises: MissingExtraError that says where it is, ExportError."""
    missing = [name for name in EXPORTERS if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"{card.name}: its release is at {release}; {missing[0]}, which exports it,", "export")
    from landmark_onnx_export.convert import export_model

    export_model(card, release, output, say=on_stage)
