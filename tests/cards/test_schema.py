import copy
import dataclasses
import json
import tomllib
from importlib import resources

import pytest

from landmark_onnx.cards import catalogue as module
from landmark_onnx.cards.catalogue import PACKAGE, card, cards, original_cards, read_card, shipped_cards
from landmark_onnx.cards.schema import ModelCard, Postprocess, Preprocess
from landmark_onnx.errors import CardError, UnknownModelError
from landmark_onnx.tasks import INPUTS, OUTPUTS

# ORIGINAL of each released model: task, input size, public and private mAP@100.
RELEASED = {
    "res152_arcmargin": ("retrieval", 448, 0.2676, 0.3020),
    "res152_arcmargin_index": ("retrieval", 448, 0.2476, 0.2707),
    "res152_npairs": ("retrieval", 448, 0.2597, 0.2870),
    "res200_arcmargin": ("retrieval", 448, 0.2670, 0.3042),
    "se_x152_arcmargin": ("retrieval", 448, 0.2670, 0.2914),
    "inceptionv4_arcmargin": ("retrieval", 555, 0.2685, 0.2933),
    "res152_softmax_v1": ("cls", 224, None, None),
    "res152_softmax_v2": ("cls", 224, None, None),
    "res50_oid_v4_detector": ("det", 800, None, None),
}
FULL = {
    "name": "mine",
    "task": "retrieval",
    "summary": "a model of mine",
    "licence": "MIT",
    "licence_url": "https://example.org/licence",
    "notice": "Copyright",
    "training_data": "photos",
    "source": {"network": "program", "url": "https://example.org/mine.tar", "bytes": 9, "sha256": "ab"}
    | {"data_url": "d", "data_sha256": "cd", "labels": "names.txt", "labels_url": "l", "labels_sha256": "ef"},
    "preprocess": {
        "resize": "short_side_floor",
        "size": 300,
        "width": 0,
        "interpolation": "cubic",
        "antialias": True,
        "rounding": "floor",
        "multiple": 16,
        "min_side": 16,
        "max_ratio": 4.0,
        "max_side": 0,
        "crop": 16,
        "offset": "ceil",
        "pad": [],
        "pad_place": "corner",
        "colour": "bgr",
        "mean": [0.5, 0.5, 0.5],
        "std": [1.0, 2.0, 3.0],
    },
    "postprocess": {
        "pool": "mean",
        "dimension": 7,
        "normalise": True,
        "softmax": True,
        "decoder": "rois",
        "score": 0.3,
        "iou": 0.4,
        "keep": 7,
        "variances": [1.0, 1.0, 2.0, 2.0],
    },
    "golden": {"url": "https://example.org/a.png", "sha256": "12", "first": [0.25, -0.5], "tolerance": 0.01},
    "proved": "2026-11-26",
    "scores": {"public_map100": 0.1, "recall": 90.0},
    "protocols": {"recall": "ten photos"},
    "inputs": {"image": "pixels"},
    "outputs": {"embedding": "features"},
}
SMALL = {
    "name": "mine",
    "task": "cls",
    "summary": "",
    "source": {"network": "program"},
    "preprocess": {"resize": "exact", "size": 64, "interpolation": "area"},
}


def changed(table, path, value):
    """A copy of `table` with one value set, or taken away where the value is `del`."""
    table = copy.deepcopy(table)
    *folders, key = path.split(".")
    target = table
    for folder in folders:
        target = target.setdefault(folder, {})
    if value is del_:
        del target[key]
    else:
        target[key] = value
    return table


del_ = object()


def test_the_original_cards_are_the_released_models():
    found = {
        name: (each.task, each.preprocess.size, each.scores.get("public_map100"), each.scores.get("private_map100"))
        for name, each in original_cards().items()
    }
    assert found == RELEASED
    assert list(original_cards()) == sorted(RELEASED)


@pytest.mark.parametrize("name", RELEASED)
def test_a_shipped_card_says_where_its_release_is(name):
    assert card(name).source.url == f"https://landmark.gz.bcebos.com/{name}.tar"
    assert card(name).summary
    assert card(name).licence != "not stated"


