import dataclasses
import hashlib
import json
import math
import subprocess
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import photo, seal_model, unsealed, write_sealed
from landmark_onnx import cli
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ExportError, ImageError, ModelFileError
from landmark_onnx.hub.add import add
from landmark_onnx.hub.remove import remove
from landmark_onnx.modelfile.metadata import check_seal, read_metadata
from landmark_onnx.store.catalogue import exported_path
from landmark_onnx.store.status import stored_models
from landmark_onnx.tasks import INPUTS, OUTPUTS
from landmark_onnx.verification.verify import verify
from landmark_onnx_export.graphs import detector as geometry
from landmark_onnx_export.graphs import saving
from landmark_onnx_export.quantization import calibration as ranges
from landmark_onnx_export.quantization import qdq
from landmark_onnx_export.quantization.calibration import BINS, METHODS, Histogram, rounded
from landmark_onnx_export.quantization.opset import modernise
from landmark_onnx_export.quantization.quantize import MOST
from landmark_onnx_export.quantization.split import split
from networks import make_network


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(9):
        cv2.imwrite(str(folder / f"{seed}.png"), photo(90 + 6 * seed, 120, seed))
    return folder


@pytest.fixture
def command(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main(["quantize", *map(str, arguments)])
        return left.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("task", ["retrieval", "cls", "det"])
def test_int8_file_beside_fp32_says_how_it_agrees(task, tmp_path, photos, command):
    model = make_network(tmp_path / "small.onnx", task)
    code, out, err = command(model, "--calibrate", photos, "--json", "--floor", 0.6)
    assert code == 0, err
    (report,) = json.loads(out)
    made = tmp_path / "small.int8.onnx"
    assert report["path"] == str(made)
    metadata = read_metadata(made)
    assert metadata["precision"] == "int8"
    assert metadata["agreement"] == report["agreement"]
    assert metadata["recipe"]["of"] == check_seal(model).sha256
    assert (metadata["recipe"]["calibration_images"], report["agreement"]["images"]) == (6, 3)
    assert metadata["card"] == read_metadata(model)["card"]
    assert verify(made).card.task == task
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_detectors_geometry_stays_fp32(tmp_path, photos, command):
    model = make_network(tmp_path / "det.onnx", "det")
    graph = onnx.load(model).graph
    fixed = geometry.geometry(graph)
    kinds = {node.op_type for node in graph.node if node.name in fixed}
    assert {"RoiAlign", "Gather", "Tanh", "Mul"} <= kinds
    # The convolution that moves rois is geometry; the three blocks that features come from are not.
    assert [node.op_type for node in graph.node if node.name in fixed].count("Conv") == 1
    candidates = qdq.candidates(graph)
    behind = next(node.name for node in graph.node if node.op_type == "RoiAlign")
    order = [node.name for node in graph.node]
    assert min(order.index(name) for name in candidates) > order.index(behind)
    assert len(qdq.layers(graph, candidates)) == 2
    for precision in ("int8", "fp16"):
        code, _out, err = command(model, "--calibrate", photos, "--json", "--precision", precision)
        assert code == 0, err
        made = onnx.load(tmp_path / f"det.{precision}.onnx").graph
        assert {v.type.tensor_type.elem_type for v in [*made.input, *made.output]} == {onnx.TensorProto.FLOAT}
        if precision == "int8":
            assert sum(node.op_type == "Conv" for node in made.node) == 10
            assert (
                sum(
                    len(node.input) and node.input[1].endswith("DequantizeLinear_Output")
                    for node in made.node
                    if node.op_type == "Conv"
                )
                == 2
            )


def test_fp16_keeps_inputs_and_halves_the_bytes(tmp_path, photos, command):
    model = make_network(tmp_path / "small.onnx")
    code, out, _ = command(model, "--calibrate", photos, "--precision", "fp16", "--json")
    (report,) = json.loads(out)
    assert code == 0
    assert report["agreement"]["images"] == 9  # nothing is calibrated, so all of them judge
    assert report["agreement"]["cosine_min"] > 0.999
    made = onnx.load(report["path"])
    weights = {t.data_type for t in made.graph.initializer if math.prod(t.dims) > 100}
    assert weights == {onnx.TensorProto.FLOAT16}
    assert verify(report["path"]).agreement.cosine > 0.99999


def test_no_roi_is_rounded_to_fp16(tmp_path, photos, command):
    """Between nodes that stay fp32 values stay fp32, too: at 2,000 pixels fp16 knows even numbers alone."""
    model = make_network(tmp_path / "det.onnx", "det")
    code, out, err = command(model, "--calibrate", photos, "--precision", "fp16", "--json", "--floor", 0.5)
    assert code == 0, err
    fed = {"image": np.ones((1, 3, 64, 64), np.float32), "im_info": np.array([[1999.3, 1501.7, 1]], np.float32)}
    exact, half = (
        onnxruntime.InferenceSession(path).run(["rois"], fed)[0] for path in (model, json.loads(out)[0]["path"])
    )
    assert np.abs(half - exact).max() < 0.01
    made = onnx.load(json.loads(out)[0]["path"])
    casts = {node.output[0] for node in made.graph.node if node.op_type == "Cast"}
    assert not any(node.op_type == "Cast" and node.input[0] in casts for node in made.graph.node)


def test_below_the_floor_nothing_is_written(tmp_path, photos, command):
    model = make_network(tmp_path / "wild.onnx", wild=True)
    before = sorted(tmp_path.iterdir())
    code, out, err = command(model, "--calibrate", photos, "--floor", 1, "--json")
    assert code == 1
    assert "cosine 0.9" in err
    assert "below the floor of 1" in err
    assert json.loads(out)[0]["path"] is None
    assert not json.loads(out)[0]["forced"]
    assert json.loads(out)[0]["agreement"]["images"] == 3
    assert sorted(tmp_path.iterdir()) == before
    code, out, err = command(model, "--calibrate", photos, "--floor", 1, "--json", "--force")
    assert code == 0
    recipe = read_metadata(tmp_path / "wild.int8.onnx")["recipe"]
    assert recipe["forced"]
    assert json.loads(out)[0]["forced"]
    # 7 layers, of which 12 per cent may leave.
    assert recipe["layers"] == 7
    assert recipe["excluded"] == {}


def test_layers_that_hurt_most_stay_fp32(tmp_path, photos, command):
    model = make_network(tmp_path / "wild.onnx", seed=1, wild=True)
    _, out, _ = command(model, "--calibrate", photos, "--floor", 1, "--json", "--force", "--spare", 0.6)
    (report,) = json.loads(out)
    assert 0 < len(report["excluded"]) <= 4
    assert all(why.startswith("the error is ") for why in report["excluded"].values())
    graph = onnx.load(report["path"]).graph
    plain = [n.name for n in graph.node if n.op_type == "Conv" and not n.input[1].endswith("DequantizeLinear_Output")]
    assert sorted(plain) == sorted(report["excluded"])
    _, out, _ = command(model, "--calibrate", photos, "--floor", 1, "--json", "--force", "--spare", 0)
    assert report["agreement"]["cosine"] > json.loads(out)[0]["agreement"]["cosine"]


def test_the_user_may_keep_layers(tmp_path, photos, command):
    model = make_network(tmp_path / "small.onnx")
    code, out, err = command(model, "--calibrate", photos, "--exclude", "Conv0", "--json", "--floor", 0.5)
    assert code == 0, err
    assert json.loads(out)[0]["excluded"] == {"Conv0": "asked for"}
    code, _, err = command(model, "--calibrate", photos, "--exclude", "Konv", "--floor", 0.5)
    assert code == 1
    assert "no layer to quantise is called 'Konv'; there are: Conv0" in err


def test_bad_images_are_told_of_and_stop_nothing(tmp_path, photos, command):
    folder = tmp_path / "some"
    folder.mkdir()
    for path in photos.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "bad.jpg").write_bytes(b"nothing")
    model = make_network(tmp_path / "small.onnx")
    code, _out, err = command(model, "--calibrate", folder, "--json", "--floor", 0.5)
    assert code == 1  # the file is there; that an image is not readable is told by the exit code as everywhere
    assert err.count("error") == 1
    assert "bad.jpg" in err
    assert (tmp_path / "small.int8.onnx").exists()


