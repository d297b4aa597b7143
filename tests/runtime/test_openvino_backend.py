import dataclasses
import json
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest

import fakes
from landmark_onnx.cards.catalogue import CARDS_VARIABLE
from landmark_onnx.deploy.bundle import card_toml
from landmark_onnx.errors import ModelFileError, SessionError
from landmark_onnx.model import Detector
from landmark_onnx.modelfile.metadata import append_metadata
from landmark_onnx.runtime import compiled_cache as machine_cache
from landmark_onnx.runtime import openvino_backend as openvino_runtime
from landmark_onnx.runtime.compiled_cache import MANIFEST, CacheEntry, folder_of
from landmark_onnx.runtime.cpu import cpu_model
from landmark_onnx.runtime.openvino_backend import BF16_FEATURES, BLOB, properties
from landmark_onnx.runtime.openvino_bf16 import spared
from landmark_onnx.runtime.providers import OPENVINO_PACKAGE, ProviderRequest, openvino
from landmark_onnx.runtime.session import Session

pytest.importorskip("openvino")

OPENVINO = ProviderRequest(name="openvino")
CPU = ProviderRequest(name="cpu")
CARD = fakes.small_card(fakes.RETRIEVAL)


@pytest.fixture
def model(tmp_path):
    return fakes.make_retrieval(tmp_path / "model.onnx", dim=64)


def image(count=2, side=32):
    return {"image": np.random.default_rng(0).normal(size=(count, 3, side, side)).astype(np.float32)}


def test_it_answers_as_onnx_runtime_does_and_knows_the_files_strings(model):
    session, other = Session(model, OPENVINO, threads=1), Session(model, CPU)
    session.bind(CARD)
    assert (session.provider, session.providers, session.lost) == (OPENVINO_PACKAGE, (OPENVINO_PACKAGE,), None)
    for count, side in [(2, 32), (1, 48), (3, 32)]:
        feeds = image(count, side)
        got, wanted = fakes.ask(session, CARD, feeds)["embedding"], fakes.ask(other, CARD, feeds)["embedding"]
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)
    ours = {key: text for key, text in other.metadata.items() if not key.endswith(".seal")}
    assert session.metadata == ours
    assert session.largest_batch(7) == 7


def test_an_answer_stays_as_it_was_after_the_next_run(model):
    session = Session(model, OPENVINO, threads=1)
    first = fakes.ask(session, CARD, image())["embedding"]
    before = first.copy()
    fakes.ask(session, CARD, {"image": image()["image"] + 1})
    np.testing.assert_array_equal(first, before)


def test_a_detector(tmp_path):
    path = fakes.make_det(tmp_path / "det.onnx")
    got, wanted = (Detector(path, provider=request)(fakes.photo()) for request in (OPENVINO, CPU))
    np.testing.assert_allclose(got.boxes, wanted.boxes, rtol=0, atol=1e-3)
    assert fakes.bound(Session(path, OPENVINO), fakes.small_card(fakes.DET)).largest_batch(4) == 1


@pytest.mark.parametrize("array", [np.zeros((1, 4, 32, 32), np.float32), np.zeros((1, 3, 32, 32), np.float64)])
def test_what_the_model_does_not_take(array, model):
    with pytest.raises(SessionError, match=r"model\.onnx: OpenVINO cannot run image \(1, "):
        fakes.ask(Session(model, OPENVINO), CARD, {"image": array})


def test_a_damaged_file(model, tmp_path, capfd):
    for name, data in {"empty": b"", "text": b"node { name: \x1b[31m }", "head": model.read_bytes()[:40]}.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(ModelFileError, match=rf"{name}\.onnx: not a usable ONNX model: ") as caught:
            Session(path, OPENVINO)
        assert str(caught.value).isprintable()
        with pytest.raises(ModelFileError, match=rf"{name}\.onnx: not a usable ONNX model: "):
            openvino_runtime.signature(openvino(), path)
    assert capfd.readouterr() == ("", ""), "readers of other formats write what they find"
    proto = fakes.unsealed(model)
    proto.graph.node[0].op_type = "NoSuchOp"
    onnx.save(proto, tmp_path / "unknown.onnx")
    with pytest.raises((ModelFileError, SessionError), match=r"unknown\.onnx: "):
        Session(tmp_path / "unknown.onnx", OPENVINO)