@pytest.mark.parametrize("name", RELEASED)
def test_a_card_survives_json(name):
    text = json.dumps(card(name).to_dict())
    assert "null" not in text
    assert ModelCard.from_dict(json.loads(text), "json") == card(name)


@pytest.mark.parametrize("name", RELEASED)
def test_a_shipped_file_is_read_as_a_users_is(name, tmp_path):
    path = tmp_path / "any name.toml"
    path.write_text(resources.files(PACKAGE).joinpath(f"{name}.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert read_card(path) == card(name)


def test_every_key_is_read():
    read = ModelCard.from_dict(FULL, "here")
    assert read.to_dict() == {
        **FULL,
        "preprocess": FULL["preprocess"] | {"mean": (0.5, 0.5, 0.5), "std": (1.0, 2.0, 3.0), "pad": ()},
        "postprocess": FULL["postprocess"] | {"variances": (1.0, 1.0, 2.0, 2.0)},
        "golden": FULL["golden"] | {"first": (0.25, -0.5)},
    }
    for rule in (Preprocess, Postprocess):
        fields = {field.name for field in dataclasses.fields(rule)}
        assert fields == set(FULL[rule.__name__.lower()]), "a new key of a card needs a value in this test"
    assert read.input_names() == ("pixels",)
    assert read.output_names() == ("features",)


@pytest.mark.parametrize("name", RELEASED)
def test_tensor_names_are_ours_unless_a_card_says_otherwise(name):
    assert card(name).input_names() == INPUTS[card(name).task]
    assert card(name).output_names() == OUTPUTS[card(name).task]


def test_whole_numbers_serve_as_floats():
    read = ModelCard.from_dict(changed(SMALL, "preprocess.std", [1, 2, 3]), "here")
    assert read.preprocess.std == (1.0, 2.0, 3.0)
    assert all(type(value) is float for value in read.preprocess.std)


def test_a_card_may_be_a_key_of_a_cache():
    assert hash(card("res152_arcmargin").preprocess) == hash(card("res152_npairs").preprocess)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", del_, "the key 'name' is missing"),
        ("preprocess", del_, "the key 'preprocess' is missing"),
        ("preprocess.size", del_, "preprocess: the key 'size' is missing"),
        ("nme", "x", "unknown key 'nme'; there are: name, task"),
        ("preprocess.sise", 3, "preprocess: unknown key 'sise'; there are: resize, size"),
        ("name", "a b", "name: wanted letters, digits"),
        ("name", "../a", "name: wanted letters, digits"),
        ("name", "é", "name: wanted letters, digits"),
        ("name", "", "name: wanted letters, digits"),
        ("name", 3, "name: wanted str, got 3"),
        ("task", "segmentation", "task: wanted one of 'retrieval', 'cls', 'det', got 'segmentation'"),
        ("source", "program", "source: wanted a table, got 'program'"),
        ("preprocess.resize", "stretch", "preprocess: resize: wanted one of"),
        ("preprocess.size", 64.0, "preprocess: size: wanted int, got 64.0"),
        ("preprocess.size", True, "preprocess: size: wanted int, got True"),
        ("preprocess.size", 0, "preprocess: size: wanted 1 to 16384, got 0"),
        ("preprocess.size", 20000, "preprocess: size: wanted 1 to 16384"),
        ("preprocess.multiple", 0, "preprocess: multiple: wanted 1 to 4096"),
        ("preprocess.min_side", 0, "preprocess: min_side: wanted 1 to 4096"),
        ("preprocess.crop", 65, "preprocess: crop: wanted at most the shortest side"),
        ("preprocess.crop", -1, "preprocess: crop: wanted 0 to 16384, got -1"),
        ("preprocess.std", [1.0, 0.0, 1.0], "preprocess: std 2: wanted 1e-06 to 1000000, got 0.0"),
        ("preprocess.mean", [1.0, 0.0], "preprocess: mean: wanted 3 for colour 'rgb', got 2"),
        ("preprocess.mean", 0.5, "preprocess: mean: wanted a list"),
        ("preprocess.mean", ["a", 0, 0], "preprocess: mean 1: wanted float, got 'a'"),
        ("preprocess.colour", "gray", "preprocess: mean: wanted 1 for colour 'gray', got 3"),
        ("preprocess.pad", [0, 0, 0], "preprocess: pad: wanted for letterbox alone"),
        ("postprocess.decoder", "rows", "postprocess: decoder: wanted for task det alone"),
        ("postprocess.decoder", "yolo", "postprocess: decoder: wanted one of 'rois', 'boxes', 'rows', 'detr'"),
        ("postprocess.pool", "cls", "postprocess: pool, dimension: wanted for task retrieval alone"),
        ("postprocess.dimension", 5, "postprocess: pool, dimension: wanted for task retrieval alone"),
        ("preprocess.max_ratio", 0.5, "preprocess: max_ratio: wanted 0 or 1 and more"),
        ("preprocess.max_side", 100, "preprocess: max_side: wanted at least size for this resize"),
        ("preprocess.resize", "short_side_capped", "preprocess: max_side: wanted at least size"),
        ("task", "det", "preprocess: resize: wanted short_side_capped for the decoder rois of task det"),
        ("postprocess.score", 1.5, "postprocess: score: wanted 0 to 1, got 1.5"),
        ("postprocess.iou", float("nan"), "postprocess: iou: wanted a finite number, got nan"),
        ("postprocess.keep", 0, "postprocess: keep: wanted 1 to 1000000, got 0"),
        ("scores.map50", "good", "scores: map50: wanted float, got 'good'"),
        ("inputs", ["image"], "inputs: wanted a table"),
        ("inputs", {"picture": "x"}, "inputs: wanted keys among image"),
        ("inputs", {"image": 3}, "inputs: image: wanted str, got 3"),
        ("preprocess.max_ratio", float("inf"), "preprocess: max_ratio: wanted a finite number, got inf"),
        pytest.param("preprocess.max_ratio", 10**400, "preprocess: max_ratio: wanted float, got 1", id="400"),
        ("preprocess.mean", [0, float("-inf"), 0], "preprocess: mean 2: wanted a finite number, got -inf"),
        ("preprocess.mean", [0, 0, 1e30], "preprocess: mean 3: wanted -1000000 to 1000000, got 1e+30"),
        ("preprocess.std", [1e-300, 1, 1], "preprocess: std 1: wanted 1e-06 to 1000000, got 1e-300"),
        ("postprocess.variances", [1, 1, 1, float("nan")], "postprocess: variances: wanted a finite number, got nan"),
        ("scores.map50", float("inf"), "scores: map50: wanted a finite number, got inf"),
        pytest.param(
            "scores.map50", 10**5000, "scores: map50: wanted float, got a number of thousands of digits", id="5000"
        ),
        ("source.bytes", -1, "source: bytes: wanted 0 to 9007199254740992, got -1"),
        ("source.data_url", "https://example.org/x", "source: data_sha256: wanted with data_url"),
        ("source.labels_url", "https://example.org/x", "source: labels_sha256: wanted with labels_url"),
        ("golden.url", "https://example.org/x", "golden: sha256: wanted with url"),
        ("golden.first", [0.5, "x"], "golden: first 2: wanted float, got 'x'"),
        ("protocols", {"recall": "x"}, "protocols: wanted names of scores"),
        ("outputs", {"embedding": "x"}, "outputs: wanted keys among probability"),
    ],
)
def test_a_wrong_card_names_its_origin_and_key(path, value, message):
    with pytest.raises(CardError) as caught:
        ModelCard.from_dict(changed(SMALL, path, value), "mine.toml")
    assert str(caught.value).startswith(f"mine.toml: {message}")


