"""Fixtures that every folder of tests shares; the tiny models are in fakes.py."""

from pathlib import Path

import hypothesis
import pytest

from landmark_onnx.store import HOME_VARIABLE

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"

# The same examples in every run, and no limit of time to one: machines are shared.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def reference() -> Path:
    """The original's releases, photos and answers."""
    if not REFERENCE.is_dir():
        pytest.skip(f"the original's answers are not at {REFERENCE}")
    return REFERENCE


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    """An empty store of models, so that no test sees the user's."""
    folder = tmp_path / "store"
    monkeypatch.setenv(HOME_VARIABLE, str(folder))
    return folder