def test_a_device_or_an_option_that_is_not_there(model):
    with pytest.raises(SessionError, match=r"OpenVINO has no device GPU\.7 here; there are: CPU"):
        Session(model, dataclasses.replace(OPENVINO, device_id=7))
    with pytest.raises(SessionError, match=r"OpenVINO has no device XPU here"):
        Session(model, dataclasses.replace(OPENVINO, options={"device_type": "XPU"}))
    with pytest.raises(SessionError, match=r"model\.onnx: OpenVINO cannot start on CPU: .*NO_SUCH_PROPERTY"):
        Session(model, dataclasses.replace(OPENVINO, options={"NO_SUCH_PROPERTY": "1"}))


def test_a_device_made_of_devices(model):
    session = Session(model, dataclasses.replace(OPENVINO, options={"device_type": "AUTO:CPU"}), machine_cache=False)
    assert fakes.ask(session, CARD, image())["embedding"].shape == (2, 64)


def test_properties(monkeypatch):
    capable = ("FP32", "FP16", "BF16")
    hint, all_of = "INFERENCE_PRECISION_HINT", dataclasses.replace
    assert properties(OPENVINO, "CPU", capable, 0) == {hint: "f32", "PERFORMANCE_HINT": "LATENCY"}
    assert properties(OPENVINO, "CPU", capable, 3)["INFERENCE_NUM_THREADS"] == "3"
    assert properties(all_of(OPENVINO, precision="int8"), "CPU", capable, 0)[hint] == "f32"
    assert properties(all_of(OPENVINO, precision="fp16"), "GPU", capable, 0)[hint] == "f16"
    assert properties(all_of(OPENVINO, precision="fp16"), "CPU", ("FP32",), 0)[hint] == "f32"
    given = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "2", "device_type": "CPU"}
    assert properties(all_of(OPENVINO, options=given), "CPU", capable, 0) == {
        hint: "f32",
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": "2",
    }


@pytest.mark.parametrize(
    ("device", "capable", "features", "runs"),
    [
        ("CPU", ("FP32", "BF16"), {"avx512_bf16"}, True),
        ("CPU", ("FP32", "BF16"), {"amx_bf16", "avx2"}, True),
        ("CPU", ("FP32", "BF16"), {"avx512f"}, False),
        ("CPU", ("FP32",), {"avx512_bf16"}, False),
        ("CPU", ("FP32", "BF16"), set(), True),
        ("GPU", ("FP32", "BF16"), {"avx2"}, True),
        ("GPU", ("FP32",), {"avx512_bf16"}, False),
    ],
)
def test_bf16_where_the_device_has_it(device, capable, features, runs, monkeypatch):
    monkeypatch.setattr(openvino_runtime, "cpu_model", lambda: ("CPU", frozenset(features)))
    request = dataclasses.replace(OPENVINO, precision="bf16")
    if runs:
        assert properties(request, device, capable, 0)["INFERENCE_PRECISION_HINT"] == "bf16"
    else:
        with pytest.raises(SessionError, match=f"{device} has no bf16 here"):
            properties(request, device, capable, 0)


# Its blobs in the machine cache.


@pytest.fixture
def cached(model, monkeypatch):
    monkeypatch.setattr(machine_cache, "LEAST_BYTES", 0)
    monkeypatch.setattr(machine_cache, "SPARE", 0)
    made = []
    build = CacheEntry._build
    monkeypatch.setattr(CacheEntry, "_build", lambda self, write: made.append(self.path) or build(self, write))
    return made


def answer(path, request=OPENVINO):
    return fakes.ask(Session(path, request, threads=1), CARD, image())["embedding"]


