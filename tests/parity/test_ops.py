"""Every ONNX body against the Paddle op it stands for: one-op programs through Paddle and through ONNX Runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from landmark_onnx.errors import ExportError

paddle = pytest.importorskip("paddle")
framework_pb2 = pytest.importorskip("paddle.base.proto.framework_pb2")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
fitting = pytest.importorskip("landmark_onnx_export.ops.signatures")
lowering = pytest.importorskip("landmark_onnx_export.ops.lower")
steps = pytest.importorskip("landmark_onnx_export.workers.tasks")

pytestmark = pytest.mark.paddle
few = settings(max_examples=10, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)
Array = np.ndarray[Any, Any]
FLOAT, INT = "float32", "int32"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One op: arrays by input slot, dtypes by output slot, attributes.

    lod: input slots whose rows Paddle has to be told to be of one image. aside: results that are not compared, by slot
    the dtype or the variable that is changed in place. levels: of results that distribute_fpn_proposals has.
    """

    op: str
    inputs: Mapping[str, Array | list[Array]]
    outputs: Mapping[str, str]
    attrs: Mapping[str, Any]
    lod: Sequence[str] = ()
    aside: Mapping[str, str] = field(default_factory=dict)
    levels: int = 1

    def arguments(self) -> dict[str, list[tuple[str, Array]]]:
        slots = {slot: value if isinstance(value, list) else [value] for slot, value in self.inputs.items()}
        return {slot: [(f"{slot}{i}", array) for i, array in enumerate(value)] for slot, value in slots.items()}

    def feeds(self) -> dict[str, Array]:
        return {name: array for arguments in self.arguments().values() for name, array in arguments}

    def results(self) -> dict[str, list[str]]:
        counts = {slot: self.levels if slot == "MultiFpnRois" else 1 for slot in self.outputs}
        return {slot: [f"{slot}_{i}" for i in range(count)] for slot, count in counts.items()}

    def program(self) -> Any:
        program = paddle.static.Program()
        block = program.global_block()
        for slot, arguments in self.arguments().items():
            for name, array in arguments:
                shape = [-1, *array.shape[1:]] if array.ndim > 1 else array.shape
                block.create_var(name=name, shape=shape, dtype=str(array.dtype), lod_level=int(slot in self.lod))
        for slot, names in self.results().items():
            for name in names:
                block.create_var(name=name, dtype=self.outputs[slot])
        aside = {}
        for slot, kind in self.aside.items():
            known = block.has_var(kind)
            aside[slot] = [kind if known else block.create_var(name=slot, dtype=kind).name]
        inputs = {slot: [name for name, _ in arguments] for slot, arguments in self.arguments().items()}
        block.append_op(type=self.op, inputs=inputs, outputs=self.results() | aside, attrs=dict(self.attrs))
        return program

    def desc(self) -> Any:
        paddle.enable_static()
        return framework_pb2.ProgramDesc.FromString(self.program().desc.serialize_to_string())


def run_paddle(case: Case) -> list[Array]:
    paddle.enable_static()
    feeds: dict[str, Any] = case.feeds()
    for name, array in [pair for slot in case.lod for pair in case.arguments()[slot]]:
        feeds[name] = paddle.base.core.DenseTensor()
        feeds[name].set(array, paddle.CPUPlace())
        feeds[name].set_recursive_sequence_lengths([[len(array)]])
    wanted = [name for names in case.results().values() for name in names]
    executor = paddle.static.Executor(paddle.CPUPlace())
    return [np.array(t) for t in executor.run(case.program(), feed=feeds, fetch_list=wanted, return_numpy=False)]


def prepare(desc: Any) -> Any:
    """The program's one op, fitted to its body."""
    [op] = desc.blocks[0].ops
    fitting.prepare(op, {var.name: list(var.type.dense_tensor.tensor.dims) for var in desc.blocks[0].vars})
    return op


