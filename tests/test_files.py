import os
import re
import stat
from pathlib import Path

import pytest

from landmark_onnx.files import atomic_write, publish, temporaries


def test_a_new_file_in_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "c.bin"
    with atomic_write(path) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert [each.name for each in path.parent.iterdir()] == ["c.bin"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "c.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_the_block_leaves_the_old_file_alone(error, tmp_path):
    path = tmp_path / "c.bin"
    path.write_bytes(b"old")

    def write():
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_moved_into_place_leaves_nothing(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "inside").touch()
    with pytest.raises(OSError, match="folder"), atomic_write(path) as file:
        file.write(b"content")
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_written_can_be_read_back_in_the_block(tmp_path):
    """The seal hashes the file that it is appended to."""
    with atomic_write(tmp_path / "c.bin") as file:
        file.write(b"content")
        file.seek(0)
        assert file.read() == b"content"


@pytest.mark.skipif(os.name == "nt", reason="permissions of Windows differ")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(mask, tmp_path):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "c.bin") as file:
            file.write(b"content")
        assert os.umask(mask) == mask, "the mask was changed"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.bin").stat().st_mode) == 0o666 & ~mask


def test_publish_moves(tmp_path):
    (tmp_path / "temporary").write_bytes(b"content")
    publish(tmp_path / "temporary", tmp_path / "final")
    assert [each.name for each in tmp_path.iterdir()] == ["final"]
    assert (tmp_path / "final").read_bytes() == b"content"


def test_temporaries_are_known_by_their_exact_form(tmp_path):
    for name in (
        ".a.bin.0123456789abcdef.tmp",
        ".a.bin.0123.tmp",
        ".draft.tmp",
        ".b.bin.0123456789abcdef.tmp",
        "a.tmp",
    ):
        (tmp_path / name).touch()
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.bin") as file:
        assert {path.name for path in temporaries(tmp_path, re.compile(r"a\.bin"))} == {
            ".a.bin.0123456789abcdef.tmp",
            Path(file.name).name,
        }
        raise KeyboardInterrupt
