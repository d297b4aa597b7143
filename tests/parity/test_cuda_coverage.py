"""What ONNX Runtime's CUDA provider runs of our graphs, by its published kernels: not measured on a GPU."""

import types

import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("paddle")


from cuda_kernels import KERNELS, UNLISTED
from landmark_onnx.cards.catalogue import card, original_cards
from landmark_onnx_export import convert
from landmark_onnx_export.convert import export_model
from landmark_onnx_export.graphs.detector import name_nodes
from landmark_onnx_export.graphs.uint8_input import take_pixels
from landmark_onnx_export.quantization import qdq
from landmark_onnx_export.quantization.fp16 import halve
from placement import shape_computations, typed, waits, without_kernel

pytestmark = pytest.mark.paddle

FLOAT = TensorProto.FLOAT
RAW = convert.ExportForm(raw=True)
DET = "res50_oid_v4_detector"
CNNS = [name for name in original_cards() if card(name).task != "det"]
ARCHITECTURES = ["inceptionv4_arcmargin", "res152_softmax_v1", "se_x152_arcmargin"]

WITHOUT_KERNEL = types.MappingProxyType({"RoiAlign": "RoiAlign-16: kernels of 10 to 10"})
"""The detector's ops that CUDA has no kernel for -> why not; all else of it has one.

ONNX Runtime's pull request 27646, later than the list, adds RoiAlign of opsets 16 and 22."""

SHAPE_COMPUTATIONS = types.MappingProxyType(
    {
        "Slice": "one side of a shape",
        "Squeeze": "that side as a number",
        "Concat": "shapes: of the grid of anchors, and of the padding for NMS",
        "Min": "of the boxes there are and those wanted",
        "Max": "of the boxes missing and none",
        "Sub": "boxes wanted less those there are",
        "Where": "boxes there are, or as many as wanted",
        "Cast": "a map's sides, of which anchors are made",
    }
)
"""The detector's ops with a kernel of which some nodes run on the CPU all the same, as they read shapes alone."""


@pytest.fixture(scope="module")
def graph_of(release, tmp_path_factory):
    """(card's name, form) -> the file, exported once."""
    folder = tmp_path_factory.mktemp("graphs")

    def path_of(name, form=convert.LEAN):
        path = folder / f"{name}.{'raw' if form.raw else 'lean'}.onnx"
        if not path.exists():
            export_model(card(name), release(name), path, form, check_parity=False)
        return path

    return path_of


@pytest.fixture
def named(graph_of, tmp_path):
    """Card's name -> the file with names for all nodes, as what reduces precision wants it."""

    def path_of(name):
        model = onnx.load(graph_of(name))
        name_nodes(model.graph)
        onnx.save(model, tmp_path / f"{name}.onnx")
        return tmp_path / f"{name}.onnx"

    return path_of


def with_pixels(path, name):
    """The file as `ExportForm(input_kind="uint8")` makes it of the same network."""
    model = onnx.load(path)
    take_pixels(model.graph, card(name).preprocess)
    return model


def in_8_bits(path):
    """The file in 8 bits, by ranges that no image gave: types do not depend on them."""
    graph = onnx.load(path).graph
    nodes = qdq.candidates(graph)
    ranges = dict.fromkeys(qdq.tensors(graph, nodes), (-1.0, 1.0))
    return qdq.quantise(path, ranges, {}, nodes, {}, reduce_range=False)


def assert_all_on_cuda(model):
    graph = typed(model)
    assert not without_kernel(graph)
    assert not shape_computations(graph)
    assert not waits(graph)


@pytest.mark.parametrize("name", CNNS)
def test_no_node_of_a_cnn_runs_on_the_cpu(name, graph_of):
    assert_all_on_cuda(onnx.load(graph_of(name)))
    assert_all_on_cuda(with_pixels(graph_of(name), name))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nor_does_one_of_a_raw_or_a_halved_cnn(name, graph_of, named):
    assert_all_on_cuda(onnx.load(graph_of(name, RAW)))
    assert_all_on_cuda(halve(named(name)).model)


@pytest.mark.parametrize("name", ["res152_softmax_v1", DET])
def test_in_8_bits_biases_are_left_to_the_cpu_besides(name, named):
    """CUDA dequantises bytes, and a bias has 32 bits: each convolution's costs a copy to the GPU in every run."""
    found = set(without_kernel(typed(in_8_bits(named(name)))).values())
    assert found - set(WITHOUT_KERNEL.values()) == {"DequantizeLinear-13: T is int32"}


