"""Variable streams and programs: what is whole is read exactly, what is not is refused before memory is asked for."""

import io
import math
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fakes
from landmark_onnx.errors import ExportError

TASKS = {"retrieval": fakes.RETRIEVAL, "cls": fakes.CLS, "det": fakes.DET}

fluid = pytest.importorskip("landmark_onnx_export.paddle.variables")

CODES = {dtype: code for code, dtype in fluid.DTYPES.items()}
FLOATS = np.arange(6, dtype="<f4").reshape(2, 3)


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def desc(code, dims):
    return b"\x08" + varint(code) + b"".join(b"\x10" + varint(size) for size in dims)


def stream(array, *, version=0, levels=0, tensor_version=0, message=None):
    """A variable as Paddle 1.x writes it, field by field."""
    message = desc(CODES[array.dtype], array.shape) if message is None else message
    head = struct.pack("<IQIi", version, levels, tensor_version, len(message))
    return head + message + array.tobytes()


@pytest.fixture
def saved(tmp_path):
    def save(data, name="weights"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return save


arrays = st.builds(
    lambda dtype, shape, seed: np.frombuffer(
        np.random.default_rng(seed).bytes(math.prod(shape) * dtype.itemsize), dtype
    ).reshape(shape),
    st.sampled_from(sorted(fluid.DTYPES.values(), key=str)),
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
    st.integers(0, 100),
)


def written(copy):
    out = io.BytesIO()
    copy(out)
    return out.getvalue()


@given(arrays, st.binary(max_size=40))
def test_round_trip(tmp_path_factory, array, before):
    path = tmp_path_factory.mktemp("stream") / "x"
    data = stream(array)
    path.write_bytes(before + data)
    variable = fluid.read_variable(path, "x", start=len(before))
    assert (variable.dtype, variable.shape, variable.nbytes) == (array.dtype, array.shape, array.nbytes)
    assert (variable.start, variable.end) == (len(before), len(before) + len(data))
    assert variable.read().tobytes() == array.tobytes()
    assert variable.read().shape == array.shape
    assert written(variable.copy_stream) == data
    assert written(variable.copy_data) == array.tobytes()


def test_copies_in_chunks(saved, monkeypatch):
    monkeypatch.setattr(fluid, "CHUNK_BYTES", 7)
    variable = fluid.read_variable(saved(stream(FLOATS)), "w")
    sizes = []
    variable.copy_data(type("Out", (), {"write": lambda self, chunk: sizes.append(len(chunk))})())
    assert sizes == [7, 7, 7, 3]


@pytest.mark.parametrize("length", range(len(stream(FLOATS))))
def test_every_truncation_is_refused_by_name(saved, length):
    path = saved(stream(FLOATS)[:length])
    with pytest.raises(ExportError, match=r"weights: variable w: wanted .*, got"):
        fluid.read_variable(path, "w")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (stream(FLOATS) + b"\0", "wanted 50 bytes, got 51"),
        (stream(FLOATS, version=1), "version 0, got 1"),
        (stream(FLOATS, levels=1), "LoD levels 0, got 1"),
        (stream(FLOATS, tensor_version=2), "tensor version 0, got 2"),
        (stream(FLOATS, message=b""), "tensor description of 1 to 1024 bytes, got 0"),
        (stream(FLOATS, message=desc(5, [2] * 600)), "tensor description of 1 to 1024 bytes, got 1202"),
        (stream(FLOATS, message=desc(5, [2, -3])), r"none negative, got \[2, -3\]"),
        (stream(FLOATS, message=desc(5, [1] * 12)), "up to 9 dims"),
        (stream(FLOATS, message=desc(5, [1 << 60])), "up to 9 dims"),
        (stream(FLOATS, message=desc(5, [1 << 40] * 9)), "bytes of float32 .*, got 24"),
        (stream(FLOATS, message=desc(5, [2, 4])), r"32 bytes of float32 \[2, 4\], got 24"),
        (stream(FLOATS, message=desc(22, [2, 3])), "a numeric data type, got VarType 22"),
        (stream(FLOATS, message=b"\x10\x02\x10\x03"), "a numeric data type, got VarType -1"),
        (stream(FLOATS, message=desc(5, [2, 3]) + b"\x18\x01"), "data type and dims, got tag 0x18"),
        (stream(FLOATS, message=desc(5, [2, 3]) + b"\x10"), "a whole tensor description"),
        (stream(FLOATS, message=b"\x08" + b"\x80" * 11), "a varint of more than 10 bytes"),
        (stream(FLOATS, message=b"\x08\x85"), "a varint that does not end"),
    ],
)
def test_a_forged_header_is_refused_by_name(saved, data, words):
    with pytest.raises(ExportError, match=f"variable w: .*{words}"):
        fluid.read_variable(saved(data), "w")


