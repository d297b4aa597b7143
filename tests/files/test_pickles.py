"""Pickles from outside: what NumPy and Python 2 and 3 wrote is read, and no other program runs, or runs for long."""

import collections
import dataclasses
import datetime
import pickle
import struct
import time

import numpy as np
import pytest

from landmark_onnx.files.pickles import NUMPY, PickledArray, RefusedPickleError, load_pickle

BOMB = b"(K\x01\x85q\x01" + b"h\x01h\x01\x86q\x01" * 60
"""A mark, and a tuple of two of a tuple of two ..., whose hash takes 2^60 steps."""
KINDS = ["i1", "u1", "<i2", ">i4", "<i8", ">u8", "<f2", "<f4", ">f8"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(protocol):
    value = {
        "a": [1, -(2**40), 2**200, 1.5, True, False, None, "é€\n", b"\0\xff", ("x", (), [])],
        3: {b"k": bytearray(b"y")},
    }
    if protocol < 5:
        del value[3]  # bytearrays have no operation of their own there
    assert load_pickle(pickle.dumps(value, protocol), NUMPY) == value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back(protocol, kind):
    for array in (
        np.arange(6).astype(kind).reshape(2, 3),
        np.arange(3).astype(kind),
        np.empty(0, kind),
        np.array(7, kind),
    ):
        found = load_pickle(pickle.dumps([array, array], protocol), NUMPY)
        assert found[0] is found[1]
        np.testing.assert_array_equal(found[0].values, array)
        assert (found[0].values.dtype, found[0].values.shape) == (array.dtype, array.shape)
    scalar = load_pickle(pickle.dumps(np.dtype(kind).type(5), protocol), NUMPY)
    assert scalar == 5
    assert type(scalar) in (int, float)


@pytest.mark.parametrize("core", [b"core", b"_core"])
def test_what_python_2_wrote(core):
    """Its arrays' bytes are texts, and it writes 0 for False."""
    kind = b"cnumpy\ndtype\nq\x02U\x02i4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = (
        b"cnumpy." + core + b".multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85" + kind + b"\x89U\x08\x01\x00\x00\x00\xff\xff\xff\xfftb"
    )
    scalar = b"cnumpy." + core + b".multiarray\nscalar\n" + kind + b"U\x04\x05\x00\x00\x00\x86R"
    found = load_pickle(
        b"\x80\x02]((U\x03a\xe9\xffX\x03\x00\x00\x00\xe2\x82\xac\x8a\x01\x05" + array + scalar + b"le.", NUMPY
    )
    text, unicode, long, numbers, number = found[0]
    assert (text, unicode, long, number) == ("aéÿ", "€", 5, 5)
    assert numbers.values.tolist() == [1, -1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04" + BOMB + b"\x91.", "it has an operation FROZENSET"),
        (b"\x80\x04\x8f" + BOMB + b"\x90.", "it has an operation EMPTY_SET"),
        (b"\x80\x04}" + BOMB + b"K\x01u.", "it has a tuple for a key"),
        (b"\x80\x04" + BOMB + b"K\x01d.", "it has a tuple for a key"),
        (b"\x80\x04}K\x01\x85q\x01" + b"h\x01h\x01\x86q\x01" * 60 + b"K\x01s.", "it has a tuple for a key"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2 << 30) + b".", "not a pickle that can be read: ValueError: expected"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", "not a pickle that can be read"),
        (b"\x80\x05\x97.", "it has an operation NEXT_BUFFER"),
        (b"(i__builtin__\neval\n.", "it has an operation INST"),
        (b"(cos\nsystem\no.", "it has an operation OBJ"),
        (b"\x80\x02cos\nsystem\n)\x81.", "it has an operation NEWOBJ"),
        (b"\x82\x01.", "it has an operation EXT1"),
        (b"Pout\n.", "it has an operation PERSID"),
        (b"K\x01Q.", "it has an operation BINPERSID"),
        (b"I" + b"9" * 5000 + b"\n.", "not a pickle that can be read: ValueError: Exceeds the limit"),
        (b"cnumpy\nndarray\n)R.", r"it calls numpy\.ndarray"),
        (b"cnumpy\nndarray\n}b.", "it sets the state of a function"),
        (b"cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.", "it sets the state of a type"),
        (b"]}b.", "it sets the state of a list"),
        (b"cnumpy\ncore\x1b[31m\n.", r"it names numpy\.core\\x1b\[31m, which may not be in it"),
        (b"}N" + b"K\x01s.", "it has a NoneType for a key"),
        (b"}\x8a\x0a" + b"\x01" * 10 + b"K\x01s.", "it has a int for a key"),
        (b"N", "not a pickle that can be read"),
        (b"", "not a pickle that can be read"),
        (b"\x80\x09.", "not a pickle that can be read: ValueError: unsupported pickle protocol: 9"),
        (b"0.", "not a pickle that can be read"),
    ],
)
def test_what_has_no_use_is_refused_at_once(data, message):
    start = time.monotonic()
    with pytest.raises(RefusedPickleError, match=message) as caught:
        load_pickle(data, NUMPY)
    assert str(caught.value).isprintable()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        frozenset({1}),
        {(1, 2): 3},
        {1.5: 2},
        datetime.date(2019, 1, 1),
        collections.OrderedDict(a=1),
        np.array([{}], object),
        np.array(["x"]),
        np.array([1 + 2j]),
        np.zeros(1, [("a", "i4")]),
        np.asfortranarray(np.zeros((2, 3))),
        2**3000,
    ],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_values_of_other_types_are_refused(value, protocol):
    with pytest.raises(RefusedPickleError):
        load_pickle(pickle.dumps(value, protocol), NUMPY)


def test_an_array_is_as_long_as_its_data():
    data = pickle.dumps(np.zeros(3, "<f4"), 4)
    assert data.count(b"K\x03\x85") == 1
    with pytest.raises(RefusedPickleError, match="an array of 255 values with data for 3"):
        load_pickle(data.replace(b"K\x03\x85", b"K\xff\x85"), NUMPY)


def test_an_array_without_its_numbers():
    found = load_pickle(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R.", NUMPY)
    assert isinstance(found, PickledArray)
    with pytest.raises(RefusedPickleError, match="an array without its numbers"):
        _ = found.values


def test_operations_have_a_limit():
    data = b"\x80\x02]" + b"K\x01a" * 100 + b"."
    assert load_pickle(data, NUMPY, most=203) == [1] * 100
    with pytest.raises(RefusedPickleError, match="it has more than 202 operations"):
        load_pickle(data, NUMPY, most=202)


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """Python gives it a __setstate__."""

    size: int


def test_the_state_of_what_is_not_made_for_it_stays_what_was_checked():
    assert hasattr(Checked, "__setstate__")
    data = b"cx\ny\nK\x01\x85R" + b"K\x07\x85b."
    with pytest.raises(RefusedPickleError, match="it sets the state of a Checked"):
        load_pickle(data, {("x", "y"): Checked})


def test_a_reader_may_allow_more():
    data = pickle.dumps(collections.OrderedDict(a=1), 2)
    assert load_pickle(data, {("collections", "OrderedDict"): dict}) == {"a": 1}
    assert load_pickle(b"X\x01\x00\x00\x00aQ.", {}, persistent=str.upper) == "A"
