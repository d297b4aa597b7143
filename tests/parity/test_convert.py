"""From a release to a file: what it says, what it answers, and what is left when something goes wrong."""

import dataclasses
import shutil
import tarfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("paddle")

from landmark_onnx.cards.catalogue import CARDS_VARIABLE, card
from landmark_onnx.cards.schema import ModelCard, Source
from landmark_onnx.errors import ExportError, ModelFileError
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.model import Classifier, Detector, Retriever
from landmark_onnx.modelfile.metadata import check_seal, read_metadata
from landmark_onnx.results import Failure
from landmark_onnx.tasks import INPUTS, OUTPUTS
from landmark_onnx.verification.verify import verify
from landmark_onnx_export import convert, parity, programs
from landmark_onnx_export.convert import export_model
from landmark_onnx_export.graphs import write as weights
from landmark_onnx_export.networks.build import build
from landmark_onnx_export.paddle.binary_model import write_binary_model
from landmark_onnx_export.paddle.runtime import paddle_module
from landmark_onnx_export.paddle.variables import parse_program, read_params
from landmark_onnx_export.releases.source import open_source
from landmark_onnx_export.workers import tasks as steps
from landmark_onnx_export.workers.run import run_child
from streams_of import stream

pytestmark = pytest.mark.paddle

RETRIEVAL, CLS, DET = "res152_arcmargin", "res152_softmax_v1", "res50_oid_v4_detector"
PHOTO = parity.seeded_image(150, 210, seed=1)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize("name", [RETRIEVAL, CLS, DET])
def test_the_file_describes_itself(name, exported, release):
    report = exported(name)
    facts = card(name)
    metadata = read_metadata(report.path)
    check_seal(report.path)
    assert ModelCard.from_dict(metadata["card"], "file") == facts
    with open_source(release(name)) as source:
        assert metadata["source"] == {"name": f"{name}.tar", "kind": source.kind, "sha256": source.sha256}
    assert set(convert.TOOLS) == set(metadata["tools"])
    assert len(metadata["parity"]) == (3 if facts.task == "det" else 5)
    assert report.agreement.shortfall(facts.task) is None
    assert {path.suffix for path in report.path.parent.iterdir()} == {".onnx"}


@pytest.mark.parametrize("name", [RETRIEVAL, CLS, DET])
def test_the_graph_is_standard_and_any_size(name, exported):
    model = onnx.load(exported(name).path)
    facts = card(name)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert not model.functions
    assert [value.name for value in model.graph.input] == list(INPUTS[facts.task])
    assert [value.name for value in model.graph.output] == list(OUTPUTS[facts.task])
    dims = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 3, "height", "width"]
    onnx.checker.check_model(model, full_check=True)


def test_verify_repeats_the_probe_without_paddle(exported):
    for name in (RETRIEVAL, CLS, DET):
        assert verify(exported(name).path).agreement.shortfall(card(name).task) is None


def test_a_raw_export_keeps_the_program_and_the_released_bits(release, tmp_path):
    path = export_model(
        card(CLS), release(CLS), tmp_path / "raw.onnx", check_parity=False, form=convert.ExportForm(raw=True)
    ).path
    model = onnx.load(path)
    assert any(node.op_type == "BatchNormalization" for node in model.graph.node)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    with open_source(release(CLS)) as source:
        assert set(initializers) == set(source.variables)
        for name, variable in source.variables.items():
            np.testing.assert_array_equal(onnx.numpy_helper.to_array(initializers[name]), variable.read(), name)


