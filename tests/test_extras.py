import pytest

from landmark_onnx.errors import MissingExtraError
from landmark_onnx.extras import extra


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


@pytest.mark.parametrize("what", ["", "onnx"])
@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_an_interrupt_that_native_code_took_for_an_error_is_one(what, link):
    inner = ValueError("initialization failed")
    setattr(inner, link, KeyboardInterrupt())
    error = ImportError("onnx cannot be imported", name="onnx")
    error.__cause__ = inner
    with pytest.raises(KeyboardInterrupt), extra("quantize", what=what):
        raise error