def convert(case: Case, folder: Path) -> Any:
    """What paddle2onnx and `lower` make of the op between feed and fetch ops, as a saved inference model has them."""
    desc = case.desc()
    prepare(desc)
    block = desc.blocks[0]
    inner = framework_pb2.OpDesc.FromString(block.ops[0].SerializeToString())
    del block.ops[:]

    def ports(kind: int, end: str, pairs: Sequence[tuple[str, str]]) -> None:
        block.vars.add(name=end, persistable=True).type.type = kind
        for column, (source, target) in enumerate(pairs):
            port = block.ops.add(type=end)
            port.inputs.add(parameter="X", arguments=[source])
            port.outputs.add(parameter="Out", arguments=[target])
            port.attrs.add(name="col", type=0, i=column)

    ports(9, "feed", [("feed", name) for name in case.feeds()])
    block.ops.append(inner)
    ports(10, "fetch", [(name, "fetch") for names in case.results().values() for name in names])
    program, output = folder / "program", folder / "model.onnx"
    program.write_bytes(desc.SerializeToString())
    steps.convert(str(program), str(output), dict(lowering.CUSTOM_OPS))
    return lowering.lower(onnx.load(output))


def run_onnx(case: Case, model: Any) -> list[Array]:
    assert {entry.domain for entry in model.opset_import} == {""}
    for value in model.graph.output:  # Paddle declares what a run may change
        value.type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {name: array for name, array in case.feeds().items() if name in wanted})


def compare(case: Case, folder: Path, atol: float = 0.0) -> list[Array]:
    """Our results, which are Paddle's in number, dtype, shape and, within atol, value."""
    want, got = run_paddle(case), run_onnx(case, convert(case, folder))
    assert [(a.dtype, a.shape) for a in got] == [(a.dtype, a.shape) for a in want]
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)
    return got


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


def floats(*values: Any) -> Array:
    return np.array(values, np.float32)


def random_boxes(rng: np.random.Generator, count: int, side: float, least: float = 2.0) -> Array:
    low = rng.uniform(0, side, (count, 2))
    return np.concatenate([low, low + rng.uniform(least, side, (count, 2))], axis=1).astype(np.float32)


# --- Normalisation and resizing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "shape"),
    [("NCHW", (2, 3, 4, 5)), ("NHWC", (2, 4, 5, 3)), ("AnyLayout", (2, 4, 5, 3)), ("NCHW", (2, 3)), ("NHWC", (2, 3))],
)
def test_affine_channel(folder: Path, layout: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    inputs = {"X": rng.normal(size=shape), "Scale": rng.normal(size=3), "Bias": rng.normal(size=3)}
    case = Case(
        op="affine_channel",
        inputs={slot: array.astype(np.float32) for slot, array in inputs.items()},
        outputs={"Out": FLOAT},
        attrs={"data_layout": layout},
    )
    compare(case, folder, atol=1e-6)


def batch_norm(layout: str, shape: tuple[int, ...], **attrs: Any) -> Case:
    rng = np.random.default_rng(2)
    inputs = {slot: rng.uniform(0.5, 2, 3) for slot in ("Bias", "Mean", "Scale", "Variance")}
    inputs["X"] = rng.normal(size=shape)
    return Case(
        op="batch_norm",
        inputs={slot: array.astype(np.float32) for slot, array in inputs.items()},
        outputs={"Y": FLOAT},
        attrs={"is_test": True, "epsilon": 1e-3, "momentum": 0.9, "data_layout": layout, **attrs},
        aside={"MeanOut": "Mean0", "VarianceOut": "Variance0", "SavedMean": FLOAT, "SavedVariance": FLOAT},
    )


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (2, 3, 4, 5)), ("NHWC", (2, 4, 5, 3)), ("NCHW", (2, 3))])
def test_batch_norm(folder: Path, layout: str, shape: tuple[int, ...]) -> None:
    compare(batch_norm(layout, shape), folder, atol=1e-6)


def nearest(x: Array, more: Mapping[str, Any], **attrs: Any) -> Case:
    fixed = {"interp_method": "nearest", "data_layout": "NCHW"}
    return Case(op="nearest_interp", inputs={"X": x, **more}, outputs={"Out": FLOAT}, attrs={**fixed, **attrs})


sides = st.integers(1, 40)


