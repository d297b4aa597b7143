"""Each ready card of a retrieval model, from its address to a page of results, by the command line alone.

The weights are stand-ins of the same tensors on a server of the test's; of a card, only the name and what follows from
the bytes (hashes, size, golden values) are others.
"""

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import onnxruntime
import pyarrow.parquet
import pytest

import fakes
from landmark_onnx.cards.catalogue import CARDS_VARIABLE, original_cards, shipped_cards
from landmark_onnx.cards.schema import Golden, ModelCard
from landmark_onnx.deploy.bundle import card_toml
from landmark_onnx.hub.addresses import MIRROR_VARIABLE, OFFLINE_VARIABLE, addresses
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.images.decode import read_image
from landmark_onnx.inference.preprocess import preprocess
from servers import serving
from stand_ins import DETECTOR, Tensors, paddle_release, queries_file

STAND_INS = {
    "dinov2_small": Tensors(
        image="pixel_values", side=224, patch=14, free=True, outputs={"last_hidden_state": (257, 384)}
    ),
    "megaloc": Tensors(image="images", side=322, patch=14, outputs={"descriptor": (8448,)}),
    "siglip2_base_224": Tensors(
        image="pixel_values",
        side=224,
        patch=16,
        outputs={"last_hidden_state": (196, 768), "pooler_output": (768,)},
    ),
}
PADDLE = "pp_shitu_v2_rec"
CARDS = {
    name: card
    for name, card in shipped_cards().items()
    if name not in original_cards() and card.task == "retrieval" and card.source.url.startswith(("hf:", "https:"))
}
NAME = "mine"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """A copy of a shipped card, called `NAME`, whose address leads to a server of ours. data: what is there."""

    shipped: ModelCard
    card: ModelCard
    data: bytes
    folder: Path

    def write(self, **source: object) -> None:
        """Make the card one of the user's. source: what it says otherwise of its source."""
        changed = dataclasses.replace(self.card, source=dataclasses.replace(self.card.source, **source))
        (self.folder / "cards" / f"{NAME}.toml").write_text(card_toml(changed), encoding="utf-8")


def of_all(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.paddle if name == PADDLE else ())