PIXELS = convert.ExportForm(input_kind="uint8")


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_a_file_that_takes_pixels_sees_the_host_s_tensor_to_the_bit(colour, release, tmp_path):
    """Its first tensor is what preprocessing makes, and so its answers are those of the other file."""
    facts = dataclasses.replace(
        card(RETRIEVAL), preprocess=dataclasses.replace(card(RETRIEVAL).preprocess, colour=colour)
    )
    report = export_model(facts, release(RETRIEVAL), tmp_path / "pixels.onnx", PIXELS)
    assert read_metadata(report.path)["input"] == "uint8"
    model = onnx.load(report.path)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("image.normalised", onnx.TensorProto.FLOAT, [None] * 4)
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = preprocess(facts.preprocess, PHOTO, as_uint8=True)["image"]
    [inside] = session.run(["image.normalised"], {"image": pixels})
    np.testing.assert_array_equal(inside, preprocess(facts.preprocess, PHOTO)["image"])
    plain = export_model(facts, release(RETRIEVAL), tmp_path / "floats.onnx", check_parity=False)
    wanted, got = (Retriever(path, provider="cpu")([PHOTO, PHOTO[:120]]) for path in (plain.path, report.path))
    for one, other in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(other.vector, one.vector)
    assert verify(report.path).agreement.cosine > 0.99999


def test_a_detector_does_not_take_pixels(release, tmp_path):
    with pytest.raises(ExportError, match=f"{DET}: a detector's image is resized as floats"):
        export_model(card(DET), release(DET), tmp_path / "pixels.onnx", PIXELS)
    assert not left_in(tmp_path)


@pytest.mark.parametrize("name", [RETRIEVAL, CLS, DET, "se_x152_arcmargin"])
def test_an_export_is_lean(name, exported):
    """Nothing that could have been computed at export is left to do, and no tensor lies in the file twice."""
    graph = onnx.load(exported(name).path).graph
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"BatchNormalization", "Identity", "Constant", "Dropout"}
    if card(name).task != "det":
        assert not kinds & {"Shape", "Slice", "Cast", "MatMul"}
    values = [(tuple(t.dims), t.data_type, onnx.numpy_helper.to_array(t).tobytes()) for t in graph.initializer]
    assert len(values) == len(set(values))


@pytest.mark.parametrize("name", [CLS, DET])
def test_the_same_source_gives_the_same_bytes(name, exported, release, tmp_path):
    again = export_model(card(name), release(name), tmp_path / "again.onnx")
    assert again.path.read_bytes() == exported(name).path.read_bytes()


def test_every_kind_of_source_gives_the_same_graph(exported, release, tmp_path, export_quietly):
    facts = card(CLS)
    folder = tmp_path / "folder"
    with tarfile.open(release(CLS)) as tar:
        tar.extractall(folder, filter="data")
    with open_source(release(CLS)) as source:
        program = build(facts.source.network, facts.task, source.variables)
        for names in (("model", "params"), ("__model__", "__params__"), ("m.pdmodel", "m.pdiparams")):
            binary = tmp_path / names[0]
            binary.mkdir()
            for made, wanted in zip(write_binary_model(program, source.variables, binary), names, strict=True):
                made.rename(binary / wanted)
    wanted = Classifier(exported(CLS).path)(PHOTO)
    for path in (folder / CLS, tmp_path / "model", tmp_path / "__model__", tmp_path / "m.pdmodel"):
        got = Classifier(export_quietly(facts, path, path.name))(PHOTO)
        np.testing.assert_array_equal(got.indices, wanted.indices)
        np.testing.assert_array_equal(got.scores, wanted.scores)


def test_a_detector_names_what_it_finds(exported):
    result = Detector(exported(DET).path)(PHOTO)
    assert len(result.boxes)
    assert all(isinstance(name, str) for name in result.names)