@few
@example(height=2, width=3, out_h=83, out_w=165, align_corners=True)  # float32 and double round apart
@given(height=sides, width=sides, out_h=sides, out_w=sides, align_corners=st.booleans())
def test_nearest_interp_to_a_size(
    folder: Path, height: int, width: int, out_h: int, out_w: int, align_corners: bool
) -> None:
    x = np.arange(2 * height * width, dtype=np.float32).reshape(1, 2, height, width)
    compare(nearest(x, {}, out_h=out_h, out_w=out_w, align_corners=align_corners), folder)
    size = {"OutSize": np.array([out_h, out_w], np.int32)}
    compare(nearest(x, size, out_h=1, out_w=1, align_corners=align_corners), folder)
    side_list = {"SizeTensor": [np.array([out_h], np.int32), np.array([out_w], np.int32)]}
    compare(nearest(x, side_list, out_h=1, out_w=1, align_corners=align_corners), folder)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0, 0.5])
def test_nearest_interp_by_a_scale_before_a_size(folder: Path, scale: float, align_corners: bool) -> None:
    x = np.arange(2 * 6 * 10, dtype=np.float32).reshape(1, 2, 6, 10)
    [got] = compare(nearest(x, {}, scale=scale, out_h=3, out_w=3, align_corners=align_corners), folder)
    assert got.shape == (1, 2, int(6 * scale), int(10 * scale))
    compare(nearest(x, {"Scale": floats(scale)}, out_h=3, out_w=3, align_corners=align_corners), folder)


# --- Anchors and boxes --------------------------------------------------------------------------------------------


def anchors(height: int, width: int, **attrs: Any) -> Case:
    usual = {"anchor_sizes": [32.0, 64.0], "aspect_ratios": [0.5, 1.0, 2.0], "stride": [16.0, 16.0]}
    return Case(
        op="anchor_generator",
        inputs={"Input": np.zeros((1, 1, height, width), np.float32)},
        outputs={"Anchors": FLOAT, "Variances": FLOAT},
        attrs={**usual, "variances": [1.0, 1.0, 1.0, 1.0], "offset": 0.5, **attrs},
    )


positive = st.floats(0.125, 8.0, width=32)


@few
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    anchor_sizes=st.lists(st.floats(1.0, 600.0, width=32), min_size=1, max_size=4),
    aspect_ratios=st.lists(positive, min_size=1, max_size=4),
    stride=st.lists(st.floats(4.0, 64.0, width=32), min_size=2, max_size=2),
    variances=st.lists(positive, min_size=4, max_size=4),
    offset=st.floats(0.0, 1.0, width=32),
)
def test_anchor_generator(folder: Path, height: int, width: int, **attrs: Any) -> None:
    compare(anchors(height, width, **attrs), folder)


def test_anchor_sides_round_half_away_from_zero(folder: Path) -> None:
    """A stride of 5 gives a width of round(2.5) and a height of round(7.5): half to even gives 2 and 8."""
    got, _ = compare(anchors(1, 1, stride=[5.0, 5.0], aspect_ratios=[4.0, 2.5], anchor_sizes=[5.0]), folder)
    np.testing.assert_array_equal(got[0, 0, 0, 2:] - got[0, 0, 0, :2] + 1, [3, 12])


@pytest.mark.parametrize("im_info", [(30, 31, 1.5), (33.0, 45.0, 2.0), (400, 608, 0.25)])
def test_box_clip(folder: Path, im_info: tuple[float, ...]) -> None:
    """33 / 2 and 45 / 2 lie half-way: rounded away from zero to 17 and 23."""
    boxes = floats([-5, -7, 12.25, 13], [3, 4, 500, 600], [1700, 1800, 3000, 3000], [0, 0, 0, 0])
    case = Case(
        op="box_clip",
        inputs={"Input": boxes, "ImInfo": floats(im_info)},
        outputs={"Output": FLOAT},
        attrs={},
        lod=["Input"],
    )
    compare(case, folder)


@pytest.mark.parametrize("variance", ["none", "attribute", "input"])
@pytest.mark.parametrize("box_normalized", [True, False])
@pytest.mark.parametrize("code", [("encode_center_size", 0), ("decode_center_size", 0), ("decode_center_size", 1)])
def test_box_coder(folder: Path, code: tuple[str, int], box_normalized: bool, variance: str) -> None:
    code_type, axis = code
    rng = np.random.default_rng(3)
    prior = random_boxes(rng, 4, 80.0)
    inputs = {"PriorBox": prior, "TargetBox": random_boxes(rng, 3, 80.0)}
    if code_type == "decode_center_size":
        shape = (4, 3, 4) if axis else (3, 4, 4)
        inputs["TargetBox"] = rng.normal(size=shape).astype(np.float32)
    attrs = {"code_type": code_type, "box_normalized": box_normalized, "axis": axis}
    if variance == "attribute":
        attrs["variance"] = [0.1, 0.1, 0.2, 0.3]
    if variance == "input":
        inputs["PriorBoxVar"] = rng.uniform(0.1, 0.5, (4, 4)).astype(np.float32)
    compare(Case(op="box_coder", inputs=inputs, outputs={"OutputBox": FLOAT}, attrs=attrs), folder, atol=2e-4)