@pytest.fixture(params=map(of_all, CARDS))
def hosted(request, tmp_path, monkeypatch) -> Iterator[Hosted]:
    card = CARDS[request.param]
    for name in (OFFLINE_VARIABLE, "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))
    for folder in ("cards", "photos"):
        (tmp_path / folder).mkdir()
    for number in range(6):
        write_image(tmp_path / "photos" / f"{number}.png", fakes.photo(300 + 20 * number, 400, seed=number))
    data = STAND_INS[card.name].file() if card.name != PADDLE else paddle_release()
    photo = (tmp_path / "photos" / "0.png").read_bytes()
    golden = dataclasses.replace(card.golden, sha256=hashlib.sha256(photo).hexdigest()) if card.golden.url else Golden()
    source = dataclasses.replace(card.source, sha256=hashlib.sha256(data).hexdigest())
    source = dataclasses.replace(source, bytes=len(data) if source.bytes else 0)
    copy = dataclasses.replace(card, name=NAME, source=source, golden=dataclasses.replace(golden, first=()))
    with serving(b"") as server:
        server.files = {path_of(card.source.url): data}
        if card.golden.url:
            server.files[path_of(card.golden.url)] = photo
        monkeypatch.setenv("HF_ENDPOINT", server.url("").rstrip("/"))
        monkeypatch.setenv(MIRROR_VARIABLE, server.url("mirror"))
        made = Hosted(shipped=card, card=copy, data=data, folder=tmp_path)
        made.write()
        yield made


def path_of(url: str) -> str:
    """Where our server has the file of an address: as the hub that it is asked to be, or as a mirror."""
    path = urlsplit(addresses(url)[-1].url).path
    return path if url.startswith("hf:") else f"/mirror{path}"


def succeeds(run, *arguments):
    done = run(*arguments)
    assert done.code == 0, done.err
    return done


def test_from_its_address_to_a_page_of_results(hosted, run):
    succeeds(run, "models", "pull", NAME)
    (found,) = [each for each in succeeds(run, "models", "list", "--json").json if each["model"] == NAME]
    assert (found["state"], found["licence"]) == ("exported", hosted.card.licence)
    succeeds(run, "embed", "photos", "-m", NAME, "-o", "features")
    succeeds(run, "index", "build", "features", "-o", "places")
    answer = succeeds(run, "search", "photos/3.png", "--index", "places", "--html", "page.html").lines[0]
    assert answer["neighbours"][0]["id"] == "3.png"
    assert answer["neighbours"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert answer["neighbours"][1]["score"] < 0.9999
    assert "3.png" in Path("page.html").read_text(encoding="utf-8")
    succeeds(run, "models", "verify", NAME)
    succeeds(run, "bundle", NAME, "-o", "bundle")
    text = Path("bundle/LICENCES.txt").read_text(encoding="utf-8")
    for fact in ("licence", "licence_url", "notice", "training_data"):
        assert (stated := getattr(hosted.card, fact).strip())
        assert stated in text


@pytest.mark.parametrize("hosted", STAND_INS, indirect=True)
def test_its_values_are_those_that_the_card_points_at(hosted, run):
    """The output of that name, the token that is the image's, of unit length where the card wants that."""
    succeeds(run, "models", "pull", NAME)
    succeeds(run, "embed", "photos", "-m", NAME, "-o", "features")
    table = pyarrow.parquet.read_table("features/part-00000.parquet")
    session = onnxruntime.InferenceSession(hosted.data)
    (given,) = session.get_inputs()
    for name, vector in zip(table["id"].to_pylist(), table[NAME].to_pylist(), strict=True):
        image = preprocess(hosted.card.preprocess, read_image(Path("photos") / name))["image"]
        (answer,) = session.run(list(hosted.card.output_names()), {given.name: image})
        row = answer[0, 0] if answer.ndim == 3 else answer[0]
        wanted = row / np.linalg.norm(row) if hosted.card.postprocess.normalise else row
        np.testing.assert_allclose(vector, wanted, rtol=0, atol=1e-4)


def test_values_are_printed_for_a_card_that_has_none(hosted, run):
    line = succeeds(run, "models", "verify", NAME, "--golden").out
    assert re.search(r"first = \[(-?\d+\.\d{6}(, )?){8}\]", line)
    assert hosted.card.golden.url in line


def test_another_file_is_refused_with_both_hashes(hosted, run):
    declared, got = hosted.shipped.source.sha256, hosted.card.source.sha256
    hosted.write(sha256=declared)
    done = run("models", "pull", NAME)
    assert done.code == 1
    assert f"wanted sha256 {declared}, as its card declares, got {got}" in done.err
    assert "Traceback" not in done.err
    assert not list((hosted.folder / "store").rglob("*.onnx"))


def test_a_file_of_another_size_is_refused(hosted, run):
    hosted.write(bytes=len(hosted.data) + 1)
    done = run("models", "pull", NAME)
    assert done.code == 1
    assert str(len(hosted.data) + 1) in done.err
    assert str(len(hosted.data)) in done.err


@contextlib.contextmanager
def pulled(card, data, folder, monkeypatch, run):
    """A detector of a card's in the store, from its address, in a folder with a photo."""
    source = dataclasses.replace(card.source, sha256=hashlib.sha256(data).hexdigest())
    source = dataclasses.replace(source, bytes=len(data) if source.bytes else 0)
    monkeypatch.chdir(folder)
    monkeypatch.setenv(CARDS_VARIABLE, str(folder))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv(OFFLINE_VARIABLE, raising=False)
    Path(f"{NAME}.toml").write_text(card_toml(dataclasses.replace(card, name=NAME, source=source)), encoding="utf-8")
    write_image(folder / "photo.png", fakes.photo(300, 400))
    with serving(b"") as server:
        server.files = {path_of(card.source.url): data}
        monkeypatch.setenv("HF_ENDPOINT", server.url("").rstrip("/"))
        monkeypatch.setenv(MIRROR_VARIABLE, server.url("mirror"))
        succeeds(run, "models", "pull", NAME)
    yield
    succeeds(run, "models", "verify", NAME)
    succeeds(run, "bundle", NAME, "-o", "bundle")


def test_the_detector_names_what_it_finds(tmp_path, monkeypatch, run):
    with pulled(shipped_cards()["dfine_s_coco"], queries_file(), tmp_path, monkeypatch, run):
        (found,) = succeeds(run, "det", "-m", NAME, "photo.png", "--format", "json").json
        (box,) = found["detections"]
        assert (box["category_id"], box["name"]) == (16, "dog")
        assert box["score"] == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-2)


@pytest.mark.paddle
def test_a_detector_of_paddles_puts_its_boxes_on_the_photo(tmp_path, monkeypatch, run):
    with pulled(shipped_cards()["pp_shitu_v2_det"], paddle_release(DETECTOR), tmp_path, monkeypatch, run):
        (found,) = succeeds(run, "det", "-m", NAME, "photo.png", "--format", "json").json
        boxes = np.array([each["bbox"] for each in found["detections"]])
        assert 0 < len(boxes) <= 5
        assert (boxes >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= (400.01, 300.01)).all()
        assert boxes[:, 0].max() > 200, "of the photo, not of a square of 640"


def test_a_card_has_what_a_user_must_know():
    assert set(CARDS) == {*STAND_INS, PADDLE}
    for card in CARDS.values():
        assert re.fullmatch(r"[0-9a-f]{64}", card.source.sha256)
        assert card.postprocess.dimension
        assert not card.proved, "nobody here has seen the file"
        assert set(card.scores) == set(card.protocols)
        assert all((card.licence_url, card.notice, card.training_data))