@pytest.mark.parametrize("place", ["release", "folder", "card", "cards", None])
def test_labels_of_a_users_card(place, tmp_path, monkeypatch, caplog):
    folders = {name: tmp_path / name for name in ("card", "cards", "folder")} | {"release": tmp_path / "folder" / "x"}
    for folder in sorted(folders.values()):
        folder.mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(folders["cards"]))
    (folders["release"] / "fc_0.b_0").write_bytes(stream(np.ones(1, "<f4")))
    own = dataclasses.replace(card(CLS), name="mine", source=Source(labels="names.csv"))
    if place:
        (folders[place] / "names.csv").write_text("0,church\n")
    with open_source(folders["release"]) as source:
        if place:
            assert convert._labels(own, source, folders["card"]) == {"labels": {"0": "church"}}
            return
        with pytest.raises(ExportError, match=r"mine: its card wants labels from names\.csv: no such file in"):
            convert._labels(own, source, folders["card"])
        shipped = dataclasses.replace(own, name=CLS)
        assert convert._labels(shipped, source, None) == {}
        assert "its classes have no names" in caplog.text


def test_no_proposal_is_no_detection(release, tmp_path, export_quietly):
    with open_source(release(DET)) as source:
        program = parse_program(source.program)
        [op] = [op for op in program.blocks[0].ops if op.type == "generate_proposals"]
        next(attr for attr in op.attrs if attr.name == "min_size").f = 1e6
        write_binary_model(program.SerializeToString(), source.variables, tmp_path)
    result = Detector(export_quietly(card(DET), tmp_path / "model"))(PHOTO)
    assert result.boxes.shape == (0, 4)
    assert result.names == ()


def test_weights_over_the_limit_go_beside_the_model(exported, release, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "INLINE_LIMIT", 0)
    report = export_model(card(RETRIEVAL), release(RETRIEVAL), tmp_path / "out" / "big.onnx")
    data, model = sorted((tmp_path / "out").iterdir(), key=lambda path: path.suffix)
    assert (data.suffix, model.name) == (".data", "big.onnx")
    np.testing.assert_array_equal(
        Retriever(report.path)(PHOTO).vector, Retriever(exported(RETRIEVAL).path)(PHOTO).vector
    )
    verify(report.path)
    content = bytearray(data.read_bytes())
    content[-5] ^= 1
    data.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"big-.*damaged"):
        verify(report.path)
    data.unlink()
    with pytest.raises(ModelFileError):
        Retriever(report.path)


def test_a_batch_answers_as_one_by_one(exported):
    images = [parity.seeded_image(120, 160, seed) for seed in range(5)]
    alone = [Retriever(exported(RETRIEVAL).path, batch_size=1)(image).vector for image in images]
    for result, vector in zip(Retriever(exported(RETRIEVAL).path, batch_size=3)(images), alone, strict=True):
        assert not isinstance(result, Failure)
        np.testing.assert_allclose(result.vector, vector, rtol=0, atol=1e-3 * abs(vector).max())


def edited(tar, folder, edit):
    """The release unpacked, with `edit(folder)` done to it."""
    with tarfile.open(tar) as archive:
        archive.extractall(folder, filter="data")
    edit(folder / tar.stem)
    return folder / tar.stem


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda folder: (folder / "fc_0.w_0").unlink(), ["fc_0.w_0", "missing"]),
        (lambda folder: shutil.copy(folder / "fc_0.b_0", folder / "conv1_1_weights"), ["conv1_1_weights"]),
        (lambda folder: (folder / "fc_1.w_0").write_bytes((folder / "fc_1.w_0").read_bytes()[:-4]), ["fc_1.w_0"]),
    ],
    ids=["missing", "wrong shape", "truncated"],
)
def test_a_bad_variable_is_named_and_nothing_is_left(edit, words, release, tmp_path):
    source = edited(release(CLS), tmp_path / "source", edit)
    with pytest.raises(ExportError) as caught:
        export_model(card(CLS), source, tmp_path / "out" / "model.onnx")
    assert all(word in str(caught.value) for word in words), caught.value
    assert left_in(tmp_path / "out") == []


def test_extra_variables_are_listed(release, tmp_path):
    source = edited(
        release(CLS), tmp_path / "source", lambda folder: shutil.copy(folder / "fc_0.b_0", folder / "fc_0.b_0_velocity")
    )
    report = export_model(card(CLS), source, tmp_path / "model.onnx", check_parity=False)
    assert report.unused == ("fc_0.b_0_velocity",)