# --- Proposals ----------------------------------------------------------------------------------------------------


def proposals(rng: np.random.Generator, height: int, width: int, count: int, **attrs: Any) -> Case:
    """Random proposals around a map of stride 16, without equal scores."""
    cells = height * width * count
    scores = (rng.permutation(cells) + 0.5) / cells
    deltas = rng.normal(0, 0.5, (1, 4 * count, height, width))
    boxes = random_boxes(rng, cells, 16.0 * max(height, width)) - 16
    variances = rng.uniform(0.5, 1.5, (height, width, count, 4))
    scale = rng.uniform(0.5, 2)
    inputs = {
        "Scores": scores.reshape(1, count, height, width),
        "BboxDeltas": deltas,
        "ImInfo": np.array([[16 * height, 16 * width, scale]]),
        "Anchors": boxes.reshape(height, width, count, 4),
        "Variances": variances,
    }
    usual = {"pre_nms_topN": 600, "post_nms_topN": 100, "nms_thresh": 0.7, "min_size": 0.0, "eta": 1.0}
    return Case(
        op="generate_proposals",
        inputs={slot: array.astype(np.float32) for slot, array in inputs.items()},
        outputs={"RpnRois": FLOAT, "RpnRoiProbs": FLOAT, "RpnRoisNum": INT},
        attrs={**usual, **attrs},
    )


@settings(few, max_examples=25)
@given(
    seed=seeds,
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    count=st.integers(1, 6),
    pre_nms_topN=st.sampled_from([-1, 5, 40, 600]),
    post_nms_topN=st.sampled_from([-1, 3, 20]),
    nms_thresh=st.sampled_from([0.3, 0.5, 0.7, 0.9]),
    min_size=st.sampled_from([0.0, 2.0, 24.0]),
)
def test_generate_proposals(folder: Path, seed: int, height: int, width: int, count: int, **attrs: Any) -> None:
    compare(proposals(np.random.default_rng(seed), height, width, count, **attrs), folder, atol=1e-4)


def test_generate_proposals_needs_no_count(folder: Path) -> None:
    case = proposals(np.random.default_rng(4), 3, 4, 2)
    compare(replace(case, outputs={"RpnRois": FLOAT, "RpnRoiProbs": FLOAT}), folder, atol=1e-4)


def test_generate_proposals_clips_growth(folder: Path) -> None:
    """Deltas of 9 would be e ** 9 times an anchor; they are 62.5 times."""
    case = proposals(np.random.default_rng(5), 2, 2, 1)
    inputs = {**case.inputs, "BboxDeltas": np.full((1, 4, 2, 2), 9, np.float32), "ImInfo": floats([9e4, 9e4, 1])}
    rois, *_ = compare(replace(case, inputs=inputs), folder, atol=1e-2)
    assert rois.max() < 9e4 - 1


@few
@given(seed=seeds)
def test_generate_proposals_of_equal_scores(folder: Path, seed: int) -> None:
    """Up to 16 candidates Paddle's sort is stable, and its NMS starts from the end: the order is exact."""
    rng = np.random.default_rng(seed)
    case = proposals(rng, 2, 2, 4)
    scores = rng.integers(0, 3, (1, 4, 2, 2)).astype(np.float32) / 4
    compare(replace(case, inputs={**case.inputs, "Scores": scores}), folder, atol=1e-4)


