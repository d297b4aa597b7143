"""Programs of Paddle 3, read and edited without Paddle."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import fakes
from landmark_onnx.errors import ExportError
from pir_programs import BIAS, SHAPES, WEIGHT, program

pir = pytest.importorskip("landmark_onnx_export.paddle.pir")
variables = pytest.importorskip("landmark_onnx_export.paddle.variables")


def params_file(path, values):
    with path.open("wb") as out:
        for name in sorted(values):
            out.write(variables.stream_head(values[name].shape, values[name].dtype) + values[name].tobytes())
    return variables.read_params(path, list(values))


def test_what_a_program_declares_is_read():
    read = pir.parse_pir(program())
    assert {name: list(shape) for name, shape in read.parameters.items()} == SHAPES
    assert read.ops == {"mean", "matmul", "add"}
    tensors = read.tensors(fakes.small_card(fakes.RETRIEVAL))
    assert (tensors.inputs, tensors.outputs) == (("x",), ("y",))


def test_it_is_told_by_its_first_bytes_whatever_space_is_in_them():
    data = program()
    assert pir.looks_like_pir(data[:256])
    assert pir.looks_like_pir(json.dumps(json.loads(data), indent=2).encode()[:256])
    assert not pir.looks_like_pir(b'{"base_code": {"magic": "other"}}')
    assert not pir.looks_like_pir(b'{"a": 1}')


@given(st.lists(st.integers(1, 9999), min_size=4, max_size=4))
def test_the_sizes_of_an_image_are_opened_and_its_channels_kept(image):
    [feed] = pir.parse_pir(pir.with_open_sizes(program(tuple(image)))).feeds
    assert feed.dims == (-1, image[1], -1, -1)


def test_the_shape_that_the_input_op_says_is_opened_too():
    data = json.loads(pir.with_open_sizes(program((1, 3, 224, 224))))
    [feed] = [op for op in data["program"]["regions"][0]["blocks"][0]["ops"] if op["#"] == "1.data"]
    assert next(each["AT"]["D"] for each in feed["A"] if each["N"] == "shape") == [-1, 3, -1, -1]


def test_float16_becomes_float32_and_all_else_stays():
    half = pir.in_float32(program(dtype="f16", long_dtype="float16"))
    assert json.loads(half) == json.loads(program())
    assert json.loads(pir.in_float32(program())) == json.loads(program())


@given(arrays.arrays("<f2", (3, 4), elements=st.floats(width=16, allow_nan=False)))
def test_float16_weights_are_widened_without_a_loss(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("widened")
    given = {BIAS: np.arange(4, dtype="<f4"), WEIGHT: values}
    wide = pir.widened(params_file(folder / "params", given), folder)
    for name, value in given.items():
        assert wide[name].dtype == np.float32
        np.testing.assert_array_equal(wide[name].read(), value.astype("<f4"))


def test_float32_weights_are_left_where_they_lie(tmp_path):
    given = params_file(tmp_path / "params", {WEIGHT: np.ones((3, 4), "<f4")})
    assert pir.widened(given, tmp_path) is given


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"base_code":{"magic":"pir"}}', "its ops cannot be read: KeyError"),
        (b'{"base_code":{"magic":"pir"}, ', "x.json: not a program of Paddle 3"),
        (b"[1]", "x.json: not a program of Paddle 3"),
        (program().replace(b'"col"', b'"row"'), "an op 1.fetch without the attribute col"),
        (b" " * ((16 << 20) + 1), "wanted a program of at most 16777216 bytes"),
    ],
)
def test_what_is_no_such_program_is_refused(data, words):
    with pytest.raises(ExportError, match=words):
        pir.parse_pir(data, "x.json")


def test_a_program_of_another_task_is_refused():
    with pytest.raises(ExportError, match=r"task det has inputs .*; the program has inputs x and outputs y"):
        pir.parse_pir(program()).tensors(fakes.small_card(fakes.DET))
    with pytest.raises(ExportError, match=r"wanted inputs image \(rank 4\); got x \(rank 2\)"):
        pir.parse_pir(program((-1, 3))).tensors(fakes.small_card(fakes.CLS))
