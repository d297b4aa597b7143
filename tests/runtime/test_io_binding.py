import types

import numpy as np
import onnxruntime
import pytest

import fakes
from landmark_onnx.runtime import io_binding as binding
from landmark_onnx.runtime.io_binding import Bindings


@pytest.fixture
def session(tmp_path):
    path = fakes.make_retrieval(tmp_path / "model.onnx", dim=8)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def image(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("fixed", [True, False])
def test_bound_runs_answer_as_plain_ones_and_leave_their_arrays_alone(session, fixed):
    bindings = Bindings(onnxruntime, session, "cpu", fixed=fixed, graph=False)
    given, wanted, got = [], [], []
    for seed, count, side in [(0, 1, 8), (1, 2, 8), (2, 1, 8), (3, 1, 12), (4, 1, 8), (5, 2, 8)]:
        array = image(seed, count, 3, side, side)
        given.append((array, array.copy()))
        wanted.append(session.run(["embedding"], {"image": array})[0])
        got += bindings.run(["embedding"], {"image": array})
    for (array, before), plain, bound in zip(given, wanted, got, strict=True):
        np.testing.assert_array_equal(array, before)
        np.testing.assert_array_equal(bound, plain)


def test_outputs_that_change_their_shape_are_not_bound(tmp_path):
    path = fakes.make_det(tmp_path / "det.onnx", classes=4, rois=6)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    bindings = Bindings(onnxruntime, session, "cpu", fixed=False, graph=False)
    feeds = {"image": image(0, 1, 3, 32, 32), "im_info": np.array([[32, 32, 1]], np.float32)}
    names = ["rois", "probability", "deltas"]
    for plain, bound in zip(session.run(names, feeds), bindings.run(names, feeds), strict=True):
        np.testing.assert_array_equal(plain, bound)


def test_buffers_are_made_once_a_shape_and_the_oldest_are_let_go(session, monkeypatch):
    monkeypatch.setattr(binding, "KEPT", 2)
    bindings = Bindings(onnxruntime, session, "cpu", fixed=True, graph=False)
    made = []
    make = bindings._make
    monkeypatch.setattr(bindings, "_make", lambda outputs, feeds: made.append(1) or make(outputs, feeds))
    for side, total in [(8, 1), (8, 1), (12, 2), (8, 2), (16, 3), (8, 3), (12, 4)]:
        bindings.run(["embedding"], {"image": image(0, 1, 3, side, side)})
        assert len(made) == total
        assert len(bindings._sets) <= 2


def test_each_shape_has_a_graph_of_its_own_that_is_not_captured_before_its_buffers_are_there():
    """A stand-in: a CUDA graph takes a GPU."""
    runs = []

    class Options:
        def add_run_config_entry(self, key, value):
            self.entry = (key, value)

    class Binding:
        def __init__(self):
            self.bound = []

        def bind_ortvalue_input(self, name, value):
            self.bound.append((name, value))

        def bind_output(self, name, *where):
            self.bound.append((name, where))

        def bind_ortvalue_output(self, name, value):
            self.bound.append((name, value))

        def get_outputs(self):
            return ["buffer"]

        def copy_outputs_to_cpu(self):
            return [np.zeros(1)]

    class Value:
        @staticmethod
        def ortvalue_from_numpy(array, device, device_id):
            return types.SimpleNamespace(where=(device, device_id), update_inplace=lambda array: None)

    session = types.SimpleNamespace(
        io_binding=Binding,
        run_with_iobinding=lambda bound, options: runs.append((options.entry, bound.bound[-1][1])),
    )
    ort = types.SimpleNamespace(OrtValue=Value, RunOptions=Options)
    bindings = Bindings(ort, session, "cuda", 1, fixed=True, graph=True)
    for side in (8, 8, 12):
        bindings.run(["embedding"], {"image": image(0, 1, 3, side, side)})
    key = "gpu_graph_id"
    assert runs == [
        ((key, "-1"), ("cuda", 1)),
        ((key, "1"), "buffer"),
        ((key, "1"), "buffer"),
        ((key, "-1"), ("cuda", 1)),
        ((key, "2"), "buffer"),
    ]
