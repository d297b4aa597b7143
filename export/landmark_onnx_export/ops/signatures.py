"""Fit the ops of a program to the bodies in `ops`, before paddle2onnx runs: names, slots, and what no body carries."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from landmark_onnx.errors import ExportError

PREFIX = "landmark_"
"""Hides an op from paddle2onnx's own mapper of the same name."""


@dataclass(frozen=True, slots=True)
class ProgramOp:
    """What decides the body of an op in a program: attributes, arguments by input slot, shapes by variable."""

    type: str
    attributes: Mapping[str, Any]
    inputs: Mapping[str, Sequence[str]]
    shapes: Mapping[str, Sequence[int]]

    def shape(self, slot: str) -> Sequence[int]:
        """Declared shape of a slot's first variable, -1 where open. Raises: ExportError if there is none."""
        name = self.inputs[slot][0]
        self.require(name in self.shapes, f"{slot} {name} is not declared")
        return self.shapes[name]

    def require(self, condition: bool, reason: str) -> None:
        """Raises: ExportError naming the op unless the condition holds."""
        if not condition:
            raise ExportError(f"op {self.type}: {reason}")

    def require_one_of(self, name: str, *allowed: object) -> object:
        """Value of an attribute, the first allowed one if it is absent. Raises: ExportError for any other value."""
        value = self.attributes.get(name, allowed[0])
        self.require(value in allowed, f"{name} = {value!r} has no ONNX body, only {' or '.join(map(repr, allowed))}")
        return value

    def require_one_image(self, slot: str) -> None:
        """Raises: ExportError where the slot's variable is declared as a batch of several images."""
        batch = self.shape(slot)[0]
        self.require(batch <= 1, f"{slot} has a batch of {batch}, only one image has an ONNX body")

    def require_fixed_threshold(self, eta: str, threshold: str) -> None:
        """Raises: ExportError for adaptive NMS: each box kept lowers a threshold above 0.5 by the factor eta."""
        value = self.attributes.get(eta, 1.0)
        fixed = value >= 1.0 or self.attributes.get(threshold, 0.0) <= 0.5
        self.require(fixed, f"{eta} = {value!r} (adaptive NMS) has no ONNX body, only 1.0")


def _own_name(call: ProgramOp) -> str:
    return call.type


def _affine_channel(call: ProgramOp) -> str:
    rank = len(call.shape("X"))
    last = call.require_one_of("data_layout", "AnyLayout", "NHWC", "NCHW") != "NCHW" or rank == 2
    call.require(last or rank == 4, f"X of rank {rank} has no ONNX body, only 2 or 4")
    return "affine_channel_nhwc" if last else "affine_channel"


def _batch_norm(call: ProgramOp) -> str:
    inference = call.attributes.get("is_test", False) and not call.attributes.get("trainable_statistics", False)
    call.require(inference or call.attributes.get("use_global_stats", False), "is_test = False has no ONNX body")
    last = call.require_one_of("data_layout", "NCHW", "AnyLayout", "NHWC") == "NHWC"
    return "batch_norm_nhwc" if last else "batch_norm"


def _box_coder(call: ProgramOp) -> str:
    code = call.require_one_of("code_type", "encode_center_size", "decode_center_size")
    name = "box_decode" if code == "decode_center_size" else "box_encode"
    return name if "PriorBoxVar" in call.inputs else f"{name}_constant"


def _collect_fpn_proposals(call: ProgramOp) -> str:
    rois, scores = (len(call.inputs[slot]) for slot in ("MultiLevelRois", "MultiLevelScores"))
    call.require(rois == scores, f"{rois} MultiLevelRois, {scores} MultiLevelScores")
    return call.type


def _distribute_fpn_proposals(call: ProgramOp) -> str:
    call.require_one_of("pixel_offset", True)
    return call.type


def _generate_proposals(call: ProgramOp) -> str:
    call.require_one_image("Scores")
    call.require_fixed_threshold("eta", "nms_thresh")
    call.require(call.attributes.get("nms_thresh", 1.0) > 0.0, "nms_thresh <= 0 (no NMS) has no ONNX body")
    return call.type


def _mul(call: ProgramOp) -> str:
    call.require_one_of("y_num_col_dims", 1)
    if call.attributes.get("x_num_col_dims", 1) != 1:
        return "mul_columns"
    return "mul" if len(call.shape("X")) == 2 else "mul_rows"


def _multiclass_nms(call: ProgramOp) -> str:
    numbers = call.shape("BBoxes")[-1]
    call.require(numbers in {4, -1}, f"BBoxes of {numbers} numbers have no ONNX body, only 4")
    call.require_fixed_threshold("nms_eta", "nms_threshold")
    for limit in ("nms_top_k", "keep_top_k"):
        call.require(call.attributes.get(limit) != 0, f"{limit} = 0 keeps nothing")
    if len(call.shape("Scores")) == 2:
        return "multiclass_nms_per_class"
    call.require_one_image("Scores")
    return "multiclass_nms_shared"


