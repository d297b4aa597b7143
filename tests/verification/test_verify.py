import copy
import hashlib
import json
import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import fakes
from landmark_onnx.cards.catalogue import card
from landmark_onnx.errors import CardError, ModelFileError, SessionError
from landmark_onnx.modelfile.metadata import check_seal, read_metadata
from landmark_onnx.runtime.providers import CPU, ProviderRequest
from landmark_onnx.store.catalogue import exported_path
from landmark_onnx.verification.verify import Probe, probe_rule, reduce_outputs, verify

MAKE = {fakes.RETRIEVAL: fakes.make_retrieval, fakes.CLS: fakes.make_cls, fakes.DET: fakes.make_det}


@pytest.fixture(params=MAKE)
def name(request):
    return request.param


@pytest.fixture
def model(name, tmp_path):
    return MAKE[name](tmp_path / "model.onnx")


def seal_again(path, *, change=None, **metadata):
    """Change the network, the metadata or both, and seal the file again; a value of None takes a key away."""
    kept = {key: value for key, value in (read_metadata(path) | metadata).items() if value is not None}
    proto = fakes.unsealed(path)
    if change:
        change(proto)
    onnx.save(proto, path)
    fakes.write_sealed(path, kept)
    check_seal(path)


def change_weights(proto):
    """Every weight a little, as another checkpoint's."""
    rng = np.random.default_rng(5)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(
                numpy_helper.from_array(values * rng.normal(1, 0.2, values.shape).astype(np.float32), tensor.name)
            )


def test_a_sound_file(name, model):
    found = verify(model, ProviderRequest(name="cpu"), threads=1)
    assert found.path == model
    assert found.card.name == name
    assert found.sha256 == check_seal(model).sha256
    assert found.provider == CPU
    assert found.agreement.shortfall(found.card.task) is None
    shown = json.loads(json.dumps(found.to_json()))
    assert shown["model"] == name
    assert shown["path"] == str(model)
    assert shown["agreement"]["matched"] == 1.0


def test_a_name_of_the_store():
    fakes.make_cls(exported_path(fakes.CLS))
    assert verify(fakes.CLS).path == exported_path(fakes.CLS)


def test_other_weights_under_a_good_seal_fail_by_the_probe(name, model):
    seal_again(model, change=change_weights)
    with pytest.raises(
        ModelFileError, match=r"model\.onnx: on CPUExecutionProvider it does not answer as Paddle did: "
    ):
        verify(model)


def test_other_preprocessing_under_a_good_seal_fails_by_the_probe(name, model):
    changed = read_metadata(model)["card"]
    changed["preprocess"] |= {"colour": "bgr", "mean": [0.1, 0.2, 0.9]}
    seal_again(model, card=changed)
    with pytest.raises(ModelFileError, match="it does not answer as Paddle did"):
        verify(model)


