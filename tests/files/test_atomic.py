import contextlib
import errno
import os
import re
import socket
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from landmark_onnx.files.atomic import (
    atomic_write,
    check_writable,
    destination,
    publish,
    streaming_write,
    temporaries,
    write_new,
)

WRITERS = [atomic_write, streaming_write]
NOBODY = 65534

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
root = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="root alone may do that")


@pytest.fixture
def shared(monkeypatch):
    """A folder that every user may enter and write to, and a temporary one like it: pytest's are its user's alone."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as parent:
        folders = [Path(parent, name) for name in ("shared", "temporary")]
        for folder in folders:
            folder.mkdir()
            folder.chmod(0o777)
        Path(parent).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", str(folders[1]))
        yield folders[0]
        assert not list(folders[1].iterdir())


@contextlib.contextmanager
def unprivileged():
    """Root may write anywhere: be nobody. Any other user stays who they are."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def write(path, content=b"new", writer=atomic_write):
    with writer(path) as file:
        file.write(content)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def reading(path):
    """A thread that reads a pipe to its end into a list."""
    found = []
    thread = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    thread.start()
    return thread, found


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


@pytest.mark.parametrize("name", ["a" * 255, "\N{OLD ITALIC LETTER A}" * 63])
def test_names_as_long_as_they_may_be(name, tmp_path):
    write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"new"


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


@posix
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("wanted", [0o600, 0o640, 0o664, 0o755])
def test_a_file_that_is_replaced_hands_on_its_mode(wanted, writer, tmp_path):
    path = tmp_path / "c.bin"
    path.write_bytes(b"old")
    path.chmod(wanted)
    write(path, writer=writer)
    assert (path.read_bytes(), mode(path)) == (b"new", wanted)


@posix
def test_what_will_be_private_is_never_public(tmp_path):
    path = tmp_path / "c.bin"
    path.touch(0o600)
    with atomic_write(path) as file:
        assert mode(Path(file.name)) == 0o600


@root
def test_a_file_that_is_replaced_hands_on_its_owner_and_group(tmp_path):
    path = tmp_path / "c.bin"
    path.touch()
    path.chmod(0o660)
    os.chown(path, NOBODY, NOBODY)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (NOBODY, NOBODY, 0o660)


@root
def test_a_group_that_cannot_be_kept_gives_the_new_one_no_rights(shared):
    path = shared / "c.bin"
    path.touch()
    path.chmod(0o664)
    with unprivileged():
        write(path)
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (NOBODY, NOBODY, 0o644)


@posix
@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_is_followed_and_stays(writer, tmp_path):
    (tmp_path / "there").mkdir()
    target, path = tmp_path / "there" / "target", tmp_path / "here"
    target.write_bytes(b"old")
    target.chmod(0o600)
    (tmp_path / "there" / "second").symlink_to("target")
    path.symlink_to("there/second")
    write(path, writer=writer)
    assert (target.read_bytes(), mode(target), path.readlink()) == (b"new", 0o600, Path("there/second"))
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["here", "second", "target", "there"]


@posix
def test_a_link_to_no_file_yet_gets_one(tmp_path):
    path = tmp_path / "here"
    path.symlink_to("target")
    write(path)
    assert path.is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


@posix
@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_into_a_missing_folder_is_an_error_and_makes_none(writer, tmp_path):
    path = tmp_path / "here"
    path.symlink_to("disk/target")
    with pytest.raises(FileNotFoundError, match="here"):
        write(path, writer=writer)
    assert list(tmp_path.iterdir()) == [path]


@posix
@pytest.mark.parametrize("writer", WRITERS)
def test_links_in_a_circle_are_an_error(writer, tmp_path):
    path = tmp_path / "here"
    path.symlink_to("there")
    (tmp_path / "there").symlink_to("here")
    with pytest.raises(OSError, match="here") as caught:
        write(path, writer=writer)
    assert caught.value.errno == errno.ELOOP