def test_a_claimed_size_is_not_allocated(saved):
    path = saved(stream(FLOATS, message=desc(5, [1 << 31])))
    tracemalloc.start()
    try:
        with pytest.raises(ExportError):
            fluid.read_variable(path, "w")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(st.integers(0, 49), st.integers(0, 255), st.integers(0, 50))
def test_a_changed_byte_is_an_error_or_a_variable_within_the_file(tmp_path_factory, position, byte, length):
    path = tmp_path_factory.mktemp("stream") / "x"
    data = bytearray(stream(FLOATS))
    data[position] = byte
    path.write_bytes(data[:length])
    try:
        variable = fluid.read_variable(path, "x")
    except ExportError:
        return
    assert variable.end == length
    assert variable.read().nbytes == variable.nbytes


@given(st.binary(max_size=80))
def test_any_bytes_are_an_error_or_a_variable(tmp_path_factory, tail):
    path = tmp_path_factory.mktemp("stream") / "x"
    path.write_bytes(bytes(16) + tail)
    try:
        end = fluid.read_variable(path, "x").end
    except ExportError:
        return
    assert end == 16 + len(tail)


def test_a_file_that_shrinks_is_noticed(saved):
    path = saved(stream(FLOATS))
    variable = fluid.read_variable(path, "w")
    path.write_bytes(stream(FLOATS)[:-4])
    for use in (variable.read, lambda: written(variable.copy_data), lambda: written(variable.copy_stream)):
        with pytest.raises(ExportError, match="variable w"):
            use()
    path.unlink()
    for use in (variable.read, lambda: written(variable.copy_data)):
        with pytest.raises(ExportError, match="variable w"):
            use()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ExportError, match="nowhere"):
        fluid.read_variable(tmp_path / "nowhere", "w")


def test_params_are_in_the_order_of_sorted_names(saved):
    first, second = np.ones(2, "<f4"), np.zeros((3, 1), "<i8")
    path = saved(b"--" + stream(first) + stream(second) + b"--")
    size = path.stat().st_size - 4
    variables = fluid.read_params(path, ["b.w_0", "B.w_0"], 2, size)
    assert list(variables) == ["B.w_0", "b.w_0"]
    assert variables["B.w_0"].read().tolist() == [1, 1]
    assert variables["b.w_0"].read().tolist() == [[0], [0], [0]]
    with pytest.raises(ExportError, match=r"wanted 32 bytes for the program's 1 variables, got 82"):
        fluid.read_params(path, ["a"], 2, size)
    with pytest.raises(ExportError, match=r"variable c: wanted a header of 20 bytes at byte 84, got 0 bytes"):
        fluid.read_params(path, ["a", "b", "c"], 2, size)


@pytest.mark.parametrize(
    ("head", "is_variable"),
    [
        (stream(FLOATS), True),
        (b"", True),
        (bytes(7), True),
        (bytes(16), True),
        (stream(FLOATS, version=1), False),
        (b"0.5 0.5", False),
        (b"\0\0\0\1", False),
    ],
)
def test_what_looks_like_a_variable(head, is_variable):
    assert fluid.looks_like_variable(head) == is_variable


@pytest.fixture
def program():
    pytest.importorskip("paddle")
    from landmark_onnx_export.paddle.builder import ProgramBuilder

    builder = ProgramBuilder()
    builder.feed("image", [-1, 3])
    builder.variable("b", [3], persistable=True)
    builder.variable("a", [3, -1], persistable=True)
    out = builder.op("mul", {"X": "image", "Y": "a"}, {"Out": [-1, -1]}, x_num_col_dims=1)
    builder.fetch(builder.op("scale", {"X": out}, {"Out": [-1, -1]}, scale=2.0, axes=[1], bias_after_scale=True))
    return builder.serialize()


@pytest.mark.paddle
def test_a_program_and_its_parameters(program):
    parsed = fluid.parse_program(program)
    assert [op.type for op in parsed.blocks[0].ops] == ["feed", "mul", "scale", "fetch"]
    assert fluid.persistable_names(parsed) == ["a", "b"]
    assert fluid.declared_shapes(parsed) == {"a": (3, -1), "b": (3,)}


