"""Each network at the width it was released with, random weights: export, parity, memory."""

import json
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("paddle")

from landmark_onnx.cards.catalogue import original_cards

pytestmark = [pytest.mark.paddle, pytest.mark.slow]

EXPORT = """
import json, resource, sys
from pathlib import Path
from landmark_onnx.cards.catalogue import card
from landmark_onnx_bench.environment import peak_bytes
from landmark_onnx_export.convert import export_model
name, source, output = sys.argv[1:]
report = export_model(card(name), Path(source), Path(output))
# Children run one after the other, so this bounds what the whole tree ever had.
peak = peak_bytes() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"seconds": report.seconds, "peak": peak, "agreement": report.agreement.to_json()}))
"""

VERIFY = """
import sys
from landmark_onnx.verification.verify import verify
verify(sys.argv[1])
"""

RELEASE = """
import sys
from pathlib import Path
from landmark_onnx.cards.catalogue import card
from landmark_onnx_export.synthetic.release import write_release
name, folder, classes = sys.argv[1:]
write_release(card(name), Path(folder), width=1, classes=int(classes))
"""


def run(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=900).stdout


def export(name, folder, classes=1000):
    """Figures of an export at full width; the model stays in `folder`, the release does not."""
    run(RELEASE, name, folder, classes)
    source = folder / f"{name}.tar"
    size = source.stat().st_size
    figures = json.loads(run(EXPORT, name, source, folder / f"{name}.onnx").splitlines()[-1])
    source.unlink()
    figures |= {"size": size}
    sys.stderr.write(f"{name}, {classes} classes: {figures}\n")
    return figures


@pytest.mark.parametrize("name", {card.source.network: name for name, card in original_cards().items()}.values())
def test_full_width(name, tmp_path):
    figures = export(name, tmp_path)
    assert figures["peak"] < 6e9
    run(VERIFY, tmp_path / f"{name}.onnx")
    shutil.rmtree(tmp_path)


def test_every_landmark_as_a_class(tmp_path):
    """More classes than Google Landmarks v2 has, so that the model is over 2 GB."""
    name = "res152_softmax_v2"
    figures = export(name, tmp_path, classes=250_000)
    assert figures["peak"] < 3 * figures["size"]
    assert any(path.suffix == ".data" for path in tmp_path.iterdir())
    run(VERIFY, tmp_path / f"{name}.onnx")
    shutil.rmtree(tmp_path)