def test_a_second_load_takes_the_blob(model, cached):
    wanted = answer(model)
    np.testing.assert_array_equal(answer(model), wanted)
    assert len(cached) == 1
    (blob,) = [path for path in cached[0].iterdir() if path.name != MANIFEST]
    times = blob.stat().st_mtime_ns
    answer(model)
    assert blob.stat().st_mtime_ns == times, "OpenVINO would write it again if it could not use it"
    assert Session(model, OPENVINO, threads=1).note == ""


def test_a_broken_blob_is_made_again(model, cached):
    wanted = answer(model)
    (blob,) = [path for path in cached[0].iterdir() if path.name != MANIFEST]
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(data)
    np.testing.assert_array_equal(answer(model), wanted)
    assert len(cached) == 2


def test_options_have_blobs_of_their_own_and_the_users_folder_is_left_to_openvino(model, cached, tmp_path):
    answer(model)
    answer(model, dataclasses.replace(OPENVINO, options={"NUM_STREAMS": "1"}))
    assert len(set(cached)) == 2
    answer(model, dataclasses.replace(OPENVINO, options={"CACHE_DIR": str(tmp_path / "mine")}))
    assert list((tmp_path / "mine").iterdir())
    assert len(cached) == 2
    assert len([path for path in folder_of(model).iterdir() if not path.name.startswith(".")]) == 2


def test_a_tensor_is_found_by_each_of_its_names(tmp_path):
    """Two transpositions that undo each other: OpenVINO drops both, and what went in has the name of what came out."""
    model = fakes.unsealed(fakes.make_retrieval(tmp_path / "plain.onnx", dim=64))
    first, last = model.graph.node[0], model.graph.node[-1]
    first.input[0], last.output[0] = "twice", "raw"
    swap = {"perm": [0, 1, 3, 2]}
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", ["once"], ["twice"], **swap))
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", ["image"], ["once"], **swap))
    model.graph.node.append(onnx.helper.make_node("Identity", ["raw"], ["embedding"]))
    onnx.save(model, tmp_path / "twice.onnx")
    session = Session(tmp_path / "twice.onnx", OPENVINO)
    session.bind(CARD)
    assert {"image", "twice"} <= set(session._runner.inputs)
    got, wanted = (
        fakes.ask(session, CARD, image())["embedding"],
        fakes.ask(Session(tmp_path / "plain.onnx", CPU), CARD, image()),
    )
    np.testing.assert_allclose(got, wanted["embedding"], rtol=0, atol=1e-5)


@pytest.fixture
def openvino_alone(tmp_path, monkeypatch):
    """Runs the command line where no ONNX Runtime can be imported, in the process and its children."""
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "sitecustomize.py").write_text("import sys\nsys.modules['onnxruntime'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "boot"))

    def run(*words):
        code = "from landmark_onnx.cli import main; main()"
        command = [sys.executable, "-P", "-c", code, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    return run


def test_an_environment_with_openvino_alone(openvino_alone, tmp_path, model, monkeypatch):
    """Every command that runs models takes it for "auto", and one that names what is not there is told so."""
    (tmp_path / "cards").mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), fakes.photo())
    foreign, table = tmp_path / "mine.onnx", tmp_path / "mine.toml"
    onnx.save(fakes.unsealed(model), foreign)
    table.write_text(card_toml(dataclasses.replace(CARD, name="mine")))
    commands = {
        "run": ["retrieval", "-m", model, photo, photo, "--format", "csv"],
        "add": ["models", "add", foreign, "--card", table],
        "verify": ["verify", "mine"],
        "bundle": ["bundle", "mine", "-o", tmp_path / "bundle"],
        "triton": ["bundle", "mine", "-o", tmp_path / "triton", "--triton"],
        "doctor": ["doctor", "--json"],
        "bench": ["bench", "-m", "mine", "--windows", "2", "--duration", "0.01", "--size", "64x64"],
    }
    done = {name: openvino_alone(*words) for name, words in commands.items()}
    assert {name: (each.returncode, each.stderr[-500:]) for name, each in done.items() if each.returncode} == {}
    assert "openvino==" in (tmp_path / "bundle" / "requirements.txt").read_text()
    assert "embedding" in (tmp_path / "triton" / "mine" / "config.pbtxt").read_text()
    assert json.loads(done["doctor"].stdout)["provider"] == OPENVINO_PACKAGE
    asked = openvino_alone("retrieval", "-m", model, photo, photo, "--provider", "cpu")
    assert asked.returncode == 1
    assert "ONNX Runtime is not installed" in asked.stderr