def test_refusals(tmp_path, photos, command):
    model = make_network(tmp_path / "small.onnx")
    command(model, "--calibrate", photos, "--precision", "fp16")
    code, _, err = command(tmp_path / "small.fp16.onnx", "--calibrate", photos)
    assert (code, err.count("\n")) == (1, 1)
    assert "is fp16 already" in err
    code, _, err = command(model, "--calibrate", photos, "--precision", "fp16", "--exclude", "Conv0")
    assert code == 2
    code, _, err = command(model, "--calibrate", photos / "0.png")
    assert code == 1
    assert "wanted images to calibrate with and others to judge by" in err
    model.write_bytes(model.read_bytes()[:-1])
    code, _, err = command(model, "--calibrate", photos)
    assert code == 1
    assert "no seal" in err


def test_bf16_is_measured_and_makes_no_file(tmp_path, photos, command):
    pytest.importorskip("openvino")
    model = make_network(tmp_path / "small.onnx")
    code, out, err = command(model, "--calibrate", photos, "--precision", "bf16", "--json")
    assert "bf16 has no file of its own: run the fp32 one with --precision bf16 --provider openvino" in err
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    if "has no bf16 here" not in err:
        (report,) = json.loads(out)
        assert code == 0
        assert report["agreement"]["cosine"] > 0.999