@pytest.mark.parametrize("attrs", [{}, {"min_size": 16.0}, {"min_size": 16.5}])
def test_generate_proposals_filters_unscaled_sides(folder: Path, attrs: dict[str, Any]) -> None:
    """Sides of 31 pixels at scale 2 count (31 - 1) / 2 + 1 = 16."""
    case = proposals(np.random.default_rng(6), 1, 1, 1, **attrs)
    inputs = {
        **case.inputs,
        "Anchors": floats(10, 10, 40, 40).reshape(1, 1, 1, 4),
        "BboxDeltas": np.zeros((1, 4, 1, 1), np.float32),
        "ImInfo": floats([80, 80, 2]),
    }
    rois, *_ = compare(replace(case, inputs=inputs), folder)
    np.testing.assert_array_equal(rois, [[0] * 4] if attrs.get("min_size") == 16.5 else [[10, 10, 40, 40]])


def test_generate_proposals_counts_pixels_in_nms(folder: Path) -> None:
    """Boxes 3 and 4 pixels wide: IoU 3 / 4 with the +1 of both sides, 2 / 3 without."""
    case = proposals(np.random.default_rng(7), 1, 1, 2, nms_thresh=0.7)
    inputs = {
        **case.inputs,
        "Anchors": floats([5, 5, 7, 99], [5, 5, 8, 99]).reshape(1, 1, 2, 4),
        "BboxDeltas": np.zeros((1, 8, 1, 1), np.float32),
        "ImInfo": floats([200, 200, 1]),
    }
    rois, *_ = compare(replace(case, inputs=inputs), folder)
    assert len(rois) == 1


def test_generate_proposals_drops_a_centre_outside(folder: Path) -> None:
    """Clipped to the right edge of 20.5 pixels, a box of no width has its centre at 20: inside. Below 0.5 it is not."""
    for width in (20.5, 0.25):
        case = proposals(np.random.default_rng(8), 1, 1, 1)
        inputs = {
            **case.inputs,
            "Anchors": floats(100, 5, 120, 30).reshape(1, 1, 1, 4),
            "BboxDeltas": np.zeros((1, 4, 1, 1), np.float32),
            "ImInfo": floats([50, width, 1]),
        }
        _, probs, _ = compare(replace(case, inputs=inputs), folder)
        assert (probs > 0) == (width > 1)


def test_generate_proposals_returns_one_zero_box_if_none_is_left(folder: Path) -> None:
    rois, probs, number = compare(proposals(np.random.default_rng(9), 3, 4, 2, min_size=1000.0), folder)
    assert rois.shape == (1, 4)
    assert not rois.any()
    assert not probs.any()
    assert number == [1]


def test_generate_proposals_refuses_two_images_at_run_time(folder: Path) -> None:
    case = proposals(np.random.default_rng(10), 3, 4, 2)
    model = convert(case, folder)
    twice = {**case.inputs, "Scores": np.repeat(case.inputs["Scores"], 2, axis=0)}
    with pytest.raises(Exception, match=r"Squeeze|Dimension of input"):
        run_onnx(replace(case, inputs=twice), model)


# --- Regions of interest ------------------------------------------------------------------------------------------


def regions(op: str, rois: Array, x: Array, **attrs: Any) -> Case:
    usual = {"pooled_height": 7, "pooled_width": 5, "spatial_scale": 0.0625}
    aside = {"Argmax": "int64"} if op == "roi_pool" else {}
    inputs = {"X": x, "ROIs": rois}
    return Case(op=op, inputs=inputs, outputs={"Out": FLOAT}, attrs={**usual, **attrs}, lod=["ROIs"], aside=aside)


def odd_rois(rng: np.random.Generator, side: float) -> Array:
    """Inside, across the border, outside, of no area, upside down, and at half cells, which round away from zero."""
    some = random_boxes(rng, 6, side, least=0.0)
    far = floats([-90, -80, -40, -30], [-9, -8, 30, 2 * side], [4 * side, 4 * side, 5 * side, 5 * side])
    points = floats([8, 8, 8, 8], [0, 0, 0, 0], [50, 60, 20, 10], [8, 24, 40, 56], [24, 8, 72, 40], [-8, -24, 40, 56])
    return np.concatenate([some, far, points])


@few
@given(
    seed=seeds,
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    sampling_ratio=st.sampled_from([-1, 0, 1, 3]),
    pooled_height=st.integers(1, 8),
    pooled_width=st.integers(1, 8),
    spatial_scale=st.sampled_from([0.0625, 0.25, 1 / 3]),
)
def test_roi_align(folder: Path, seed: int, height: int, width: int, **attrs: Any) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1, 3, height, width)).astype(np.float32)
    compare(regions("roi_align", odd_rois(rng, 16.0 * max(height, width)), x, **attrs), folder, atol=1e-5)


