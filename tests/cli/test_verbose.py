"""`--verbose`, and what becomes of errors that nobody foresaw."""

import logging
import re
import subprocess
import sys

import pytest

import fakes
from landmark_onnx.errors import ModelFileError
from landmark_onnx.store.catalogue import exported_path, find_model

BEFORE = ("--verbose", "verify", fakes.CLS)
AFTER = ("verify", fakes.CLS, "-v")


@pytest.fixture
def model():
    return fakes.make_cls(exported_path(fakes.CLS))


@pytest.mark.parametrize("arguments", [BEFORE, AFTER])
def test_what_is_decided_is_said_on_standard_error(model, run, arguments):
    done = run(*arguments)
    assert done.code == 0
    assert f"{fakes.CLS} is the file {model}" in done.err
    assert "CPUExecutionProvider" in done.err
    assert all(re.match(r"landmark-onnx: (\d+\.\d{3} s [\w.]+: .|[^\d])", line) for line in done.err.splitlines())
    assert done.lines[0]["path"] == str(model)


def test_nothing_of_it_is_said_unasked(model, run):
    run("-v", "verify", fakes.CLS)
    assert run("verify", fakes.CLS).err == ""


@pytest.mark.parametrize("command", [("models", "list"), ("index", "info", "x"), ("evaluate", "crops"), ("demo",), ()])
def test_every_command_takes_it(run, command):
    done = run(*command, "--help")
    assert "--verbose" in done.out


def test_the_library_is_silent_and_its_log_is_to_be_had(model, caplog):
    program = f"from landmark_onnx import Classifier; Classifier({str(model)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    with caplog.at_level(logging.INFO, "landmark_onnx"):
        assert find_model(fakes.CLS) == model
    assert caplog.messages == [f"{fakes.CLS} is the file {model}"]


@pytest.fixture
def failing(monkeypatch):
    """A command that fails with an error of the test's choice."""

    def fail_with(error: BaseException) -> None:
        def verified(*_):
            raise error

        monkeypatch.setattr("landmark_onnx.cli.commands.verify.verified", verified)

    return fail_with


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModelFileError("x.onnx: damaged"), "x.onnx: damaged"),
        (MemoryError("Unable to allocate 39 GiB"), "not enough memory: Unable to allocate 39 GiB"),
        (MemoryError(), "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply: maximum recursion depth exceeded"),
        (OverflowError("too large"), "a number is too large: too large"),
        (FileNotFoundError(2, "No such file", "x\x1b[31m"), "[Errno 2] No such file: 'x\\x1b[31m'"),
        (
            TypeError("'NoneType'\x1b[2J\nis odd"),
            "TypeError: 'NoneType'\\x1b[2J\\nis odd. This is a fault of landmark-onnx: run the same with --verbose, "
            "and report what it says",
        ),
    ],
)
def test_an_error_is_one_line_whoever_foresaw_it(failing, run, error, told):
    failing(error)
    done = run("verify", "x")
    assert (done.code, done.out, done.err) == (1, "", f"landmark-onnx: error: {told}\n")


def test_where_an_error_comes_from_is_shown_on_request(failing, run):
    cause = KeyError("\x1b[31mcause")
    error = TypeError("odd")
    error.__cause__ = cause
    failing(error)
    done = run("verify", "x", "--verbose")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "KeyError: '\\x1b[31mcause'" in done.err
    assert "in verified" in done.err
    assert "typer" not in done.err
    assert done.err.splitlines()[-1].startswith("landmark-onnx: error: TypeError: odd. ")


def test_wrong_usage_shows_no_control_characters(run):
    for arguments in (("\x1b[31mnothing",), ("verify", "--\x1b]0;title\x07"), ("verify", "x", "--format", "\x1b[2J")):
        done = run(*arguments)
        assert done.code == 2
        assert "\\x1b" in done.err
        assert "\x1b" not in done.err
        assert "\x07" not in done.err