def test_tensors_of_detectors_follow_from_the_decoder():
    table = changed(SMALL, "task", "det")
    rows = ModelCard.from_dict(
        table | {"postprocess": {"decoder": "rows"}, "inputs": {"image": "x", "scale_factor": "s"}}, "mine.toml"
    )
    assert (rows.input_names(), rows.output_names()) == (("x", "s"), ("rows",))
    detr = ModelCard.from_dict(table | {"postprocess": {"decoder": "detr"}, "outputs": {"boxes": "b"}}, "mine.toml")
    assert (detr.input_names(), detr.output_names()) == (("image",), ("logits", "b"))
    with pytest.raises(CardError, match="outputs: wanted keys among logits, boxes"):
        ModelCard.from_dict(table | {"postprocess": {"decoder": "detr"}, "outputs": {"rois": "b"}}, "mine.toml")
    with pytest.raises(CardError, match="inputs: wanted keys among image, im_shape, scale_factor"):
        ModelCard.from_dict(table | {"postprocess": {"decoder": "boxes"}, "inputs": {"im_info": "b"}}, "mine.toml")


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ({"resize": "letterbox", "pad": [1, 2]}, "pad: wanted 3 for colour 'rgb', got 2"),
        ({"resize": "letterbox", "pad": [1, 2, 256]}, "pad 3: wanted 0 to 255, got 256"),
        ({"resize": "letterbox", "crop": 8}, "crop: wanted none with letterbox"),
        ({"resize": "short_side_floor", "width": 8}, "width: wanted for exact and letterbox alone"),
        ({"colour": "gray", "mean": [0.5], "std": [0.5, 0.5]}, "std: wanted 1 for colour 'gray', got 2"),
    ],
)
def test_keys_that_do_not_go_together(preprocess, message):
    with pytest.raises(CardError) as caught:
        ModelCard.from_dict(SMALL | {"preprocess": SMALL["preprocess"] | preprocess}, "mine.toml")
    assert str(caught.value) == f"mine.toml: preprocess: {message}"