def test_all_unknown_ops_are_in_one_error(release, tmp_path):
    with open_source(release(DET)) as source:
        program = parse_program(source.program)
        for op in program.blocks[0].ops:
            op.type = {"softmax": "brand_new", "sigmoid": "also_new"}.get(op.type, op.type)
        given = tmp_path / "given.pdmodel"
        given.write_bytes(program.SerializeToString())
    arguments = {"program": str(given), "output": str(tmp_path / "made.onnx"), "custom_ops": {}}
    with pytest.raises(ExportError, match=r"also_new, anchor_generator, brand_new, generate_proposals"):
        run_child("paddle2onnx", arguments)


def test_the_last_words_of_a_converter_that_aborts_are_the_error(release, tmp_path):
    with open_source(release(DET)) as source:
        given = tmp_path / "given.pdmodel"
        given.write_bytes(source.program)  # with ops of 2019, which lack attributes that paddle2onnx insists on
    custom = {op: op for op in ("anchor_generator", "generate_proposals")}
    arguments = {"program": str(given), "output": str(tmp_path / "made.onnx"), "custom_ops": custom}
    with pytest.raises(ExportError, match=r"paddle2onnx: \[ERROR\] Cannot found attribute \w+ in op: \w+ \(SIGABRT\)$"):
        run_child("paddle2onnx", arguments)


def test_disagreement_leaves_no_file(release, tmp_path, monkeypatch):
    def other_weights(program, variables, folder):
        model, params = write_binary_model(program, variables, folder)
        content = bytearray(params.read_bytes())
        fc = read_params(params, variables)["fc_0.w_0"]
        content[fc.offset : fc.end] = np.random.default_rng(0).normal(0, 1, fc.nbytes // 4).astype("<f4").tobytes()
        params.write_bytes(content)
        return model, params

    monkeypatch.setattr(programs, "write_binary_model", other_weights)
    with pytest.raises(ExportError, match=RETRIEVAL):
        export_model(card(RETRIEVAL), release(RETRIEVAL), tmp_path / "out" / "model.onnx")
    assert left_in(tmp_path / "out") == []


def test_paddle_is_asked_as_the_original_ran_it(tmp_path, monkeypatch):
    """On the plain kernels, the program as it is: fused ops add in another order."""
    inference = paddle_module().inference
    seen = []

    def create(config):
        seen.append((config.ir_optim(), config.mkldnn_enabled()))
        raise RuntimeError("enough")

    monkeypatch.setattr(inference, "create_predictor", create)
    files = [str(tmp_path / name) for name in ("model", "params")]
    for name in files:
        Path(name).touch()
    with pytest.raises(ExportError, match="Paddle cannot run the program: enough"):
        steps.run_paddle(*files, [], [], [])
    assert seen == [(False, False)]


@pytest.mark.parametrize("stage", ["program", "convert", "parity"])
def test_an_interrupted_export_leaves_nothing_and_keeps_the_old_file(stage, release, tmp_path):
    output = tmp_path / "out" / "model.onnx"
    output.parent.mkdir()
    output.write_bytes(b"the old one")

    def interrupt(name):
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_model(card(CLS), release(CLS), output, on_stage=interrupt)
    assert left_in(output.parent) == ["model.onnx"]
    assert output.read_bytes() == b"the old one"


def test_a_train_model_needs_a_network(release, tmp_path):
    with pytest.raises(ExportError, match="train model without a program"):
        export_model(card(DET), release(CLS), tmp_path / "model.onnx")


def test_a_program_of_another_task_is_refused(release, tmp_path):
    with pytest.raises(ExportError, match=r"task retrieval has inputs image and outputs embedding"):
        export_model(
            dataclasses.replace(card(DET), task="retrieval", preprocess=card(RETRIEVAL).preprocess),
            release(DET),
            tmp_path / "model.onnx",
        )