def test_auto_takes_onnx_runtime_where_both_are(model):
    assert Session(model).provider == "CPUExecutionProvider"


def two_stage_weights():
    random = np.random.default_rng(3)
    shapes = [(64, 3, 3, 3), (64, 64, 3, 3), (64, 64, 3, 3), (64 * 7 * 7, 8)]
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def two_stage(path):
    """Convolutions before and behind a RoIAlign, each an output."""
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        two_stage (float[1, 3, 32, 32] image, float[R, 4] rois)
            => (float[1, 64, 16, 16] features, float[R, 64, 7, 7] head, float[R, 8] score)
        <int64[1] zero = {0}> {
            mapped = Conv <pads = [1, 1, 1, 1]> (image, before)
            pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (mapped)
            features = Conv <pads = [1, 1, 1, 1]> (pooled, between)
            shape = Shape <start = 0, end = 1> (rois)
            batch = Expand (zero, shape)
            crops = RoiAlign <output_height = 7, output_width = 7> (features, rois, batch)
            head = Conv <pads = [1, 1, 1, 1]> (crops, behind)
            flat = Flatten (head)
            score = MatMul (flat, last)
        }"""
    made = onnx.parser.parse_model(text)
    for name, values in zip(("before", "between", "behind", "last"), two_stage_weights(), strict=True):
        made.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(made, path)
    with path.open("r+b") as file:
        append_metadata(file, {})
    return path


@pytest.mark.skipif(not cpu_model()[1] & BF16_FEATURES, reason="a CPU without bf16")
@pytest.mark.parametrize("kept", [False, True])
def test_in_bf16_what_proposals_are_made_from_is_fp32s_bit_for_bit(kept, tmp_path, cached):
    path = two_stage(tmp_path / "two_stage.onnx")
    random = np.random.default_rng(4)
    corners = random.uniform(0, 16, (5, 2))
    feeds = {"image": random.normal(size=(1, 3, 32, 32)), "rois": np.concatenate([corners, corners + 12], axis=1)}
    feeds = {name: values.astype(np.float32) for name, values in feeds.items()}
    answers = []
    for precision in ("fp32", "bf16", "bf16"):
        request = ProviderRequest(name="openvino", precision=precision)
        runner = openvino_runtime.load(openvino(), path, request, threads=1, machine_cache=kept)
        assert runner.note == ""
        answers.append(runner.run(("features", "head", "score"), feeds))
    wanted, *others = answers
    for got in others:
        np.testing.assert_array_equal(got[0], wanted[0])
        error = np.abs(got[1] - wanted[1]).max() / np.abs(wanted[1]).max()
        assert 1e-4 < error < 2e-2
        error = np.abs(got[2] - wanted[2]).max() / np.abs(wanted[2]).max()
        assert error < 2e-2
    marked = list(folder_of(path).glob(f"*/{BLOB}"))
    assert len(marked) == kept


@pytest.mark.skipif(not cpu_model()[1] & BF16_FEATURES, reason="a CPU without bf16")
def test_in_bf16_last_layers_are_fp32(tmp_path):
    package = openvino()
    core = package.Core()
    with spared(package, core, two_stage(tmp_path / "two_stage.onnx"), "bf16") as source:
        compiled = core.compile_model(str(source), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    ran = [(each["layerType"].astype(str), each["runtimePrecision"].astype(str)) for each in facts]
    assert [precision for kind, precision in ran if kind == "Convolution"] == ["f32", "f32", "bf16", "f32"]
    assert ("ROIAlign", "f32") in ran
