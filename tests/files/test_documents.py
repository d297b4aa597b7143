import os
import re
import socket
import threading
from pathlib import Path

import pytest

import landmark_onnx
import landmark_onnx_bench
import landmark_onnx_export
from landmark_onnx.files import documents
from landmark_onnx.files.documents import (
    MAX_DEPTH,
    VersionError,
    parse_json,
    parse_toml,
    read_bytes,
    read_json,
    read_toml,
    read_versioned,
)
from landmark_onnx.files.structure import DocumentError


def test_good_texts():
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, null, true, "x"]}') == {"a": [1, 2.5, None, True, "x"]}
    assert parse_json("3") == 3
    assert parse_json(f"[{2**64 - 1}, {-(2**63)}]") == [2**64 - 1, -(2**63)]
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert parse_toml(b"\xef\xbb\xbfa = 1\r\n[b]\nc = 2.5") == {"a": 1, "b": {"c": 2.5}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe{\x00}\x00", "can't decode byte 0xff"),
        (b'{"a": NaN}', "a: wanted a finite number, got nan"),
        (b'{"a": [{"b": -Infinity}]}', "a: 1: b: wanted a finite number, got -inf"),
        (b'{"a": 1e999}', "a: wanted a finite number, got inf"),
        (b'{"a": 18446744073709551616}', "a: a number of more than 64 bits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of thousands of digits"),
        (b"9" * 100, "^a number of more than 64 bits"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper than 32 levels"),
        (b"[" * 200_000, "nested deeper than 32 levels"),
        (b'{"":' * 100_000, "nested deeper than 32 levels"),
        (b'{"a"}', "Expecting ':'"),
    ],
)
def test_json_that_is_refused(text, message):
    with pytest.raises(DocumentError, match=message) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a = nan", "a: wanted a finite number, got nan"),
        (b"[a]\nb = [-inf]", "a: b: 1: wanted a finite number, got -inf"),
        (b"a = 1e999", "a: wanted a finite number, got inf"),
        (b"a = " + b"9" * 5000, "a number of thousands of digits"),
        (b"a = 0x" + b"f" * 5000, "a: a number of more than 64 bits"),
        (b"a = " + b"[" * 200_000, "nested deeper than 32 levels"),
        (b"a = " + b"[" * 33 + b"]" * 33, "nested deeper than 32 levels"),
        (b"[" + b"a." * 40 + b"a]", "nested deeper than 32 levels"),
        (b"a." * 32_000 + b"a = 1", "a line with more than 500 dots"),
        (b"a = 'b\nc'", r"[Ii]nvalid character '.n'"),
        (b"\0", "."),
        (b"a = 1\na = 2", "Cannot overwrite"),
        (b"\xff", "can't decode"),
    ],
)
def test_toml_that_is_refused(text, message):
    with pytest.raises(DocumentError, match=message) as caught:
        parse_toml(text)
    assert "\n" not in str(caught.value)


def test_no_memory(monkeypatch):
    def full(_):
        raise MemoryError

    monkeypatch.setattr(documents.json, "loads", full)
    with pytest.raises(DocumentError, match="too large for the memory there is"):
        parse_json("[]")


def test_values_have_a_limit(monkeypatch):
    monkeypatch.setattr(documents, "MAX_VALUES", 4)
    assert parse_json('[1, {"a": 2}]') == [1, {"a": 2}]
    with pytest.raises(DocumentError, match="more than 4 values"):
        parse_json("[[], [], []]")


def test_files_have_a_limit(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"[1, 2]")
    assert read_json(path, limit=6) == [1, 2]
    with pytest.raises(DocumentError, match="larger than 5 bytes"):
        read_json(path, limit=5)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_what_is_no_plain_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.close()
    for path in (tmp_path / "pipe", tmp_path / "socket", tmp_path, "/dev/zero"):
        with pytest.raises((DocumentError, OSError)):
            read_bytes(path, 100)


def test_a_pipe_that_a_user_names_is_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"a = 1",))
    writer.start()
    assert read_toml(path) == {"a": 1}
    writer.join()


def test_versions(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"format": 2, "rows": 3}')
    assert read_versioned(path, "format", 2) == {"rows": 3}
    for version in ("1", '"2"', "2.0", "true"):
        path.write_text(f'{{"format": {version}}}')
        with pytest.raises(VersionError, match=r"format .*, wanted 2"):
            read_versioned(path, "format", 2)
    for text in ("{}", "[]", "3"):
        path.write_text(text)
        with pytest.raises(DocumentError, match="wanted an object with the key 'format', got"):
            read_versioned(path, "format", 2)


OWN = {
    "landmark_onnx/embedding/feature_file.py",
    "landmark_onnx/embedding/ray_cluster.py",
    "landmark_onnx/files/child_process.py",
    "landmark_onnx/runtime/compiled_cache.py",
    "landmark_onnx_bench/gpu/work.py",
    "landmark_onnx_bench/worker.py",
    "landmark_onnx_bench/worker_process.py",
    "landmark_onnx_export/workers/run.py",
}
"""Modules that also read what they, or a process of theirs, have just written."""


def test_whatever_comes_from_outside_goes_through_here():
    found = set()
    for package in (landmark_onnx, landmark_onnx_bench, landmark_onnx_export):
        root = Path(package.__file__).parent
        for path in root.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if re.search(r"json\.loads?\(|tomllib\.|pickle\.loads?\(|_?Unpickler\b|\bpickle\b.*import", text):
                found.add(path.relative_to(root.parent).as_posix())
    # Bodies of requests have stricter limits, and other errors.
    requests = "landmark_onnx/serving/strict_json.py"
    assert found - OWN == {"landmark_onnx/files/documents.py", "landmark_onnx/files/pickles.py", requests}