def test_changed_file_does_not_verify(tmp_path, photos, command):
    model = make_network(tmp_path / "small.onnx")
    command(model, "--calibrate", photos, "--floor", 0.5)
    made = tmp_path / "small.int8.onnx"
    data = bytearray(made.read_bytes())
    data[len(data) // 3] ^= 1
    made.write_bytes(data)
    with pytest.raises(ModelFileError, match="damaged"):
        verify(made)


def test_weights_beside_the_model(tmp_path, photos, command, monkeypatch):
    monkeypatch.setattr(saving, "INLINE_LIMIT", 0)
    model = make_network(tmp_path / "small.onnx")
    code, _out, err = command(model, "--calibrate", photos, "--floor", 0.5, "--json")
    assert code == 0, err
    made = tmp_path / "small.int8.onnx"
    data = read_metadata(made)["data"]
    assert hashlib.sha256((tmp_path / data["file"]).read_bytes()).hexdigest() == data["sha256"]
    assert verify(made).agreement.cosine > 0.99999


def test_weights_beside_the_fp32_model(tmp_path, photos, command):
    inside = make_network(tmp_path / "inside.onnx")
    metadata = read_metadata(inside)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "INLINE_LIMIT", 0)
        written = saving.save_model(unsealed(inside), tmp_path / "small.onnx")
    assert written.data is not None
    write_sealed(written.model, metadata | {"data": {"file": written.data.name, "sha256": written.data_sha256}})
    figures = []
    for model in (inside, written.model):
        code, out, err = command(model, "--calibrate", photos, "--floor", 0.5, "--json")
        assert code == 0, err
        figures.append(json.loads(out)[0]["agreement"])
    assert figures[0] == figures[1]
    written.data.unlink()
    code, _, err = command(written.model, "--calibrate", photos)
    assert code == 1
    assert "keeps its weights there" in err


def test_store_knows_reduced_files(tmp_path, photos, command, monkeypatch):
    monkeypatch.setenv("LANDMARK_ONNX_HOME", str(tmp_path / "home"))
    model = make_network(tmp_path / "small.onnx")
    name = read_metadata(model)["card"]["name"]
    add(model)
    code, _, err = command(name, "--calibrate", photos, "--floor", 0.5)
    assert code == 0, err
    states = {stored.name: stored.state for stored in stored_models() if stored.model}
    assert states == {name: "exported", f"{name}.int8": "exported"}
    elsewhere = tmp_path / "copy.onnx"
    made = exported_path(f"{name}.int8")
    made.rename(elsewhere)
    fp32 = exported_path(name).read_bytes()
    assert add(elsewhere).name == f"{name}.int8"
    assert exported_path(name).read_bytes() == fp32
    assert {removed.path for removed in remove(name)} == {made, exported_path(name)}


