"""The exporter, as a pull reaches it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import EXPORTERS, MissingExtraError


def export_release(
    card: ModelCard, release: Path, output: Path, on_stage: Callable[[str], None], beside: Path | None = None
) -> None:
    """Export a release that the store has. beside: a folder in which its labels may be.

    Raises: MissingExtraError that says where the release is, ExportError.
    """
    missing = [name for name in EXPORTERS if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"{card.name}: its release is at {release}; {missing[0]}, which exports it,", "export")
    from landmark_onnx_export.convert import export_model

    export_model(card, release, output, beside=beside, on_stage=on_stage)
