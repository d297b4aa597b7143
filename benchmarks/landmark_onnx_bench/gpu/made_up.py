"""Networks of the released size with random weights, for a machine that has none of the real ones."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from landmark_onnx.cards.catalogue import card
from landmark_onnx.errors import ExportError
from landmark_onnx.extras import extra
from landmark_onnx.files.child_process import last_line
from landmark_onnx.precision import precision_file
from landmark_onnx_bench.sample_photos import write_photos

WIDTH = 1.0
"""Of the networks, as released."""

CLASSES = 1000
CALIBRATION = 16
"""Photos that fp16 is judged by."""


def made_up_models(names: Sequence[str], folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Have each network's fp32 and fp16 file in `folder`; what is there stays.

    Raises: UnknownModelError; MissingExtraError without the exporter; ExportError if a network cannot be made.
    """
    return [_made_up(name, folder, say) for name in names]


def _made_up(name: str, folder: Path, say: Callable[[str], None]) -> Path:
    facts = card(name)
    path = folder / f"{name}.onnx"
    if not path.is_file():
        with extra("export", what="the exporter, which makes networks up,"):
            from landmark_onnx_export.convert import ExportForm, export_model
            from landmark_onnx_export.networks.build import NETWORKS
            from landmark_onnx_export.synthetic.release import write_release
        if facts.source.network not in NETWORKS and facts.postprocess.decoder != "rois":
            raise ExportError(f"{name}: only the networks of Paddle's releases can be made up")
        say(f"{name}: making the network up")
        release = write_release(facts, folder / "releases", width=WIDTH, classes=CLASSES)
        export_model(facts, release, path, ExportForm(), check_parity=False)
    half = precision_file(path, "fp16")
    if not half.is_file():
        photos = folder / "photos"
        write_photos(photos, CALIBRATION, 533, 800)
        command = [sys.executable, "-P", "-m", "landmark_onnx", "quantize", str(path)]
        command += ["--precision", "fp16", "--calibrate", str(photos)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not half.is_file():
            say(f"{name}: no fp16: {last_line(done.stderr)}")
    return path