@settings(few, max_examples=20)
@given(
    seed=seeds,
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    pooled_height=st.integers(1, 8),
    pooled_width=st.integers(1, 8),
    spatial_scale=st.sampled_from([0.0625, 0.25, 1 / 3]),
)
def test_roi_pool(folder: Path, seed: int, height: int, width: int, **attrs: Any) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(-1, 1, (1, 3, height, width)).astype(np.float32)
    compare(regions("roi_pool", odd_rois(rng, 16.0 * max(height, width)), x, **attrs), folder)


@pytest.mark.parametrize("op", ["roi_align", "roi_pool"])
@pytest.mark.parametrize("count", [0, 1])
def test_regions_of_few_rois(folder: Path, op: str, count: int) -> None:
    """No roi at all is what distribute_fpn_proposals gives to a level without any; Paddle's roi_pool cannot run it."""
    rois = floats([16, 16, 160, 100])[:count]
    case = regions(op, rois, np.random.default_rng(11).random((1, 3, 10, 12), np.float32))
    if count or op == "roi_align":
        compare(case, folder, atol=1e-6)
    else:
        [got] = run_onnx(case, convert(case, folder))
        assert got.shape == (0, 3, 7, 5)


@pytest.mark.parametrize("op", ["roi_align", "roi_pool"])
def test_regions_refuse_two_images_at_run_time(folder: Path, op: str) -> None:
    case = regions(op, floats([16, 16, 160, 100]), np.ones((2, 3, 10, 12), np.float32))
    with pytest.raises(Exception, match=r"Squeeze|Dimension of input"):
        run_onnx(case, convert(case, folder))


def levels(rois: Array, **attrs: Any) -> Case:
    usual = {"min_level": 2, "max_level": 5, "refer_level": 4, "refer_scale": 224, **attrs}
    return Case(
        op="distribute_fpn_proposals",
        inputs={"FpnRois": rois},
        outputs={"MultiFpnRois": FLOAT, "RestoreIndex": INT},
        attrs=usual,
        lod=["FpnRois"],
        levels=usual["max_level"] - usual["min_level"] + 1,
    )


@few
@given(seed=seeds, count=st.integers(1, 40), refer_scale=st.sampled_from([224, 100]), max_level=st.integers(2, 6))
def test_distribute_fpn_proposals(folder: Path, seed: int, count: int, **attrs: Any) -> None:
    rois = random_boxes(np.random.default_rng(seed), count, 500.0)
    compare(levels(rois, **attrs), folder)


def test_distribute_fpn_proposals_at_the_edges_of_levels(folder: Path) -> None:
    """A side that is a power of two of refer_scale is the first of a level; Paddle 2 and later add 1e-6 to be sure."""
    sides = np.array([55, 56, 57, 111, 112, 113, 223, 224, 225, 447, 448, 449, 896, 1792])
    squares = [[0, 0, side - 1, side - 1] for side in sides]
    results = compare(levels(floats(*squares), max_level=7), folder)
    assert [len(rois) for rois in results[:-1]] == [4, 3, 3, 2, 1, 1]


def test_distribute_fpn_proposals_puts_boxes_of_no_area_in_the_lowest_level(folder: Path) -> None:
    compare(levels(floats([5, 5, 4, 4], [5, 5, 5, 5], [9, 9, 2, 30], [9, 9, -999, -999])), folder)


def collected(scores: Sequence[Array], post_nms_topN: int) -> Case:  # noqa: N803
    rng = np.random.default_rng(12)
    inputs = {
        "MultiLevelRois": [random_boxes(rng, len(level), 99.0) for level in scores],
        "MultiLevelScores": [level.astype(np.float32).reshape(-1, 1) for level in scores],
    }
    attrs = {"post_nms_topN": post_nms_topN}
    return Case(op="collect_fpn_proposals", inputs=inputs, outputs={"FpnRois": FLOAT}, attrs=attrs, lod=list(inputs))


