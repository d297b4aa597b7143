"""A model of the user's own: a Paddle network trained elsewhere."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("paddle")

import fakes
from landmark_onnx.cards.catalogue import CARDS_VARIABLE, card, read_card
from landmark_onnx.cards.schema import ModelCard, Preprocess
from landmark_onnx.hub.add import add
from landmark_onnx.hub.pull import pull
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.model import Retriever
from landmark_onnx.verification.verify import verify
from landmark_onnx_export.convert import ExportForm, export_model
from landmark_onnx_export.parity import seeded_image
from landmark_onnx_export.synthetic.release import write_release
from stand_ins import PROGRAM, paddle_release

pytestmark = pytest.mark.paddle

SHOPS = """
name = "shops"
task = "retrieval"
summary = "ResNet50_vd, fine-tuned on shop fronts"

[source]
network = "resnet50_vd"

[preprocess]
resize = "exact"
size = 192
width = 256
interpolation = "area"
colour = "bgr"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]

[postprocess]
normalise = true
"""


@pytest.fixture
def own_cards(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(folder))
    return folder


def write_card(folder: Path, text: str) -> ModelCard:
    path = folder / f"{text.split(chr(34))[1]}.toml"
    path.write_text(text)
    return read_card(path)


def test_a_paddle_model_with_its_own_card(own_cards, tmp_path):
    facts = write_card(own_cards, SHOPS)
    assert card("shops") == facts
    add(write_release(facts, tmp_path, embedding=128))
    pull("shops", offline=True)
    image = seeded_image(300, 200, seed=3)
    result = Retriever("shops")(image)
    assert result.vector.shape == (128,)
    assert np.linalg.norm(result.vector) == pytest.approx(1, abs=1e-5)
    assert verify("shops").card == facts
    # The preprocessing by hand: BGR, both sides forced, its own mean and std.
    resized = cv2.resize(image, (256, 192), interpolation=cv2.INTER_AREA)
    wanted = ((resized.astype(np.float32) / 255 - 0.5) / 0.25).transpose(2, 0, 1)
    np.testing.assert_allclose(preprocess(facts.preprocess, image)["image"][0], wanted, rtol=0, atol=1e-5)


def test_a_gray_network(tmp_path):
    """One channel, in the file's own words too: floats, and bytes that it normalises."""
    program = PROGRAM.replace("[-1, 3, 224, 224]", "[-1, 1, 224, 224]").replace("Conv2D(3,", "Conv2D(1,")
    (tmp_path / "gray.tar").write_bytes(paddle_release(program))
    rule = Preprocess(resize="exact", size=224, interpolation="linear", colour="gray", mean=(0.5,), std=(0.5,))
    facts = ModelCard(name="gray", task="retrieval", summary="", preprocess=rule)
    answers = []
    for kind in ("float32", "uint8"):
        made = tmp_path / f"{kind}.onnx"
        export_model(facts, tmp_path / "gray.tar", made, ExportForm(input_kind=kind))
        answers.append(Retriever(made)(fakes.photo()).vector)
    np.testing.assert_allclose(*answers, rtol=0, atol=1e-5)
