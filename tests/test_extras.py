import tomllib
from pathlib import Path

import pytest

from landmark_onnx.errors import MissingExtraError
from landmark_onnx.extras import MODEL_PACKAGES, extra

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
EXTRAS = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("No module named 'faiss'", name="faiss"), "faiss is not installed; run: pip "),
        (ImportError("libomp.so: no such file"), "faiss cannot be imported (libomp.so: no such file); run: pip "),
    ],
)
def test_what_is_missing_and_what_is_damaged_are_told_apart(error, told):
    with pytest.raises(MissingExtraError) as raised, extra("search", what="faiss"):
        raise error
    assert str(raised.value).startswith(told)


@pytest.mark.parametrize(("package", "extras"), MODEL_PACKAGES.items())
def test_the_extras_bring_the_packages_of_models(package, extras):
    first, *others = extras
    assert any(each.replace("-", "_").startswith(f"{package}==") for each in EXTRAS[first])
    assert all(first in EXTRAS[other][0] for other in others)


@pytest.mark.parametrize("what", ["", "onnx"])
@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_an_interrupt_that_native_code_took_for_an_error_is_one(what, link):
    inner = ValueError("initialization failed")
    setattr(inner, link, KeyboardInterrupt())
    error = ImportError("onnx cannot be imported", name="onnx")
    error.__cause__ = inner
    with pytest.raises(KeyboardInterrupt), extra("quantize", what=what):
        raise error