@few
@given(seed=seeds, counts=st.lists(st.integers(1, 20), min_size=1, max_size=5), post_nms_topN=st.integers(1, 60))
def test_collect_fpn_proposals(folder: Path, seed: int, counts: list[int], post_nms_topN: int) -> None:  # noqa: N803
    rng = np.random.default_rng(seed)
    compare(collected([rng.random(count) for count in counts], post_nms_topN), folder)


@few
@given(seed=seeds, post_nms_topN=st.integers(1, 40))
def test_collect_fpn_proposals_of_equal_scores(folder: Path, seed: int, post_nms_topN: int) -> None:  # noqa: N803
    rng = np.random.default_rng(seed)
    compare(collected([rng.integers(0, 3, count) for count in (9, 1, 20)], post_nms_topN), folder)


# --- Detections ---------------------------------------------------------------------------------------------------


def detections(boxes: Array, scores: Array, op: str = "multiclass_nms", **attrs: Any) -> Case:
    """boxes: (M, 4) shared or (M, C, 4); scores: (M, C)."""
    shared = boxes.ndim == 2
    usual = {"background_label": 0, "score_threshold": 0.1, "nms_top_k": 20, "keep_top_k": 10, "nms_threshold": 0.5}
    more = {} if op == "multiclass_nms" else {"Index": INT, "NmsRoisNum": INT}
    return Case(
        op=op,
        inputs={"BBoxes": boxes[None] if shared else boxes, "Scores": scores.T[None].copy() if shared else scores},
        outputs={"Out": FLOAT, **more},
        attrs={**usual, "nms_eta": 1.0, "normalized": False, **attrs},
        lod=() if shared else ("BBoxes", "Scores"),
    )


def random_detections(rng: np.random.Generator, rows: int, classes: int, per_class: bool) -> tuple[Array, Array]:
    boxes = random_boxes(rng, rows * classes if per_class else rows, 30.0)
    scores = rng.random((rows, classes), np.float32)
    return (boxes.reshape(rows, classes, 4) if per_class else boxes), scores


@settings(few, max_examples=25)
@given(
    seed=seeds,
    rows=st.integers(1, 40),
    classes=st.integers(2, 6),
    per_class=st.booleans(),
    op=st.sampled_from(["multiclass_nms", "multiclass_nms3"]),
    background_label=st.sampled_from([-1, 0, 1]),
    score_threshold=st.sampled_from([0.0, 0.3]),
    nms_top_k=st.sampled_from([-1, 1, 12]),
    keep_top_k=st.sampled_from([-1, 1, 7, 100]),
    nms_threshold=st.sampled_from([0.2, 0.5]),
    normalized=st.booleans(),
)
def test_multiclass_nms(
    folder: Path, seed: int, rows: int, classes: int, per_class: bool, op: str, **attrs: Any
) -> None:
    boxes, scores = random_detections(np.random.default_rng(seed), rows, classes, per_class)
    scores[0, 1 - max(attrs["background_label"], 0)] = 0.95  # at least one detection
    compare(detections(boxes, scores, op, **attrs), folder)


