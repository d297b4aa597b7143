import os
import signal
import subprocess

import pytest

from landmark_onnx.files.child_process import ask_child, death, last_line


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module whose children answer with what they are given, print, or die."""
    (tmp_path / "questions.py").write_text("""
import json, os, sys, time
from landmark_onnx.files.child_process import reply

def work(question, *arguments):
    given = json.load(sys.stdin)
    print("about to", question)
    if question == "die":
        os.kill(os.getpid(), 9)
    if question == "wait":
        time.sleep(60)
    if question == "fail":
        raise ValueError("no such thing")
    return {"arguments": arguments, "given": given, "told": os.environ.get("TOLD")}

path, *asked = sys.argv[1:]
reply(path, lambda: work(*asked), (ValueError,))
""")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "questions"


def test_a_child_gets_arguments_and_environment_and_answers(module):
    ended = ask_child(module, "echo", "a", given={"b": [1]}, environment={"TOLD": "yes"})
    assert ended.answer == {"arguments": ["a"], "given": {"b": [1]}, "told": "yes"}
    assert (ended.code, ended.words.strip()) == (0, "about to echo")


def test_what_was_foreseen_is_an_answer_and_what_kills_is_a_signal(module):
    assert ask_child(module, "fail").answer == {"error": "no such thing"}
    ended = ask_child(module, "die")
    assert ended.answer is None
    assert death(ended.code) == "SIGKILL"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_a_child_starts_ends_the_child(module, monkeypatch, number):
    started = []

    class Interrupted(subprocess.Popen):
        """Interrupted before anybody has it."""

        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)
            os.kill(os.getpid(), number)

    before = signal.signal(number, signal.default_int_handler)
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            ask_child(module, "wait")
    finally:
        handler = signal.signal(number, before)
    assert handler is signal.default_int_handler
    assert started[0].poll() == -signal.SIGKILL


def test_the_last_words_of_a_process():
    assert last_line("one\n  two \n\n") == "two"
    assert last_line(" \n") == "without a word"
    assert (death(3), death(-signal.SIGTERM), death(-1000)) == ("exit code 3", "SIGTERM", "exit code -1000")
