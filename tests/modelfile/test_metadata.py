import json

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fakes
from landmark_onnx.errors import ModelFileError
from landmark_onnx.modelfile import metadata as module
from landmark_onnx.modelfile.metadata import (
    SEAL_KEY,
    append_metadata,
    check_seal,
    decode_metadata,
    read_metadata,
    read_seal,
)

METADATA = {"card": {"name": "mine", "é": [1, 2.5, None]}, "text": "ü" * 300, "empty": {}}
same_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def sealed(tmp_path):
    path = fakes.make_cls(tmp_path / "model.onnx")
    onnx.save(fakes.unsealed(path), path)
    fakes.write_sealed(path, METADATA)
    return path


def test_metadata_come_back_without_onnx_and_with_it(sealed):
    assert read_metadata(sealed) == METADATA
    properties = {each.key: each.value for each in onnx.load(sealed).metadata_props}
    assert list(properties) == [*(f"landmark_onnx.{key}" for key in METADATA), SEAL_KEY]
    assert decode_metadata(properties, "x") == METADATA
    onnx.checker.check_model(onnx.load(sealed))


def test_sealing_appends_and_changes_nothing(sealed, tmp_path):
    plain = tmp_path / "plain.onnx"
    onnx.save(fakes.unsealed(sealed), plain)
    before = plain.read_bytes()
    fakes.write_sealed(plain, METADATA)
    assert plain.read_bytes().startswith(before)
    assert plain.read_bytes() == sealed.read_bytes(), "the same content gives the same bytes"
    assert fakes.unsealed(plain) == fakes.unsealed(sealed)


def test_the_seal_is_where_it_says(sealed, tmp_path):
    seal = check_seal(sealed)
    assert read_seal(sealed) == seal
    plain = tmp_path / "plain.onnx"
    onnx.save(fakes.unsealed(sealed), plain)
    assert seal.offset == plain.stat().st_size
    assert seal.offset < seal.size < sealed.stat().st_size
    assert sealed.read_bytes().endswith(seal.sha256.encode())


def test_a_seal_without_metadata(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    fakes.write_sealed(path, {})
    assert read_metadata(path) == {}
    assert check_seal(path).offset == 5


@same_file
@given(st.data())
def test_any_changed_byte_shows(sealed, data):
    content = bytearray(sealed.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255).filter(lambda value: value != content[at]))
    check_damaged(sealed, bytes(content))


def test_every_changed_byte_of_the_seal_itself_shows(sealed):
    content = sealed.read_bytes()
    for at in range(read_seal(sealed).size, len(content)):
        check_damaged(sealed, content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])


def test_any_cut_and_anything_appended_shows(sealed):
    content = sealed.read_bytes()
    for length in [*range(0, len(content), 397), *range(len(content) - 200, len(content))]:
        check_damaged(sealed, content[:length])
    check_damaged(sealed, content + b"\0")
    check_damaged(sealed, b"\0" + content)


def check_damaged(path, content):
    changed = path.with_name("changed.onnx")
    changed.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"changed\.onnx: (no seal at its end|damaged: wanted sha256 )"):
        check_seal(changed)


@same_file
@given(st.data())
def test_damaged_metadata_are_an_error_or_other_metadata(sealed, data):
    """Reading them does not hash the file: that is `check_seal`."""
    content = bytearray(sealed.read_bytes())
    seal = read_seal(sealed)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(seal.offset, len(content) - 1))] = data.draw(st.integers(0, 255))
    changed = sealed.with_name("changed.onnx")
    changed.write_bytes(bytes(content))
    try:
        found = read_metadata(changed)
    except ModelFileError as error:
        assert str(error).startswith(str(changed))  # noqa: PT017
    else:
        assert found is None or isinstance(found, dict)


def test_a_file_without_a_seal(tmp_path):
    path = tmp_path / "foreign.onnx"
    for content in (b"", b"short", b"x" * 5000):
        path.write_bytes(content)
        assert read_seal(path) is None
        assert read_metadata(path) is None
        with pytest.raises(ModelFileError, match=r"no seal at its end: truncated, changed, or not exported"):
            check_seal(path)


def test_an_offset_beyond_the_file_is_no_seal(sealed):
    content = sealed.read_bytes()
    digits = len(content) - 64 - 1 - 16
    changed = content[:digits] + b"9" * 16 + content[digits + 16 :]
    sealed.write_bytes(changed)
    assert read_seal(sealed) is None


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "none.onnx"):
        for read in (read_seal, read_metadata, check_seal):
            with pytest.raises(ModelFileError, match=path.name):
                read(path)


def test_metadata_beyond_all_measure_are_not_read(sealed, monkeypatch):
    monkeypatch.setattr(module, "MAX_METADATA", 10)
    with pytest.raises(ModelFileError, match=r"model\.onnx: its metadata claim \d+ bytes"):
        read_metadata(sealed)


def test_metadata_that_are_no_json():
    with pytest.raises(ModelFileError, match=r"^x: its metadata landmark_onnx\.card are damaged: "):
        decode_metadata({"landmark_onnx.card": "{"}, "x")


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("card", "[" * 200_000, "nested deeper than"),
        ("card", "[]", r"wanted a table, got \[\]"),
        ("card", '{"name": ' + "9" * 5000 + "}", "a number of thousands of digits"),
        ("labels", "[1]", r"wanted a table, got \[1\]"),
        ("labels", '{"a": "b"}', "a: wanted a class index, got 'a'"),
        ("labels", '{"1": 2}', "1: wanted str, got 2"),
        ("labels", '{"99999999999999999999": "x"}', "9+: wanted a class index"),
        ("data", "{}", "the key 'file' is missing"),
        ("data", '{"file": "../a", "sha256": ""}', r"file: wanted NAME-HASH.onnx.data, got '../a'"),
        ("agreement", '{"cosine": "1"}', "cosine: wanted float, got '1'"),
        ("agreement", '{"cosine": NaN}', "cosine: wanted a finite number, got nan"),
    ],
)
def test_metadata_of_another_type_name_the_key(key, text, message):
    with pytest.raises(ModelFileError, match=rf"^x: its metadata landmark_onnx\.{key} are damaged: {message}"):
        decode_metadata({f"landmark_onnx.{key}": text}, "x")


def test_a_size_without_end_is_not_summed_up(sealed):
    """Each byte more would make the sum slower."""
    seal = read_seal(sealed)
    head = module._seal_head(seal.offset)
    content = sealed.read_bytes()[: seal.offset] + b"\x72" + b"\x80" * 3_000_000
    sealed.write_bytes(content + head + b"0" * 64)
    with pytest.raises(ModelFileError, match="a number without end"):
        read_metadata(sealed)


def test_the_metadata_of_others_are_left_alone():
    assert decode_metadata({"author": "{", SEAL_KEY: "0:0", "landmark_onnx.ours": "3"}, "x") == {"ours": 3}


@same_file
@given(
    st.dictionaries(
        st.text(max_size=20).filter(lambda key: key not in module.KINDS),
        st.text(max_size=200) | st.lists(st.integers(-(2**63), 2**64 - 1) | st.none()),
        max_size=5,
    )
)
def test_any_metadata_come_back(tmp_path, metadata):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"model")
    with path.open("r+b") as file:
        append_metadata(file, metadata)
    expected = json.loads(json.dumps(metadata))
    expected.pop("seal", None)
    assert read_metadata(path) == expected
    check_seal(path)
