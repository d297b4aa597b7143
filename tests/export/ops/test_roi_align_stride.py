"""Bins that nobody reads are not pooled, the answers stay; and where they are read, everything is pooled."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx import helper

from graphs import paddle_model, paddle_node, run
from landmark_onnx_export.ops import lower as lowering


def head(readers: list[Any], **attrs: Any) -> Any:
    """A roi_align of 14x14 bins, or what `attrs` says, and what reads it."""
    shapes = {"x": np.empty((1, 3, 9, 9), np.float32), "rois": np.empty((1, 4), np.float32)}
    weights = {name: np.empty((2, 3, 1, 1), np.float32) for reader in readers for name in reader.input[1:2]}
    attrs = {"pooled_height": 14, "pooled_width": 14, "spatial_scale": 0.0625, "sampling_ratio": 0, **attrs}
    outputs = {reader.output[0]: np.empty((1, 2, 7, 7), np.float32) for reader in readers}
    align = paddle_node("roi_align", ["rois", "x"], ["pooled"], **attrs)
    return paddle_model([align, *readers], shapes | weights, outputs)


def conv(name: str, stride: int = 2, kernel: int = 1, pad: int = 0, source: str = "pooled") -> Any:
    attrs = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    return helper.make_node("Conv", [source, f"{name}.w"], [name], **attrs)


def aligns(model: Any) -> list[tuple[int, int]]:
    """Bins and points of every RoiAlign after lowering."""
    found = []
    for node in lowering.lower(model).graph.node:
        if node.op_type == "RoiAlign":
            values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            found.append((values["output_height"], values["sampling_ratio"]))
    return found


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 12),
    size=st.floats(0.0, 900.0),
    step=st.integers(2, 4),
    pooled_height=st.integers(1, 14),
    pooled_width=st.integers(1, 14),
    spatial_scale=st.sampled_from([0.0625, 0.25, 1 / 3]),
)
def test_the_answers_are_those_of_the_whole_grid(seed: int, count: int, size: float, step: int, **attrs: Any) -> None:
    """Rois of all sizes, at the border, beyond it and of no area, in one call; also none at all."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-60, 220, (count, 2))
    rois = np.concatenate([corner, corner + rng.uniform(0, 1, (count, 2)) * size], axis=1).astype(np.float32)
    feeds = {"x": rng.normal(size=(1, 3, 11, 9)).astype(np.float32), "rois": rois}
    feeds |= {f"{name}.w": rng.normal(size=(2, 3, 1, 1)).astype(np.float32) for name in ("a", "b")}
    model = head([conv("a", step), conv("b", step)], **attrs)
    assert len(aligns(model)) == 2
    wanted, got = (run(lowering.lower(model, raw=raw), feeds) for raw in (True, False))
    for one, other in zip(wanted, got, strict=True):
        assert one.shape == other.shape
        # A point within a rounding error of -1 or of the far side is on one side of it here, on the other there.
        near = np.isclose(one, other, rtol=0, atol=1e-3)
        assert near.mean() > 0.99 if near.size else True


def test_a_c4_head_is_read_at_every_second_bin() -> None:
    assert aligns(head([conv("a"), conv("b")])) == [(7, 1), (14, 0)]


@pytest.mark.parametrize(
    ("readers", "attrs"),
    [
        ([conv("a", stride=1)], {}),
        ([conv("a"), conv("b", stride=3)], {}),
        ([conv("a", kernel=3, pad=1)], {}),
        ([conv("a", pad=1)], {}),
        ([conv("a"), helper.make_node("Relu", ["pooled"], ["b"])], {}),
        ([conv("a")], {"sampling_ratio": 2}),
    ],
    ids=["no stride", "two strides", "3x3", "padding", "another reader", "fixed points"],
)
def test_otherwise_the_whole_grid_is_pooled(readers: list[Any], attrs: dict[str, int]) -> None:
    assert aligns(head(readers, **attrs)) == [(14, attrs.get("sampling_ratio", 0))]


def test_a_grid_that_is_an_output_is_pooled() -> None:
    model = head([conv("a")])
    model.graph.output.append(helper.make_tensor_value_info("pooled", 1, [None] * 4))
    assert aligns(model) == [(14, 0)]