def test_photos_that_judge_do_not_calibrate(tmp_path, photos):
    paths = sorted(photos.iterdir())
    for copy in paths[:3]:
        (tmp_path / f"copy-{copy.name}").write_bytes(copy.read_bytes())
    both = [*paths, *sorted(tmp_path.iterdir())]
    found = split(both, None, (50, 50))
    calibration, judges = ({photo.sha256 for photo in side} for side in (found.calibration, found.held_out))
    assert (len(calibration), len(judges)) == (6, 3)
    assert max(judges) < min(calibration)
    apart = split(both, paths[:4], (50, 50))
    assert not {photo.sha256 for photo in apart.calibration} & {photo.sha256 for photo in apart.held_out}
    assert (len(apart.calibration), len(apart.held_out)) == (5, 4)
    with pytest.raises(ImageError, match="got 0 and 4"):
        split(paths[:4], paths[:4], (50, 50))
    few = split(both, None, (2, 1))
    assert (len(few.calibration), len(few.held_out)) == (2, 1)


VALUES = st.lists(st.floats(-1e4, 1e4, width=32, allow_subnormal=False), min_size=1, max_size=60)


@pytest.mark.parametrize("activation", ["Relu (made)", "Clip (made, low, high)"])
def test_a_convolution_has_the_range_of_the_activation_behind_it(activation):
    """What ReLU6 cuts off would take most of the 256 steps."""
    graph = onnx.parser.parse_graph(f"""g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y)
        <float[1, 1, 1, 1] w = {{1}}, float low = {{0}}, float high = {{6}}>
        {{ made = Conv (x, w)  active = {activation}  y = Conv (active, w) }}""")
    geometry.name_nodes(graph)
    nodes = qdq.candidates(graph)
    assert len(nodes) == 3
    assert set(qdq.tensors(graph, nodes)) == {"x", "active", "y"}


def test_what_a_spared_layer_makes_is_not_rounded_for_an_addition():
    graph = onnx.parser.parse_graph("""g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] z)
        <float[1, 1, 1, 1] w = {1}>
        { a = Conv (x, w)  b = Relu (a)  c = Conv (b, w)  y = Add (b, c)  d = Conv (y, w)  z = Add (y, d) }""")
    geometry.name_nodes(graph)
    nodes = dict(zip("abcydz", qdq.candidates(graph), strict=True))

    def left(*excluded):
        kept = qdq.without(graph, nodes.values(), [nodes[each] for each in excluded])
        return "".join(each for each in nodes if nodes[each] in kept)

    assert left() == "abcydz"
    assert left("a") == "cdz", "as little as one that reads it through an activation"
    assert left("c") == "abdz", "an addition that reads the sum again has 8 bits from its layer"
    assert left("d") == "abcy"
    assert left("a", "c", "d") == ""


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_histogram_counts_as_if_all_came_at_once(batches):
    seen = Histogram()
    for batch in batches:
        sample = np.array(batch, np.float32)
        seen.add(sample, float(sample.min()), float(sample.max()))
    values = np.concatenate([np.array(batch, np.float32) for batch in batches])
    counts, _ = np.histogram(values.astype(np.float64), seen.edges())
    np.testing.assert_array_equal(seen.counts, counts)
    assert (seen.low, seen.high) == (values.min(), values.max())
    for cut in METHODS.values():
        low, high = cut(seen)
        assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)


