"""ONNX files read and rewritten without the onnx package, against the onnx package."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

import fakes
from adopted import make_foreign
from landmark_onnx.errors import ModelFileError
from landmark_onnx.modelfile.onnx_file import is_onnx, relocated, weights_beside

BESIDE = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}


def nested(path):
    """A model with weights in the branches of an If, in an attribute, and among the initializers."""

    def tensor(name):
        return numpy_helper.from_array(np.arange(600, dtype=np.float32), name)

    def branch(name):
        made = helper.make_tensor_value_info(name, TensorProto.FLOAT, [600])
        return helper.make_graph([], name, [], [made], [tensor(name)])

    nodes = [
        helper.make_node("If", ["which"], ["x"], then_branch=branch("a"), else_branch=branch("b")),
        helper.make_node("Constant", [], ["y"], value=tensor("c")),
        helper.make_node("Sum", ["x", "y", "d"], ["out"]),
    ]
    which = helper.make_tensor_value_info("which", TensorProto.BOOL, [])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [600])
    model = helper.make_model(helper.make_graph(nodes, "nested", [which], [out], [tensor("d")]))
    onnx.save(model, path, convert_attribute=True, **BESIDE)
    return path


def test_what_an_onnx_model_is(tmp_path):
    assert is_onnx(make_foreign(tmp_path / "any.bin"))
    assert is_onnx(fakes.make_retrieval(tmp_path / "sealed.onnx"))
    data = make_foreign(tmp_path / "any.bin").read_bytes()
    for other in (b"", b"<html>", bytes(2000), data[:-1], data + b"x", b"\x0a\x01x" * 9, b'{"a": 1}'):
        (tmp_path / "other").write_bytes(other)
        assert not is_onnx(tmp_path / "other"), other[:20]


def test_weights_inside(tmp_path):
    assert weights_beside(make_foreign(tmp_path / "model.onnx")) is None


@pytest.mark.parametrize("make", [lambda path: make_foreign(path, **BESIDE), nested], ids=["plain", "nested"])
def test_weights_beside_get_another_name(make, tmp_path):
    path = make(tmp_path / "model.onnx")
    assert weights_beside(path) == tmp_path / "weights.bin"
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(relocated(path, "a longer name than before.bin"))
    assert weights_beside(moved) == tmp_path / "a longer name than before.bin"
    (tmp_path / "weights.bin").rename(tmp_path / "a longer name than before.bin")
    found, wanted = onnx.load(moved), onnx.load(path, load_external_data=False)
    (tmp_path / "a longer name than before.bin").rename(tmp_path / "weights.bin")
    load_external_data_for_model(wanted, str(tmp_path))
    assert found == wanted


@pytest.mark.parametrize("name", [b"../eight.b", b"/abs/eight", b"sub/eight.b"])
def test_weights_elsewhere_are_refused(name, tmp_path):
    path = make_foreign(tmp_path / "model.onnx", **BESIDE)
    path.write_bytes(path.read_bytes().replace(b"weights.bin", name.ljust(11, b"x")))
    with pytest.raises(ModelFileError, match=r"model\.onnx: wanted its weights inside it or in one file beside"):
        weights_beside(path)


def test_what_is_damaged_is_told(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match=r"model\.onnx: no ONNX model: "):
        weights_beside(tmp_path / "model.onnx")