@posix
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second file system")
def test_a_link_into_another_file_system_is_written_there(tmp_path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        target, path = Path(folder) / "target", tmp_path / "here"
        path.symlink_to(target)
        for content in (b"new", b"newer"):
            write(path, content)
            assert target.read_bytes() == content
        assert list(target.parent.iterdir()) == [target]


@root
@pytest.mark.parametrize("writer", WRITERS)
def test_a_device_stays_one(writer, tmp_path):
    path = tmp_path / "null"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        path.open("wb").close()
    except OSError:
        pytest.skip("no devices here")
    write(path, writer=writer)
    assert path.is_char_device()
    assert list(tmp_path.iterdir()) == [path]


@posix
@pytest.mark.parametrize("writer", WRITERS)
def test_a_pipe_is_written_to(writer, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    thread, found = reading(path)
    write(path, writer=writer)
    thread.join(10)
    assert (found, path.is_fifo(), list(tmp_path.iterdir())) == ([b"new"], True, [path])


@posix
def test_a_pipe_gets_nothing_of_what_failed(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def half():
        with atomic_write(path) as file:
            file.write(b"half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        half()
    assert os.read(descriptor, 10) == b""
    os.close(descriptor)


@posix
def test_a_pipe_streams(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with streaming_write(path) as file:
        for word in (b"one", b"two"):
            file.write(word)
            file.flush()
            assert os.read(descriptor, 10) == word
    os.close(descriptor)


@posix
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"])
def test_a_descriptor_goes_on_where_it_is(folder, writer, tmp_path):
    """As with the shell's `{ echo before; ...; } > FILE`."""
    if not Path(folder).is_dir():
        pytest.skip("another system")
    path, link = tmp_path / "c.txt", tmp_path / "stdout"
    with path.open("wb") as file:
        file.write(b"before ")
        file.flush()
        link.symlink_to(f"{folder}/{file.fileno()}")
        write(link, b"new ", writer)
        file.write(b"after")
    assert path.read_bytes() == b"before new after"
    assert link.is_symlink()


@posix
@pytest.mark.parametrize("writer", WRITERS)
def test_a_descriptor_that_is_a_pipe_or_closed(writer):
    reader, writing = os.pipe()
    write(Path(f"/dev/fd/{writing}"), writer=writer)
    os.close(writing)
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    with pytest.raises(OSError, match=f"/dev/fd/{writing}"):
        write(Path(f"/dev/fd/{writing}"), writer=writer)


@posix
@pytest.mark.parametrize("writer", WRITERS)
def test_a_socket_is_an_error_and_stays(writer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(OSError, match=r"a socket cannot be opened by its name: 's'"):
            write(Path("s"), writer=writer)
        assert Path("s").is_socket()


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_is_an_error_at_once(writer, tmp_path):
    with pytest.raises(IsADirectoryError, match=tmp_path.name), writer(tmp_path):
        raise AssertionError("the work was done")


@posix
@pytest.mark.parametrize("content", [b"newer and longer", b"", b"new"])
def test_a_file_in_a_folder_that_takes_no_new_one(content, shared):
    path = shared / "folder" / "c.bin"
    path.parent.mkdir()
    path.write_bytes(b"old one")
    path.chmod(0o666)
    path.parent.chmod(0o555)
    before = path.stat()
    with unprivileged():
        assert destination(path) is None
        write(path, content)
        with contextlib.suppress(ValueError), atomic_write(path) as file:
            file.write(b"half")
            raise ValueError
        with pytest.raises(PermissionError, match=r"new\.bin"):
            write(path.with_name("new.bin"))
    assert path.read_bytes() == content
    assert (path.stat().st_ino, path.stat().st_mode, path.stat().st_uid) == (
        before.st_ino,
        before.st_mode,
        before.st_uid,
    )
    path.parent.chmod(0o755)


@root
def test_somebody_elses_file_in_a_folder_where_everybody_keeps_their_own(shared):
    path = shared / "c.bin"
    path.write_bytes(b"old")
    path.chmod(0o666)
    shared.chmod(0o1777)
    with unprivileged():
        write(path)
    assert (path.read_bytes(), path.stat().st_uid) == (b"new", 0)
    assert list(shared.iterdir()) == [path]


@posix
def test_a_file_that_is_mounted_is_written_to(tmp_path, monkeypatch):
    path = tmp_path / "c.bin"
    path.write_bytes(b"old")

    def busy(self, target):
        raise OSError(errno.EBUSY, "busy", str(target))

    monkeypatch.setattr(Path, "replace", busy)
    write(path)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@posix
@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot tell before")
def test_without_room_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "c.bin"
    path.write_bytes(b"old")

    def full(descriptor, offset, length):
        os.ftruncate(descriptor, offset + length)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EBUSY, "busy")))
    with pytest.raises(OSError, match=r"c\.bin"):
        write(path, b"longer than the old one")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_replaces_nothing(tmp_path):
    path = tmp_path / "a" / "c.bin"
    write(path, writer=write_new)
    with pytest.raises(FileExistsError, match=r"c\.bin"):
        write(path, b"newer", write_new)
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@posix
def test_a_new_file_does_not_take_the_place_of_a_link(tmp_path):
    path = tmp_path / "here"
    path.symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="here"):
        write(path, writer=write_new)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_replaces_nothing_that_came_meanwhile(links, tmp_path, monkeypatch):
    path = tmp_path / "c.bin"

    def refuse(self, target):
        raise OSError(errno.EPERM, "no hard links")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)

    def late():
        with write_new(path) as file:
            file.write(b"new")
            path.write_bytes(b"somebody's")

    with pytest.raises(FileExistsError, match=r"c\.bin"):
        late()
    assert path.read_bytes() == b"somebody's"
    path.unlink()
    write(path, writer=write_new)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


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
    with atomic_write(tmp_path / "a.bin") as file:
        assert {path.name for path in temporaries(tmp_path, re.compile(r"a\.bin"))} == {
            ".a.bin.0123456789abcdef.tmp",
            Path(file.name).name,
        }


def test_a_file_that_could_be_written_is_not(tmp_path):
    path = tmp_path / "a" / "b.txt"
    check_writable(path)
    assert list(path.parent.iterdir()) == []
    path.write_text("old")
    check_writable(path)
    assert path.read_text() == "old"
    with pytest.raises(OSError, match=r"a"):
        check_writable(path.parent)
