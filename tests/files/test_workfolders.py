import contextlib
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import filelock
import pytest

from landmark_onnx.files import workfolders
from landmark_onnx.files.workfolders import (
    OWNER,
    folder_beside,
    in_use,
    replace_folder,
    stale_folders,
    temporary_folder,
)
from landmark_onnx.hub.remove import prune


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The system's temporary folder, in this process and in others."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def holder(program):
    """A process that has begun the block of `program`'s last line, until it is killed."""
    code = f"from pathlib import Path\nfrom landmark_onnx.files.workfolders import *\n{program}\n"
    code += "    (folder / 'release.tar').write_bytes(bytes(1000))\n    print(folder, flush=True)\n    input()\n"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Path(child.stdout.readline().strip())
    finally:
        child.kill()
        child.communicate()


def test_a_folder_lasts_as_long_as_its_block(scratch):
    with temporary_folder() as folder:
        assert folder.parent == scratch
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep").mkdir()
        with temporary_folder() as other:
            assert names(scratch) == sorted([folder.name, other.name])
    assert names(scratch) == []
    with pytest.raises(ZeroDivisionError), temporary_folder():
        raise ZeroDivisionError
    assert names(scratch) == []


def test_a_folder_beside_is_hidden_and_its_parents_are_made(tmp_path):
    target = tmp_path / "a" / "model.onnx"
    with folder_beside(target) as folder:
        assert folder.parent == target.parent
        assert folder.name.startswith(".model.onnx.")
    assert names(target.parent) == []


@pytest.mark.parametrize("program", ["with temporary_folder() as folder:", "with folder_beside(Path('x')) as folder:"])
def test_what_a_killed_process_left_goes_when_the_next_one_begins(program, scratch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = temporary_folder if "temporary" in program else lambda: folder_beside(tmp_path / "other")
    with holder(program) as folder:
        folder = folder.absolute()
        with again():
            assert folder.exists(), "its process is alive"
        assert in_use(folder)
    assert folder.exists()
    assert not in_use(folder)
    with again():
        assert not folder.exists()


def test_prune_removes_it_and_tells(scratch, run):
    with holder("with temporary_folder() as folder:") as folder:
        assert prune() == []
    assert folder.exists()
    (left,) = prune()
    assert (left.path, left.size) == (folder, 1000)
    assert names(scratch) == []


def test_a_stores_folder_whose_process_is_alive_is_not_pruned(scratch, store):
    with holder(f"with folder_beside(Path({str(store)!r}) / 'models' / 'x.onnx') as folder:") as folder:
        assert prune() == []
    assert [left.path for left in prune()] == [folder]


@pytest.mark.parametrize("kind", ["no lock", "another name", "a link", "a file", "a link as lock"])
def test_what_is_none_of_ours_stays(kind, scratch, tmp_path):
    folder = scratch / ("landmark-onnx-notes" if kind == "another name" else f"landmark-onnx-{'0' * 16}")
    real = tmp_path / "real" if kind == "a link" else folder
    if kind == "a file":
        folder.write_text("mine")
    else:
        real.mkdir()
        (real / "thesis.txt").write_text("years of work")
    if kind in ("another name", "a link"):
        (real / OWNER).touch()
    if kind == "a link":
        folder.symlink_to(real)
    if kind == "a link as lock":
        (real / OWNER).symlink_to(real / "thesis.txt")
    before = [*scratch.rglob("*"), *real.rglob("*")]
    with temporary_folder():
        pass
    prune()
    assert [*scratch.rglob("*"), *real.rglob("*")] == before


@pytest.mark.parametrize("error", [OSError, NotImplementedError])
def test_a_file_system_without_locks_serves(error, scratch, monkeypatch):
    def refuse(folder):
        (folder / OWNER).touch()
        raise error("no locks available")

    monkeypatch.setattr(workfolders, "_try_own", refuse)
    with temporary_folder() as folder:
        assert names(folder) == []
        assert list(stale_folders(scratch)) == []
    assert names(scratch) == []


def test_an_interrupt_while_it_is_made_leaves_nothing(scratch, monkeypatch):
    def interrupt(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(workfolders, "_try_own", interrupt)
    with pytest.raises(KeyboardInterrupt), temporary_folder():
        pass
    assert names(scratch) == []


def test_who_loses_the_race_for_a_new_folder_takes_another(scratch, monkeypatch):
    once = iter([None])
    own = workfolders._try_own
    monkeypatch.setattr(workfolders, "_try_own", lambda folder: next(once, own(folder)))
    with temporary_folder() as folder:
        assert in_use(folder)


# Taking the place of another folder.


def fill(folder, text):
    folder.mkdir(parents=True)
    (folder / "file").write_text(text)
    return folder


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_finished_folder_takes_the_place_of_another(there, exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(workfolders, "_exchange", lambda one, other: False)
    target = tmp_path / "x"
    if there:
        fill(target, "old")
    with folder_beside(target) as folder:
        replace_folder(fill(folder / "made", "new"), target)
    assert (target / "file").read_text() == "new"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_a_folder_is_followed_and_stays(there, exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(workfolders, "_exchange", lambda one, other: False)
    target = tmp_path / "disk" / "x"
    target.parent.mkdir()
    if there:
        fill(target, "old")
    link = tmp_path / "link"
    link.symlink_to(target)
    with folder_beside(link) as folder:
        assert folder.parent == target.parent
        replace_folder(fill(folder / "made", "new"), link)
    assert (target / "file").read_text() == "new"
    assert link.readlink() == target
    assert names(target.parent) == ["x"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders")
def test_there_is_no_moment_without_either(tmp_path, monkeypatch):
    target = fill(tmp_path / "x", "old")

    def never(path, other):
        raise AssertionError("the place was empty for a moment")

    monkeypatch.setattr(Path, "rename", never)
    with folder_beside(target) as folder:
        replace_folder(fill(folder / "made", "new"), target)
        assert (folder / "made" / "file").read_text() == "old"
    assert (target / "file").read_text() == "new"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_kill_between_two_renames_loses_nothing(tmp_path):
    target = fill(tmp_path / "x", "old")
    program = f"""
import os, signal
from pathlib import Path
from landmark_onnx.files import workfolders
target = Path({str(target)!r})
workfolders._exchange = lambda one, other: False
rename = Path.rename
def last(path, other):
    rename(path, other)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = last
with workfolders.folder_beside(target) as folder:
    (folder / "made").mkdir()
    workfolders.replace_folder(folder / "made", target)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert not target.exists()
    with folder_beside(tmp_path / "another"):
        assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_a_name_that_came_there_meanwhile_is_kept(tmp_path):
    stale = tmp_path / f".x.{'0' * 16}.tmp"
    fill(stale / "old", "old")
    (stale / OWNER).touch()
    fill(tmp_path / "x", "newer")
    with folder_beside(tmp_path / "x"):
        assert not stale.exists()
    assert (tmp_path / "x" / "file").read_text() == "newer"


def test_a_lock_of_another_thread_counts(scratch):
    with temporary_folder() as folder, pytest.raises(filelock.Timeout):
        filelock.FileLock(folder / OWNER, is_singleton=False).acquire(blocking=False)
    assert names(scratch) == []
