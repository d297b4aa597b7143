"""Standard streams that are closed, full, or read by nobody."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fakes
from commands import Done
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.store.catalogue import exported_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="streams are closed by a shell here")

RUN = "import sys; from landmark_onnx.cli import main; main()"


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        write_image(tmp_path / f"{number}.png", fakes.photo(40, 50, seed=number))
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    return tmp_path


def shell(redirections: str, *arguments: object, program: str = RUN) -> Done:
    """The command line under a shell that closes or redirects its streams."""
    command = f'"$0" -c "$1" "${{@:2}}" {redirections}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, program, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return Done(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))


def closings() -> list[str]:
    streams = ("<&-", ">&-", "2>&-")
    return [" ".join(some) for size in (1, 2, 3) for some in itertools.combinations(streams, size)]


@pytest.mark.parametrize("closed", closings())
def test_a_closed_stream_fails_no_good_run(photos, closed):
    done = shell(closed, "retrieval", "-m", fakes.RETRIEVAL, "0.png", "1.png", "-o", "answers.ndjson", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert Path("answers.ndjson").read_text().count("\n") == 1


@pytest.mark.parametrize("closed", closings())
@pytest.mark.parametrize("arguments", [("models", "list"), ("--help",), ("--version",)])
def test_every_kind_of_command_runs_with_closed_streams(photos, arguments, closed):
    done = shell(closed, *arguments)
    assert done.code == 0
    assert "Traceback" not in done.err


def test_the_doctor_and_its_children_run_with_closed_streams():
    assert shell("<&- >&- 2>&-", "doctor", "--provider", "cpu").code == 0


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- 2>&-"])
@pytest.mark.parametrize(
    "arguments", [("retrieval", "-m", fakes.RETRIEVAL, "-"), ("embed", "-m", fakes.RETRIEVAL, "-", "-o", "f")]
)
def test_a_closed_standard_input_is_an_empty_list(photos, arguments, closed):
    done = shell(closed, *arguments)
    assert done.code == 1
    assert "Traceback" not in done.err
    if "2>" not in closed:
        assert "landmark-onnx: error: " in done.err


def test_nothing_that_is_said_goes_into_a_file_that_got_the_number_of_a_closed_stream(photos):
    program = """if True:
        import os
        from landmark_onnx import model
        from landmark_onnx.cli import main
        compare = model.Retriever.compare
        def loud(*values):
            os.write(1, b"native words")
            os.write(2, b"native words")
            return compare(*values)
        model.Retriever.compare = loud
        main()
    """
    arguments = ("retrieval", "-m", fakes.RETRIEVAL, "0.png", "1.png", "-o", "answers.ndjson")
    assert shell(">&- 2>&-", *arguments, program=program).code == 0
    assert json.loads(Path("answers.ndjson").read_bytes())["image"] == "1.png"
    assert not [path for path in photos.rglob("*") if path.is_file() and b"native words" in path.read_bytes()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_standard_output_is_one_line(photos):
    for arguments in (("models", "list"), ("--help",)):
        done = shell(">/dev/full", *arguments)
        assert done.code == 1
        assert done.err.count("\n") == 1
        assert done.err.startswith("landmark-onnx: error: ")
        assert "No space left on device" in done.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_standard_error_that_takes_nothing_fails_no_good_run(photos):
    done = shell("2>/dev/full", "retrieval", "-m", fakes.RETRIEVAL, "0.png", "1.png")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0]["image"] == "1.png"
    assert shell("2>/dev/full", "nonsense").code == 2
    assert shell("2>/dev/full", "verify", "nonsense").code == 1


def test_a_reader_of_notes_who_leaves_fails_no_good_run(photos):
    done = shell("2> >(exit)", "retrieval", "-m", fakes.RETRIEVAL, "0.png", *["1.png"] * 50)
    assert done.code == 0
    assert len(done.lines) == 50


def test_whoever_reads_standard_output_may_leave(photos):
    images = ["1.png"] * 20_000  # more than a pipe holds
    done = shell("| head -1 > first; exit ${PIPESTATUS[0]}", "retrieval", "-m", fakes.RETRIEVAL, "0.png", *images, "-q")
    assert (done.code, done.err) == (141, "")
    assert json.loads(Path("first").read_text())["image"] == "1.png"


def test_whether_a_reader_left_is_seen():
    program = "import sys; from landmark_onnx.cli.streams import reader_left; sys.stdin.read(); sys.exit(reader_left())"
    for leaving in (False, True):
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin
            assert process.stdout
            if leaving:
                process.stdout.close()
            process.stdin.close()
            assert process.wait(timeout=60) == leaving