@pytest.mark.parametrize("form", ["lean", "half"])
def test_what_of_the_detector_runs_on_the_cpu(form, named):
    graph = typed(halve(named(DET)).model if form == "half" else onnx.load(named(DET)))
    assert set(without_kernel(graph).values()) == set(WITHOUT_KERNEL.values())
    computations = shape_computations(graph)
    assert {node.op_type for node in computations} == set(SHAPE_COMPUTATIONS)
    assert {graph.types[node.input[-1]] for node in computations} == {"int64"}
    assert not waits(graph)


def test_a_raw_detector_waits_for_the_gpu_besides(graph_of):
    """It tells by values how many boxes to take; a lean one tells by shapes, which are in CPU memory anyway."""
    graph = typed(onnx.load(graph_of(DET, RAW)))
    assert set(without_kernel(graph).values()) == set(WITHOUT_KERNEL.values())
    assert {node.op_type for node in shape_computations(graph)} <= set(SHAPE_COMPUTATIONS)
    assert {node.op_type for node, _ in waits(graph)} == {"TopK", "NonMaxSuppression"}


def test_a_roialign_of_opset_15_has_a_kernel():
    assert not without_kernel(single("RoiAlign", [(FLOAT, 4), (FLOAT, 2), TensorProto.INT64], opset=15))


def test_every_row_of_the_list_is_some_graph_s(graph_of, named):
    name = "se_x152_arcmargin"
    models = [
        onnx.load(graph_of("inceptionv4_arcmargin", RAW)),
        with_pixels(graph_of(name), name),
        onnx.load(graph_of(DET)),
        onnx.load(graph_of(DET, RAW)),
        in_8_bits(named(DET)),
    ]
    assert {*KERNELS, *UNLISTED} <= {node.op_type for model in models for node in model.graph.node}


def single(op, inputs, *, opset=17, domain="", output=FLOAT):
    """A graph of one node. inputs: (type, rank) of each, or the type alone of a vector."""
    kinds = [kind if isinstance(kind, tuple) else (kind, 1) for kind in inputs]
    values = [helper.make_tensor_value_info(f"x{i}", kind, [None] * rank) for i, (kind, rank) in enumerate(kinds)]
    node = helper.make_node(op, [value.name for value in values], ["y"], domain=domain)
    made = helper.make_graph([node], "one", values, [helper.make_tensor_value_info("y", output, None)])
    return typed(helper.make_model(made, opset_imports=[helper.make_opsetid(domain, opset)], ir_version=8))


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (single("Relu", [TensorProto.INT32], output=TensorProto.INT32), "Relu-14: T is int32"),
        (single("Erf", [FLOAT]), "ai.onnx.Erf: no kernel"),
        (single("Relu", [FLOAT], opset=13), "Relu-13: kernels of 14 to 14"),
        (single("Conv", [(FLOAT, 4)] * 2, opset=22), "Conv-22: kernels of 11 to 21"),
        (single("Split", [FLOAT], opset=18), "Split-18: kernels of 13 to 17"),
        (single("Relu", [FLOAT], domain="com.example", opset=1), "com.example.Relu: no kernel"),
    ],
)
def test_a_node_outside_the_list_is_found(graph, why):
    assert list(without_kernel(graph).values()) == [why]


def test_a_shape_s_arithmetic_is_found_and_what_waits_for_the_gpu():
    """Of Reshape(x, Concat(Shape(x)[0:1], -1)) the slice and the concatenation; Expand by a sum of the GPU's waits."""
    constants = [helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in (("zero", 0), ("one", 1))]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["side"]),
        helper.make_node("Concat", ["side", "one"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["reshaped"]),
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Squeeze", ["places"], ["sizes"]),
        helper.make_node("Expand", ["one", "sizes"], ["y"]),
    ]
    given = helper.make_tensor_value_info("x", FLOAT, [None])
    made = [helper.make_tensor_value_info(name, kind, None) for name, kind in (("reshaped", 1), ("y", 7))]
    model = helper.make_graph(nodes, "shapes", [given], made, constants)
    graph = typed(helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert [node.op_type for node in shape_computations(graph)] == ["Slice", "Concat"]
    assert [(node.op_type, name) for node, name in waits(graph)] == [("Expand", "sizes")]