def _nearest_interp(call: ProgramOp) -> str:
    call.require_one_of("data_layout", "NCHW")
    call.require_one_of("interp_method", "nearest")
    names = {"SizeTensor": "to_sides", "OutSize": "to_size", "Scale": "by_scale"}
    return next((f"nearest_interp_{name}" for slot, name in names.items() if slot in call.inputs), "nearest_interp")


def _region(call: ProgramOp) -> str:
    call.require_one_image("X")
    call.require_one_of("aligned", False)
    return call.type


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a Paddle op meets a body: slots in the order of its parameters and results, and which body.

    Of the `optional` inputs the first present counts. `implied` inputs tell nothing about one image in inference: they
    are dropped, and so are outputs that are not listed.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    implied: frozenset[str] = frozenset()
    body: Callable[[ProgramOp], str] = _own_name


_COUNTS = frozenset({"RoisLod", "RoisNum", "MultiLevelRoIsNum"})
_NMS = Fit(inputs=("BBoxes", "Scores"), outputs=("Out", "Index", "NmsRoisNum"), implied=_COUNTS, body=_multiclass_nms)
_SIZES = ("SizeTensor", "OutSize", "Scale")

BODIES: Mapping[str, Fit] = MappingProxyType(
    {
        "affine_channel": Fit(inputs=("Bias", "Scale", "X"), outputs=("Out",), body=_affine_channel),
        "anchor_generator": Fit(inputs=("Input",), outputs=("Anchors", "Variances")),
        "batch_norm": Fit(
            inputs=("Bias", "Mean", "Scale", "Variance", "X"),
            outputs=("Y",),
            implied=frozenset({"MomentumTensor"}),
            body=_batch_norm,
        ),
        "box_clip": Fit(inputs=("ImInfo", "Input"), outputs=("Output",)),
        "box_coder": Fit(
            inputs=("PriorBox", "PriorBoxVar", "TargetBox"),
            outputs=("OutputBox",),
            optional=("PriorBoxVar",),
            body=_box_coder,
        ),
        "collect_fpn_proposals": Fit(
            inputs=("MultiLevelRois", "MultiLevelScores"),
            outputs=("FpnRois", "RoisNum"),
            implied=_COUNTS,
            body=_collect_fpn_proposals,
        ),
        "distribute_fpn_proposals": Fit(
            inputs=("FpnRois",),
            outputs=("MultiFpnRois", "RestoreIndex"),
            implied=_COUNTS,
            body=_distribute_fpn_proposals,
        ),
        "generate_proposals": Fit(
            inputs=("Anchors", "BboxDeltas", "ImInfo", "Scores", "Variances"),
            outputs=("RpnRois", "RpnRoiProbs", "RpnRoisNum"),
            body=_generate_proposals,
        ),
        "mul": Fit(inputs=("X", "Y"), outputs=("Out",), body=_mul),
        "multiclass_nms": _NMS,
        "multiclass_nms2": _NMS,
        "multiclass_nms3": _NMS,
        "nearest_interp": Fit(inputs=(*_SIZES, "X"), outputs=("Out",), optional=_SIZES, body=_nearest_interp),
        "roi_align": Fit(inputs=("ROIs", "X"), outputs=("Out",), implied=_COUNTS, body=_region),
        "roi_pool": Fit(inputs=("ROIs", "X"), outputs=("Out",), implied=_COUNTS, body=_region),
    }
)


def _value(attribute: Any) -> Any:
    """Value of an OpDesc.Attr: its one field beside name and type; a list that is empty has none."""
    return next((value for field, value in attribute.ListFields() if field.name not in {"name", "type"}), [])


def prepare(op_desc: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Fit an op of a program, whose type is in `BODIES`, to its body: name and slots change in place.

    shapes: declared shape of each variable of the program, -1 where open.
    Raises: ExportError naming the op and the attribute or slot that no body carries.
    """
    fit = BODIES[op_desc.type]
    inputs = {slot.parameter: list(slot.arguments) for slot in op_desc.inputs if slot.arguments}
    outputs = {slot.parameter: list(slot.arguments) for slot in op_desc.outputs if slot.arguments}
    call = ProgramOp(op_desc.type, {a.name: _value(a) for a in op_desc.attrs}, inputs, shapes)
    chosen = next((slot for slot in fit.optional if slot in inputs), None)
    order = [slot for slot in fit.inputs if slot not in fit.optional or slot == chosen]
    given = [slot for slot in fit.outputs if slot in outputs]
    strange = sorted(inputs.keys() - {*fit.inputs, *fit.implied})
    call.require(not strange, f"input {', '.join(strange)} has no ONNX body")
    call.require(inputs.keys() >= set(order), f"input {', '.join(s for s in order if s not in inputs)} is missing")
    call.require(given == [*fit.outputs[: len(given)]], f"outputs {', '.join(given)} have no ONNX body")
    op_desc.type = PREFIX + fit.body(call)
    for slots, arguments, names in ((op_desc.inputs, inputs, order), (op_desc.outputs, outputs, given)):
        del slots[:]
        for name in names:
            slots.add(parameter=name, arguments=arguments[name])
