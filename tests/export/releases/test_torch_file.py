"""State dicts of torch's older form: what they hold is read to the bit, and nothing in them runs or is believed."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import torch_files
from landmark_onnx.cards.releases import TORCH_HEAD
from landmark_onnx.errors import ExportError
from torch_files import STORAGES, View, named, ordered, plain, torch_file, view

sources = pytest.importorskip("landmark_onnx_export.releases.source")

FLOATS = np.arange(24, dtype="<f4").reshape(2, 3, 4)
FILE = torch_file({"a.weight": view(FLOATS, axes=(2, 0, 1)), "a.bias": view(np.ones(3, "<f4"))})

arrays = st.builds(
    lambda dtype, shape, seed: np.random.default_rng(seed).integers(-9, 9, shape).astype(dtype),
    st.sampled_from(sorted(STORAGES)),
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    st.integers(0, 100),
)
views = arrays.flatmap(
    lambda array: st.tuples(
        st.just(array),
        st.builds(view, st.just(array), axes=st.permutations(range(array.ndim)), start=st.integers(0, 5)),
    )
)


@pytest.fixture
def saved(tmp_path):
    def save(data, name="weights.pth"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return save


def read(path):
    with sources.open_source(path) as source:
        return {name: variable.read() for name, variable in source.variables.items()}


@given(st.lists(views, min_size=1, max_size=4))
def test_every_tensor_comes_back_in_the_order_of_its_axes(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("torch") / "x"
    path.write_bytes(torch_file({f"_blocks.{number}.w": each for number, (_, each) in enumerate(tensors)}))
    found = read(path)
    assert list(found) == [f"_blocks.{number}.w" for number in range(len(tensors))]
    for (array, _), got in zip(tensors, found.values(), strict=True):
        np.testing.assert_array_equal(got, array, strict=True)


def test_the_file_begins_as_the_bytes_say_and_is_a_train_model(saved):
    path = saved(FILE, "model_a.pth")
    assert FILE.startswith(TORCH_HEAD)
    with sources.open_source(path) as source:
        assert (source.kind, source.name, source.program, source.extras) == ("train", "model_a", None, ())
        assert source.sha256 == hashlib.sha256(FILE).hexdigest()
        assert source.read_text("labels.txt") is None


@given(st.integers(0, len(FILE) - 1))
def test_every_truncation_is_refused(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("torch") / "x"
    path.write_bytes(FILE[:length])
    with pytest.raises(ExportError, match="x: "):
        read(path)


@given(st.integers(0, len(FILE) - 1), st.integers(0, 255))
def test_a_changed_byte_is_an_error_or_as_many_values_at_most(tmp_path_factory, place, byte):
    path = tmp_path_factory.mktemp("torch") / "x"
    path.write_bytes(FILE[:place] + bytes([byte]) + FILE[place + 1 :])
    try:
        found = read(path)
    except ExportError:
        return
    assert sum(array.nbytes for array in found.values()) <= len(FILE)


def state(*tensors):
    """A state dict of these names and operations."""
    return ordered(b"".join(plain(name) + each for name, each in tensors))


def odd(shape, strides, start=0, count=6):
    """A file with a tensor of such a place in a storage of `count` values."""
    return torch_file({"w": View(np.zeros(count, "<f4"), start, shape, strides)})


ONE = view(np.ones(3, "<f4"))
SHARED = torch_files.tensor(ONE, "1000")
STORAGE = b"(" + plain("storage") + named("torch", "FloatStorage") + plain("1000") + plain("cpu") + plain(3) + b"NtQ"
BEYOND = b"(" + STORAGE + plain(0) + plain((4000,)) + plain((1,)) + b"t"
"""A tensor of more values than the storage has, as a state."""


def nested(depth):
    """A text in pairs of pairs; whoever writes it out writes it 2 ** depth times."""
    value = "x"
    for _ in range(depth):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch_file({"w": ONE}, protocol=1002), "wanted protocol 1001"),
        (torch_file({"w": ONE}, machine=torch_files.MACHINE | {"little_endian": False}), "little-endian"),
        (torch_file({"w": ONE}, machine=[]), "little-endian"),
        (torch_file({"w": ONE}, keys=[]), "a storage for each tensor, and no others"),
        (torch_file({"w": ONE}, keys=["1000", "1001"]), "a storage for each tensor, and no others"),
        (torch_file({"w": ONE}, keys=["1000", "1000"]), "a storage for each tensor, and no others"),
        (torch_file({"w": ONE}, state=state(("w", SHARED), ("x", SHARED))), "a storage for each tensor"),
        (torch_file({"w": ONE}, keys=[1000]), "a storage for each tensor, and no others"),
        (torch_file({"w": ONE}, keys=[nested(60)]), "a storage for each tensor, and no others"),
        (torch_file({"w": ONE}, state=state(("w", SHARED + BEYOND + b"b"))), "it sets the state of a _Tensor"),
        (torch_file({"w": ONE}, state=state(("w", STORAGE + plain(("1000", 0, 9)) + b"b"))), "the state of a _Storage"),
        (torch_file({"w": ONE}, counts={"w": 2}), "wanted 3 values in storage 1000, got fewer"),
        (torch_file({"w": ONE}, counts={"w": -1}), "wanted 3 values in storage 1000, got fewer"),
        (torch_file({"w": ONE}) + b"\0", r"wanted \d+ bytes, got \d+"),
        (torch_file({}), "wanted a dictionary of tensors"),
        (torch_file({"w": ONE}, state=plain([1])), "wanted a dictionary of tensors"),
        (torch_file({"w": ONE}, state=state(("w", plain(3)))), "w is no tensor"),
        (torch_file({"../w": ONE}), r"wanted names of letters.*got \.\./w"),
        (torch_file({"w" * 201: ONE}), "wanted names of letters"),
        (odd((2, 3), (3, 2)), r"a tensor of \[2, 3\] with strides \[3, 2\] from 0 in a storage of 6 values"),
        (odd((2, 3), (3, 1), start=1), "from 1 in a storage of 6"),
        (odd((7,), (0,)), r"\[7\] with strides \[0\]"),
        (odd((2, 3), (3,)), "as many strides"),
        (odd((1,) * 9, (1,) * 9), "as many strides"),
        (odd((-2, 3), (3, 1)), "no numbers that can be"),
        (odd((2, 3), (-3, 1), start=5), "no numbers that can be"),
        (odd((2, 3), (True, 1)), "no numbers that can be"),
        (odd((1 << 50,), (1,)), "no numbers that can be"),
        (odd((0, 1 << 47, 1 << 47), (1, 1, 1)), "no numbers that can be"),
        (torch_file({"w": ONE}, state=named("os", "system") + plain(("true",)) + b"R"), r"it names os\.system"),
        (torch_file({"w": ONE}, state=named("torch", "FloatStorage") + b")R"), "only to be named"),
        (torch_file({"w": ONE}, state=named("torch", "FloatStorage") + plain({"a": 1}) + b"b"), "it sets the state"),
        (torch_file({"w": ONE}, state=plain("module") + b"Q"), "it asks for something that is no storage"),
        (
            torch_file({"w": ONE}, state=named("collections", "OrderedDict") + plain(([((1, 2), 3)],)) + b"R"),
            "no state",
        ),
        (TORCH_HEAD, "no state dict of torch that can be read"),
        (b"PK\x03\x04" + bytes(60), "a zip; of torch's files only those of its older form"),
    ],
)
def test_what_is_no_state_dict_is_refused_by_the_file_s_name(saved, data, words):
    path = saved(data)
    with pytest.raises(ExportError, match=words) as caught, sources.open_source(path):
        pass
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_shrinks_while_it_is_read_is_noticed(saved, monkeypatch):
    module = pytest.importorskip("landmark_onnx_export.releases.torch_file")
    path = saved(FILE)
    whole = module._places

    def shrunk(file):
        places = whole(file)
        path.write_bytes(FILE[:-4])
        return places

    monkeypatch.setattr(module, "_places", shrunk)
    with pytest.raises(ExportError, match="it has become shorter"):
        read(path)