def test_a_seal_that_is_broken_comes_first(model):
    content = bytearray(model.read_bytes())
    content[len(content) // 3] ^= 1
    model.write_bytes(bytes(content))
    with pytest.raises(ModelFileError, match=r"model\.onnx: damaged: wanted sha256"):
        verify(model)


def test_a_file_of_others(model, tmp_path):
    onnx.save(fakes.unsealed(model), model)
    with pytest.raises(ModelFileError, match="no seal at its end"):
        verify(model)
    with pytest.raises(ModelFileError, match="no such file"):
        verify(tmp_path / "none.onnx")


def test_an_export_without_parity_has_nothing_to_verify(model):
    seal_again(model, probe=None)
    with pytest.raises(ModelFileError, match="exported without the parity check"):
        verify(model)


def add_a_column(probe):
    probe["columns"].append(10**6)


def drop_an_output(probe):
    probe["expected"].popitem()


def rename_outputs(probe):
    probe["expected"] = {f"{key}s": each for key, each in probe["expected"].items()}


def flatten(probe):
    for each in probe["expected"].values():
        each["shape"] = [math.prod(each["shape"])]


@pytest.mark.parametrize("change", [add_a_column, drop_an_output, rename_outputs, flatten])
def test_a_probe_of_another_model_is_refused(model, change):
    probe = read_metadata(model)["probe"]
    change(probe)
    seal_again(model, probe=probe)
    with pytest.raises(ModelFileError, match=r"model\.onnx: its probe does not fit the model: (columns|expected): "):
        verify(model)


@pytest.mark.parametrize("probe", [[], 3, "x", {"image": {}}])
def test_a_probe_of_another_type_is_refused(model, probe):
    seal_again(model, probe=probe)
    with pytest.raises(ModelFileError, match=r"model\.onnx: its probe is damaged: "):
        verify(model)


def test_a_file_without_a_card(model):
    seal_again(model, card=None)
    with pytest.raises(CardError, match=r"model\.onnx: card: the key 'name' is missing"):
        verify(model)


def test_a_provider_that_does_not_run(model):
    with pytest.raises(SessionError, match="CUDAExecutionProvider is not part of the installed ONNX Runtime"):
        verify(model, ProviderRequest(name="cuda"))


@pytest.fixture
def large(tmp_path):
    """A model whose weights are in a file beside it."""
    path = fakes.make_retrieval(tmp_path / "large.onnx")
    metadata, proto = read_metadata(path), fakes.unsealed(path)
    weights = b"".join(numpy_helper.to_array(tensor).tobytes() for tensor in proto.graph.initializer)
    digest = hashlib.sha256(weights).hexdigest()
    data = tmp_path / f"large-{digest[:12]}.onnx.data"
    onnx.save(proto, path, save_as_external_data=True, location=data.name, size_threshold=0)
    assert data.read_bytes() == weights
    fakes.write_sealed(path, metadata | {"data": {"file": data.name, "sha256": digest}})
    return path, data


def test_weights_beside_the_model(large):
    assert verify(large[0]).card.name == fakes.RETRIEVAL


def test_weights_beside_the_model_that_changed(large):
    path, data = large
    content = bytearray(data.read_bytes())
    content[0] ^= 1  # too little for the probe to see
    data.write_bytes(bytes(content))
    with pytest.raises(ModelFileError, match=r"large-\w+\.onnx\.data: damaged: wanted sha256 [0-9a-f]{64}, got"):
        verify(path)


def test_weights_beside_the_model_that_are_gone(large):
    path, data = large
    data.unlink()
    with pytest.raises(ModelFileError, match=r"\.onnx\.data: No such file or directory; large\.onnx keeps its weights"):
        verify(path)


def random_probe():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    outputs = {
        "rois": rng.normal(size=(6, 4)).astype(np.float32),
        "probability": rng.random((6, 100)).astype(np.float32),
        "deltas": rng.normal(size=(6, 400)).astype(np.float32),
    }
    return image, outputs, Probe.ask(image, outputs, keep=10)


def test_a_probe_survives_json_to_the_bit():
    image, outputs, probe = random_probe()
    back = Probe.from_json(json.loads(json.dumps(probe.to_json())), "x")
    np.testing.assert_array_equal(back.image, image)
    assert back.image.dtype == np.uint8
    assert back.columns == probe.columns
    assert set(back.expected) == {"rois", "probability"}, "deltas are left out"
    for key, values in reduce_outputs(outputs, back.columns).items():
        np.testing.assert_array_equal(back.expected[key], values)
        assert back.expected[key].dtype == np.float32


def test_a_probe_keeps_the_classes_that_are_most_probable_for_some_roi():
    _, outputs, probe = random_probe()
    best = np.argsort(-outputs["probability"].max(axis=0))[:10]
    assert probe.columns == tuple(sorted(best.tolist()))
    np.testing.assert_array_equal(probe.expected["probability"], outputs["probability"][:, sorted(best)])


def test_a_probe_of_an_embedding_and_of_no_rois():
    vector = np.ones((1, 8), np.float32)
    assert Probe.ask(fakes.photo(), {"embedding": vector}).columns == ()
    nothing = {"rois": np.zeros((0, 4), np.float32), "probability": np.zeros((0, 5), np.float32)}
    back = Probe.from_json(Probe.ask(fakes.photo(), nothing).to_json(), "x")
    assert back.expected["rois"].shape == (0, 4)
    assert back.expected["probability"].shape == (0, 5)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("image"),
        lambda data: data.pop("columns"),
        lambda data: data.pop("expected"),
        lambda data: data["image"].update(shape=[5, 7, 4]),
        lambda data: data["image"].update(data="!!!"),
        lambda data: data["image"].update(data="QQ"),
        lambda data: data["image"].update(data=None),
        lambda data: data.update(columns=["a"]),
        lambda data: data.update(columns=None),
        lambda data: data.update(expected=[]),
        lambda data: data["expected"].update(rois=3),
        lambda data: data["expected"]["rois"].update(shape="many"),
        lambda data: data["expected"]["rois"].update(shape=[-1, 4]),
        lambda data: data["expected"]["rois"].update(shape=[1 << 62, 1 << 62]),
        lambda data: data.update(columns=[-1]),
        lambda data: data.update(columns=[1 << 70]),
        lambda data: data["image"].update(shape=[0, 0, 3], data=""),
        lambda data: data.update(data=3),
    ],
)
def test_a_damaged_probe_is_named(damage):
    data = copy.deepcopy(random_probe()[2].to_json())
    damage(data)
    with pytest.raises(ModelFileError, match=r"^x: its probe is damaged: "):
        Probe.from_json(data, "x")


def test_a_detectors_probe_is_small():
    rule = probe_rule(card(fakes.DET))
    assert 16 <= rule.size <= 200
    assert rule.max_side / rule.size == pytest.approx(1333 / 800, rel=0.02)
    for other in (fakes.RETRIEVAL, fakes.CLS):
        assert probe_rule(card(other)) is card(other).preprocess