def test_least_error_is_the_best_of_all_shares():
    random = np.random.default_rng(3)
    values = np.maximum(random.normal(size=20000), 0).astype(np.float32)
    values[0] = 40
    seen = Histogram()
    seen.add(values, 0.0, 40.0)

    def error(bounds):
        return float(((rounded(values.astype(np.float64), bounds) - values) ** 2).sum())

    tried = [error((0.0, 40 * share)) for share in ranges.SHARES]
    low, high = ranges.least_error(seen)
    assert low == 0
    assert error((low, high)) <= min(tried) * 1.02
    assert error((low, high)) < error((0.0, 40.0))
    assert seen.counts.sum() == len(values)
    assert len(seen.counts) == BINS


def test_percentile_leaves_the_outermost_out():
    seen = Histogram()
    values = np.concatenate([np.linspace(-1, 1, 10**6), [-50.0, 50.0]]).astype(np.float32)
    seen.add(values, -50.0, 50.0)
    low, high = ranges.percentile(seen)
    assert -1.1 < low < -0.99
    assert 0.99 < high < 1.1


def test_needs_no_paddle(tmp_path, photos):
    model = make_network(tmp_path / "small.onnx")
    script = (
        "import sys\n"
        "for name in ('paddle', 'paddle2onnx', 'onnxscript', 'sympy', 'torch'): sys.modules[name] = None\n"
        "from landmark_onnx.cli import main\n"
        "for precision in ('int8', 'fp16'):\n"
        "    try:\n"
        f"        main(['quantize', {str(model)!r}, '--calibrate', {str(photos)!r}, '--precision', precision])\n"
        "    except SystemExit as left:\n"
        "        assert left.code == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"small.onnx", "small.int8.onnx", "small.fp16.onnx"}
    assert done.stderr == ""


def foreign(path, task, *, opset=17, **names):
    """The network as somebody else wrote it: an older opset, tensors called as they like. names: ours -> theirs."""
    made = make_network(path.with_name("ours.onnx"), task)
    model, ours = unsealed(made), ModelCard.from_dict(read_metadata(made)["card"], "ours")
    for each in model.graph.node:
        each.input[:] = [names.get(name, name) for name in each.input]
        each.output[:] = [names.get(name, name) for name in each.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    model.opset_import[0].version = opset
    kept = {key: {name: names[name] for name in of[task] if name in names} for key, of in SIDES.items()}
    return seal_model(model, path, dataclasses.replace(ours, **kept))


SIDES = {"inputs": INPUTS, "outputs": OUTPUTS}


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize(
    ("task", "how"),
    [
        ("retrieval", {"image": "x"}),
        ("cls", {"image": "input.1", "probability": "495"}),
        ("retrieval", {"opset": 9}),
        ("cls", {"opset": 8, "image": "data_0"}),
        ("det", {"image": "picture", "im_info": "info", "rois": "boxes", "probability": "scores"}),
    ],
)
def test_files_that_others_made_are_quantised(task, how, precision, tmp_path, photos, command):
    model = foreign(tmp_path / "theirs.onnx", task, **how)
    command_line = [model, "--calibrate", photos, "--precision", precision, "--floor", 0.6, "--json"]
    code, out, err = command(*command_line)
    assert code == 0, err
    verify(json.loads(out)[0]["path"])
    made = onnx.load(json.loads(out)[0]["path"])
    if precision == "int8":
        assert any(node.op_type == "QuantizeLinear" for node in made.graph.node)
        assert made.opset_import[0].version >= 13
    if task == "det":
        kept = geometry.geometry(onnx.load(model).graph, "boxes")
        kinds = [node.op_type for node in onnx.load(model).graph.node if node.name in kept]
        assert "RoiAlign" in kinds
        assert not geometry.geometry(made.graph, "rois"), "its boxes have another name"
        (moved,) = (node for node in made.graph.node if node.op_type == "Tanh")
        makers = {name: node.op_type for node in made.graph.node for name in node.output}
        assert makers[moved.input[0]] == "ReduceMean", "what moves rois is fp32 throughout"


def test_weights_that_are_inputs_are_folded_into(tmp_path, photos, command):
    """As the format wanted it up to its version 3: a batch norm goes into the convolution before it all the same."""
    model = foreign(tmp_path / "old.onnx", "retrieval", opset=9)
    proto = unsealed(model)
    norm = {
        f"norm.{name}": np.full(16, value, np.float32) for name, value in zip("sbmv", (0.5, 1, 0.1, 2), strict=True)
    }
    first = proto.graph.node[0]
    name, first.output[0] = first.output[0], "raw"
    proto.graph.node.insert(1, onnx.helper.make_node("BatchNormalization", ["raw", *norm], [name], "norm"))
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in norm.items())
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in proto.graph.initializer
    )
    proto.ir_version = 3
    card = ModelCard.from_dict(read_metadata(model)["card"], "card")
    seal_model(proto, tmp_path / "inputs.onnx", card)
    code, out, err = command(tmp_path / "inputs.onnx", "--calibrate", photos, "--floor", 0.6, "--json")
    assert code == 0, err
    made = onnx.load(json.loads(out)[0]["path"]).graph
    assert "BatchNormalization" not in {node.op_type for node in made.node}
    assert [value.name for value in made.input] == ["image"]