@few
@given(seed=seeds, per_class=st.booleans(), keep_top_k=st.sampled_from([-1, 3, 8]))
def test_multiclass_nms_of_equal_scores(folder: Path, seed: int, per_class: bool, keep_top_k: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_detections(rng, 25, 4, per_class)
    equal = (np.floor(scores * 4) / 4 + 0.125).astype(np.float32)
    compare(detections(boxes, equal, "multiclass_nms3", keep_top_k=keep_top_k), folder)


@pytest.mark.parametrize("normalized", [True, False])
def test_multiclass_nms_counts_pixels_unless_normalized(folder: Path, normalized: bool) -> None:
    """IoU 3 / 4 with the +1, 2 / 3 without."""
    boxes = floats([5, 5, 7, 99], [5, 5, 8, 99])
    scores = floats([0, 0.9], [0, 0.8])
    [got] = compare(detections(boxes, scores, nms_threshold=0.7, normalized=normalized), folder)
    assert len(got) == (2 if normalized else 1)


@pytest.mark.parametrize("per_class", [True, False])
def test_multiclass_nms_without_a_detection(folder: Path, per_class: bool) -> None:
    """A score at the threshold is none. Paddle's first op says so by one row [-1], its third by no row, like ours."""
    boxes, scores = random_detections(np.random.default_rng(13), 6, 3, per_class)
    low = np.minimum(scores, np.float32(0.1))
    case = detections(boxes, low)
    np.testing.assert_array_equal(run_paddle(case)[0], [[-1]])
    assert run_onnx(case, convert(case, folder))[0].shape == (0, 6)
    third = detections(boxes, low, "multiclass_nms3")
    assert [a.shape for a in run_onnx(third, convert(third, folder))] == [(0, 6), (0, 1), (1,)]


# --- What has no body ---------------------------------------------------------------------------------------------


def some_proposals(**attrs: Any) -> Case:
    return proposals(np.random.default_rng(14), 2, 2, 1, **attrs)


def some_regions(**attrs: Any) -> Case:
    return regions("roi_align", floats([0, 0, 9, 9]), np.zeros((1, 1, 2, 2), np.float32), **attrs)


def some_detections(**attrs: Any) -> Case:
    return detections(floats([0, 0, 9, 9]), floats([0, 1]), **attrs)


image = np.zeros((1, 1, 2, 2), np.float32)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (some_proposals(eta=0.9), r"op generate_proposals: eta = 0\.8999.* \(adaptive NMS\)"),
        (some_proposals(nms_thresh=0.0), "op generate_proposals: nms_thresh <= 0"),
        (some_detections(nms_eta=0.9, nms_threshold=0.6), "op multiclass_nms: nms_eta"),
        (some_detections(keep_top_k=0), "op multiclass_nms: keep_top_k = 0"),
        (detections(np.zeros((1, 8), np.float32), floats([0, 1])), "op multiclass_nms: BBoxes of 8 numbers"),
        (some_regions(aligned=True), "op roi_align: aligned = True"),
        (levels(floats([0, 0, 9, 9]), pixel_offset=False), "op distribute_fpn_proposals: pixel_offset = False"),
        (nearest(image, {}, out_h=1, out_w=1, data_layout="NHWC"), "op nearest_interp: data_layout = 'NHWC'"),
        (nearest(image, {}, out_h=1, out_w=1, interp_method="bilinear"), "op nearest_interp: interp_method"),
        (batch_norm("NCHW", (2, 3, 4, 5), is_test=False), "op batch_norm: is_test = False"),
    ],
)
def test_refuses(case: Case, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        prepare(case.desc())


def test_adaptive_nms_at_a_low_threshold_is_plain_nms(folder: Path) -> None:
    compare(some_proposals(eta=0.9, nms_thresh=0.5), folder, atol=1e-4)


def test_refuses_a_batch(folder: Path) -> None:
    desc = some_proposals().desc()
    [scores] = [var for var in desc.blocks[0].vars if var.name == "Scores0"]
    scores.type.dense_tensor.tensor.dims[0] = 2
    with pytest.raises(ExportError, match="op generate_proposals: Scores has a batch of 2"):
        prepare(desc)


def test_refuses_an_unknown_or_missing_slot() -> None:
    [op] = some_regions().desc().blocks[0].ops
    op.inputs.add(parameter="Mask", arguments=["mask"])
    with pytest.raises(ExportError, match="op roi_align: input Mask has no ONNX body"):
        fitting.prepare(op, {"X0": [1, 1, 2, 2]})
    del op.inputs[:]
    with pytest.raises(ExportError, match="op roi_align: input ROIs, X is missing"):
        fitting.prepare(op, {})


def test_prepare_orders_slots_and_drops_those_that_one_image_implies() -> None:
    """A program of 2019: roi_align without `aligned`, and generate_proposals with a LoD that nothing needs."""
    [op] = some_proposals().desc().blocks[0].ops
    op.outputs.add(parameter="RpnRoisLod", arguments=["lod"])
    fitting.prepare(op, {"Scores0": [-1, 1, 2, 2]})
    assert op.type == "landmark_generate_proposals"
    assert [slot.parameter for slot in op.inputs] == ["Anchors", "BboxDeltas", "ImInfo", "Scores", "Variances"]
    assert [slot.parameter for slot in op.outputs] == ["RpnRois", "RpnRoiProbs", "RpnRoisNum"]
    [op] = some_regions().desc().blocks[0].ops
    op.inputs.add(parameter="RoisLod", arguments=["lod"])
    fitting.prepare(op, {"X0": [-1, 1, -1, -1]})
    assert [slot.parameter for slot in op.inputs] == ["ROIs", "X"]
