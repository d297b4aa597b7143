"""Interrupts at whatever moment: exit code 130, and not a word."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest

import fakes
from commands import hearing
from landmark_onnx.errors import MissingExtraError
from landmark_onnx.runtime.providers import onnxruntime

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no SIGALRM")

BEGUN = "from landmark_onnx.cli import main; print('begun', flush=True); main()"
CUT_OFF = """
import os, signal, traceback
try:
    os.kill(os.getpid(), signal.{signal})
    sum(range(1000))
except KeyboardInterrupt as error:
    traceback.print_exc()
    raise ImportError("initialization failed") from error
"""
"""A module whose native part is interrupted as it is imported, shows that, and takes it for an error of its own."""


def start(*arguments: str, code: str = BEGUN, **environment: str) -> "subprocess.Popen[bytes]":
    with hearing():
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )


def finish(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    """Its output, standard error's second; one that hangs is killed, and fails the test."""
    try:
        return process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"hangs: {process.communicate()}")


def kills(tmp_path, moments) -> None:
    model = fakes.make_cls(tmp_path / "model.onnx")
    for number, moment in zip(itertools.cycle((signal.SIGINT, signal.SIGTERM)), moments, strict=False):
        with start("cls", "-m", str(model), "--quiet", "no.png") as process:
            assert process.stdout
            assert process.stdout.readline() == b"begun\n"
            time.sleep(moment)
            process.send_signal(number)
            out, err = finish(process)
        told = b"no.png" in err  # it was done already
        assert process.returncode == 130 or (told and process.returncode == 1), (number, moment, err)
        assert b"Traceback" not in err
        assert told or not out + err


def test_an_interrupt_at_any_moment_of_the_start_says_nothing(tmp_path):
    kills(tmp_path, [0.005, 0.05, 0.1, 0.15, 0.2, 0.3])


@pytest.mark.slow
def test_an_interrupt_at_many_moments_says_nothing(tmp_path):
    kills(tmp_path, [0.005 + moment / 60 for moment in range(60)])


def with_module(tmp_path, name: str, number: str) -> dict[str, str]:
    package = tmp_path / "packages" / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(CUT_OFF.format(signal=number))
    return {"PYTHONPATH": str(package.parent)}


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_interrupted_import_is_not_called_a_missing_package(tmp_path, number):
    model = fakes.make_cls(tmp_path / "model.onnx")
    with start("cls", "-m", str(model), "no.png", **with_module(tmp_path, "onnxruntime", number)) as process:
        out, err = finish(process)
    assert (process.returncode, out, err) == (130, b"begun\n", b"")


def test_the_library_too_hands_on_an_interrupt_that_an_import_took_for_an_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(with_module(tmp_path, "onnxruntime", "SIGINT")["PYTHONPATH"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            onnxruntime()
    finally:
        signal.signal(signal.SIGINT, before)
    assert issubclass(MissingExtraError, ImportError)


def test_a_second_signal_at_once_does_not_cut_the_cleaning_short():
    code = """if True:
        import os, signal, sys, time
        from landmark_onnx.cli.signals import interruptible
        interruptible()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            print("cleaned")
    """
    with start(code=code) as process:
        assert finish(process) == (b"cleaned\n", b"")


def test_signals_that_are_ignored_stay_ignored():
    code = """if True:
        import os, signal, sys
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        from landmark_onnx.cli.signals import interruptible, settle
        interruptible()
        settle()
        os.kill(os.getpid(), signal.SIGHUP)
        print("here")
    """
    with start(code=code) as process:
        assert finish(process) == (b"here\n", b"")


def test_a_signal_after_the_work_takes_nothing_from_its_exit_code(tmp_path):
    code = """if True:
        import atexit, os, signal
        from landmark_onnx.cli import main
        class Late:
            def __del__(self, kill=os.kill, pid=os.getpid()):
                kill(pid, signal.SIGTERM)
        late = Late()
        main(["--version"])
    """
    with start(code=code) as process:
        out, err = finish(process)
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b"landmark-onnx ")


def test_a_signal_just_after_the_work_is_no_traceback():
    code = """if True:
        import os, signal
        import landmark_onnx.cli
        settle = landmark_onnx.cli.settle
        def late():
            os.kill(os.getpid(), signal.SIGTERM)
            settle()
        landmark_onnx.cli.settle = late
        landmark_onnx.cli.main(["--version"])
    """
    with start(code=code) as process:
        out, err = finish(process)
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b"landmark-onnx ")


def test_a_signal_within_an_import_just_before_the_end_of_the_work_is_no_traceback(tmp_path):
    (tmp_path / "late_import.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    code = """if True:
        import sys, time
        import landmark_onnx.cli
        settle = landmark_onnx.cli.settle
        def late():
            done = "late_import" in sys.modules
            import late_import
            settle()
            if done:
                time.sleep(0.1)  # the interrupt was to be raised in here
        landmark_onnx.cli.settle = late
        landmark_onnx.cli.main(["--version"])
    """
    with start(code=code, PYTHONPATH=str(tmp_path)) as process:
        out, err = finish(process)
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b"landmark-onnx ")


def test_cleaning_up_that_never_ends_ends():
    code = """if True:
        import os, signal, threading, time
        from landmark_onnx.cli import signals
        signals.CLEANING = 0.2
        signals.interruptible()
        nobody_gives_back = threading.Lock()
        nobody_gives_back.acquire()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            with nobody_gives_back:
                print("here")
    """
    with start(code=code) as process:
        out, err = finish(process)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_an_interrupt_within_a_finaliser_is_not_lost():
    code = """if True:
        import os, signal, time
        from landmark_onnx.cli import signals
        signals.interruptible()
        class Late:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)
        try:
            Late()
            time.sleep(5)
            print("lost")
        except KeyboardInterrupt:
            print("interrupted")
    """
    with start(code=code) as process:
        assert finish(process) == (b"interrupted\n", b"")


def test_another_failure_of_a_finaliser_is_told():
    code = """if True:
        from landmark_onnx.cli import signals
        signals.interruptible()
        class Fails:
            def __del__(self):
                raise ValueError("told")
        Fails()
    """
    with start(code=code) as process:
        assert b"ValueError: told" in finish(process)[1]
