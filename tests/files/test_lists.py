"""Lists of names: what ends one, marks and encodings, lines as they come, and what is no list."""

import os
import sys
import threading
from pathlib import Path

import pytest

from landmark_onnx.errors import TableError
from landmark_onnx.files import lists
from landmark_onnx.files.lists import STDIN, read_list

STRANGE = "a\x0bb\x0cc\x1cd\x85e\u2028f\rg.jpg"
"""Characters that Python's `splitlines` splits at, and that a file's name may hold."""


def read(path: Path, data: bytes) -> list[str]:
    path.write_bytes(data)
    return list(read_list(str(path)))


@pytest.mark.parametrize(
    "data",
    [
        b"0.jpg\n1.jpg\n",
        b"0.jpg\r\n\r\n1.jpg",
        b"0.jpg\n1.jpg\r",
        b"\xef\xbb\xbf0.jpg\r\n1.jpg\r\n",
        b"0.jpg\x001.jpg\x00",
        b"\xef\xbb\xbf0.jpg\x00\x001.jpg",
        *("\ufeff0.jpg\r\n1.jpg\r\n".encode(encoding) for encoding in ("utf-16-le", "utf-16-be")),
        "\ufeff0.jpg\x001.jpg\x00".encode("utf-16-le"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 3, 1 << 16])
def test_lists_as_people_have_them(data, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "_CHUNK", chunk)
    assert read(tmp_path / "list.txt", data) == ["0.jpg", "1.jpg"]


def test_nothing_but_a_newline_ends_a_name(tmp_path):
    names = [STRANGE, " spaces ", "Ü-\U0001f5fc.jpg"]
    assert read(tmp_path / "list.txt", "\n".join(names).encode()) == names
    assert read(tmp_path / "list.txt", "\r\n".join(names).encode("utf-16")) == names
    assert read(tmp_path / "list.txt", "\0".join([*names, "two\nlines\r"]).encode()) == [*names, "two\nlines\r"]


def test_bytes_that_are_no_text_stay(tmp_path):
    assert read(tmp_path / "list.txt", b"\xff.jpg\n") == [os.fsdecode(b"\xff.jpg")]


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n\n", b"\0\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff\x00\n"])
def test_a_list_of_nothing(data, tmp_path):
    assert read(tmp_path / "list.txt", data) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"0.jpg\n1.jpg\x002.jpg\n", "list.txt, line 2: a NUL inside a line: end every name with"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\n", "list.txt, line 3: a NUL inside a line"),
        ("0.jpg\n".encode("utf-16-le"), "list.txt: UTF-16 text without a byte-order mark.* -f UTF-16-LE -t UTF-8"),
        ("0.jpg\n".encode("utf-16-be"), "list.txt: UTF-16 text without a byte-order mark.* -f UTF-16-BE -t UTF-8"),
        ("0.jpg\n".encode("utf-32"), "list.txt: UTF-32 text"),
        ("\ufeff0.jpg\n".encode("utf-16-le")[:-1], "list.txt: damaged UTF-16 text"),
        (b"\xff\xfe\x00\xd8a\x00", "list.txt: damaged UTF-16 text"),
        (b"0.jpg\n" + b"x" * 300, "list.txt, line 2: longer than 200 bytes"),
    ],
)
def test_what_is_no_list_is_refused_by_name(data, words, tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "LONGEST", 200)
    with pytest.raises(TableError, match=words):
        read(tmp_path / "list.txt", data)


def test_a_list_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(TableError, match=r"none\.txt: No such file"):
        list(read_list(str(tmp_path / "none.txt")))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(TableError, match="standard input is closed"):
        list(read_list(STDIN))


def test_each_name_comes_when_its_line_does(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as lines, os.fdopen(writing, "wb", buffering=0) as typing:
        monkeypatch.setattr(sys, "stdin", lines)
        # Whoever waits for more than the line that is there waits for ever.
        impatience = threading.Timer(60, typing.close)
        impatience.start()
        names = read_list(STDIN)
        for name in ("0", "1.jpg", "2.jpg"):
            typing.write(f"{name}\n".encode())
            assert next(names) == name
        typing.write(b"last")
        typing.close()
        assert list(names) == ["last"]
        impatience.cancel()