def test_weights_beside_an_old_model_stay_there(tmp_path):
    """As those of a model over two gigabytes do, which the converter could not take."""
    model = unsealed(foreign(tmp_path / "old.onnx", "retrieval", opset=9))
    onnx.save(model, tmp_path / "beside.onnx", save_as_external_data=True, location="beside.data", size_threshold=512)
    lean = onnx.load(tmp_path / "beside.onnx", load_external_data=False)
    beside = {tensor.name for tensor in lean.graph.initializer if tensor.external_data}
    assert beside
    made = modernise(lean)
    assert {tensor.name for tensor in made.graph.initializer if tensor.external_data} == beside
    assert [value.name for value in made.graph.input] == ["image"]
    onnx.save(made, tmp_path / "new.onnx")
    fed = {"image": np.random.default_rng(0).normal(size=(1, 3, 96, 96)).astype(np.float32)}
    old, new = (onnxruntime.InferenceSession(tmp_path / f"{name}.onnx").run(None, fed)[0] for name in ("beside", "new"))
    np.testing.assert_allclose(new, old, rtol=0, atol=1e-5)
    assert modernise(made) is made


def test_what_cannot_be_brought_to_a_newer_opset_is_one_line(tmp_path):
    model = unsealed(foreign(tmp_path / "old.onnx", "retrieval", opset=9))
    model.graph.node[0].op_type = "NoSuchOp"
    with pytest.raises(ExportError, match=r"^opset 9 cannot be brought to 13: .*NoSuchOp") as caught:
        modernise(model)
    assert str(caught.value).isprintable()


def test_the_more_photos_the_more_judge(tmp_path, command):
    folder = tmp_path / "many"
    folder.mkdir()
    for seed in range(288):
        cv2.imwrite(str(folder / f"{seed}.png"), np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8))
    found = split(sorted(folder.iterdir()), None, MOST["retrieval"])
    assert (len(found.calibration), len(found.held_out)) == (216, 72)
    found = split(sorted(folder.iterdir()), None, MOST["det"])
    assert (len(found.calibration), len(found.held_out)) == (48, 16)
    assert min(sum(most) for most in MOST.values()) == 64, "the help and the guide say so"
    assert max(sum(most) for most in MOST.values()) == 640


def test_remedies_are_of_the_precision(tmp_path, photos, command):
    model = make_network(tmp_path / "wild.onnx", wild=True)
    for precision, words in {"int8": ("--spare", "--exclude", "--force"), "fp16": ("--force",)}.items():
        _, _, err = command(model, "--calibrate", photos, "--precision", precision, "--floor", 1)
        text = " ".join(err.split())
        assert [word for word in ("--spare", "--exclude", "--force") if word in text] == list(words)
    code, _, err = command(model, "--calibrate", photos, "--precision", "fp16", "--spare", 0.2)
    assert code == 2
    assert "int8 alone" in err
