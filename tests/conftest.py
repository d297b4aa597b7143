"""Fixtures that every folder of tests shares; the tiny models are in fakes.py."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from commands import ENDING, Done
from landmark_onnx.cards.catalogue import CARDS_VARIABLE
from landmark_onnx.cli import main
from landmark_onnx.errors import NO_EXPORTER, can_export
from landmark_onnx.hub.addresses import OFFLINE_VARIABLE
from landmark_onnx.store.catalogue import HOME_VARIABLE
from landmark_onnx_export.paddle.runtime import ENVIRONMENT

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"

# The same examples in every run, and no limit of time to one: machines are shared.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """What must hold before any test is collected: Paddle's old program format, and no cards of the user's."""
    os.environ.update(ENVIRONMENT)
    folder = tempfile.mkdtemp(prefix="landmark-onnx-cards-")
    config.add_cleanup(lambda: shutil.rmtree(folder))
    os.environ[CARDS_VARIABLE] = folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where Paddle cannot be had, what runs it is left out, and said to be."""
    if item.get_closest_marker("paddle") and not can_export():
        pytest.skip(NO_EXPORTER)


@pytest.fixture(scope="session")
def reference() -> Path:
    """The original's releases, photos and answers."""
    if not REFERENCE.is_dir():
        reason = f"the original's answers are not at {REFERENCE}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return REFERENCE


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    """An empty store of models, so that no test sees the user's; and nothing is downloaded for it unasked."""
    folder = tmp_path / "store"
    monkeypatch.setenv(HOME_VARIABLE, str(folder))
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    return folder


@pytest.fixture(scope="session", autouse=True)
def temporary(tmp_path_factory) -> Iterator[None]:
    """A temporary folder of our own: what others left in the system's is cleared, and counted, by no test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture
def run(capsys):
    """The command line in this process, which is fast: what it leaves behind."""

    def call(*arguments) -> Done:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Done(left.value.code or 0, printed.out, printed.err)

    handlers = {number: signal.getsignal(number) for number in ENDING}
    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