@pytest.mark.parametrize(
    ("preprocess", "good"),
    [
        ({"size": 230, "multiple": 32, "crop": 224}, True),
        ({"size": 230, "multiple": 32, "crop": 225}, False),
        ({"size": 224, "crop": 224}, True),
        ({"size": 224, "crop": 224, "max_ratio": 3.0}, False),  # a long image comes out smaller than the crop
        ({"size": 224, "crop": 32, "min_side": 32, "max_ratio": 3.0}, True),
    ],
)
def test_a_crop_must_fit_into_every_image(preprocess, good):
    table = changed(SMALL, "preprocess", {"resize": "short_side_floor", "interpolation": "area"} | preprocess)
    if good:
        assert ModelCard.from_dict(table, "mine.toml").preprocess.crop == preprocess["crop"]
        return
    with pytest.raises(CardError, match="crop: wanted at most the shortest side that the resize leaves"):
        ModelCard.from_dict(table, "mine.toml")


def test_a_card_that_is_no_table():
    with pytest.raises(CardError, match="here: wanted a table, got 3"):
        ModelCard.from_dict(3, "here")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"name = 'a'\nname = 'b'"])
def test_a_file_that_is_no_toml(content, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(CardError, match=r"bad\.toml: "):
        read_card(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CardError, match=r"none\.toml"):
        read_card(tmp_path / "none.toml")


def test_an_unknown_name_lists_the_names():
    with pytest.raises(UnknownModelError, match=r"no model is called 'res'; there are: .*inceptionv4_arcmargin, .*"):
        card("res")


def test_a_shipped_card_bears_its_files_name(tmp_path, monkeypatch):
    text = resources.files(PACKAGE).joinpath("res152_npairs.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["name"] == "res152_npairs"
    (tmp_path / "other.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(module.resources, "files", lambda _: tmp_path)
    with pytest.raises(CardError, match=r"other\.toml: name: the card is called 'res152_npairs'"):
        original_cards.__wrapped__()


def test_ready_cards_say_whose_they_are_and_where():
    ready = {name: each for name, each in shipped_cards().items() if name not in original_cards()}
    assert ready
    for name, each in ready.items():
        assert each.source.url
        assert each.source.sha256 or name == "pp_shitu_v2_det", "of that one, nobody here knows it"
        assert each.licence_url
        assert each.notice
        assert each.training_data
        assert set(each.scores) == set(each.protocols), each.name


def test_cards_cannot_be_changed():
    with pytest.raises(TypeError):
        cards()["mine"] = card("res152_npairs")
    with pytest.raises(dataclasses.FrozenInstanceError):
        card("res152_npairs").name = "other"