@pytest.mark.paddle
def test_attributes_come_back_as_they_went_in(program):
    from landmark_onnx_export.paddle.builder import attributes

    ops = fluid.parse_program(program).blocks[0].ops
    assert attributes(ops[1]) == {"x_num_col_dims": 1}
    assert attributes(ops[2]) == {"scale": 2.0, "axes": [1], "bias_after_scale": True}


@pytest.mark.paddle
@pytest.mark.parametrize("data", [b"", b"\n", b"\x0a\x04\x08\x00\x10\x00", b"name,index\n", b"\xff" * 50, bytes(100)])
def test_what_is_no_program_is_refused_by_name(data):
    pytest.importorskip("paddle")
    with pytest.raises(ExportError, match=r"labels\.txt: not a Paddle program"):
        fluid.parse_program(data, "labels.txt")


@pytest.mark.paddle
def test_a_huge_program_is_refused_unparsed(program, monkeypatch):
    monkeypatch.setattr(fluid, "MAX_PROGRAM_BYTES", len(program) - 1)
    with pytest.raises(ExportError, match=f"wanted a program of at most {len(program) - 1} bytes, got {len(program)}"):
        fluid.parse_program(program)


@pytest.mark.paddle
def test_a_changed_program_is_an_error_or_a_program(program):
    generator = np.random.default_rng(0)
    for _ in range(500):
        data = bytearray(program)
        data[generator.integers(len(data))] = generator.integers(256)
        try:
            names = fluid.persistable_names(fluid.parse_program(bytes(data)))
        except ExportError:
            continue
        assert all(isinstance(name, str) for name in names)


@pytest.mark.paddle
def test_reading_programs_leaves_the_signals_of_the_process_alone():
    """Paddle takes SIGTERM over as it is imported, and an export would leave its files behind."""
    program = """if True:
        import sys
        from landmark_onnx_export.paddle.variables import framework_pb2
        assert framework_pb2().ProgramDesc().FindInitializationErrors() == []
        assert "paddle" not in sys.modules
        import paddle.base.proto.framework_pb2
        op = paddle.base.proto.framework_pb2.OpDesc(type="feed").SerializeToString()
        assert framework_pb2().OpDesc.FromString(op).type == "feed"
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def answering(fetched):
    """A program of one input, which answers tensors of those shapes and types."""
    from landmark_onnx_export.paddle.builder import ProgramBuilder

    builder = ProgramBuilder()
    builder.feed("image", [-1, 3, -1, -1])
    if len(fetched) == 3:
        builder.feed("im_info", [-1, 3])
    for name, (shape, kind) in fetched.items():
        builder.fetch(builder.variable(name, shape, kind))
    return fluid.parse_program(builder.serialize())


@pytest.mark.paddle
@pytest.mark.parametrize(
    ("task", "fetched", "words"),
    [
        (
            "retrieval",
            {"relu_9.tmp_0": ([-1, 2048, 7, 7], fluid.FP32)},
            r"wants the outputs embedding \(N, D\) in float32; the program has relu_9\.tmp_0 \(\?, 2048, 7, 7\): save",
        ),
        (
            "cls",
            {"out": ([-1, 12, 1], fluid.FP32)},
            r"probability \(N, C\) in float32; the program has out \(\?, 12, 1\)",
        ),
        ("cls", {"arg_max_0": ([-1, 1], 3)}, r"the program has arg_max_0 \(\?, 1\) of type INT64"),
        (
            "det",
            {"a": ([-1, 4], fluid.FP32), "b": ([-1, 6], fluid.FP32), "c": ([-1, 6, 4], fluid.FP32)},
            r"wants the outputs rois \(R, 4\), probability \(N, C\), deltas \(R, 4 C\) .* c \(\?, 6, 4\): save",
        ),
    ],
)
def test_outputs_that_do_not_fit_are_told_with_what_was_wanted(task, fetched, words):
    from landmark_onnx_export.paddle.edits import tensors

    with pytest.raises(ExportError, match=words):
        tensors(answering(fetched), fakes.small_card(TASKS[task]))


@pytest.mark.paddle
def test_outputs_that_fit():
    from landmark_onnx_export.paddle.edits import tensors

    assert tensors(answering({"out": ([-1, 12], fluid.FP32)}), fakes.small_card(fakes.CLS)).outputs == ("out",)
