"""What importing and using the runtime loads, each seen from a fresh interpreter."""

import importlib
import importlib.metadata
import json
import os
import pkgutil
import subprocess
import sys
import types

import pytest

import fakes
import landmark_onnx

EXPORT = {"paddle", "paddle2onnx", "onnx", "onnxscript", "onnx_ir", "landmark_onnx_export"}
HEAVY = EXPORT | {"numpy", "cv2", "onnxruntime", "rich", "typer", "pyarrow", "platformdirs"}
MODULES = sorted(each.name for each in pkgutil.iter_modules(landmark_onnx.__path__, "landmark_onnx.") if not each.ispkg)


def fresh(code, *arguments, **environment):
    """What `code` prints as JSON in a new interpreter where warnings are errors."""
    variables = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | environment
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LOADED = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def test_importing_the_package_loads_nothing_heavy():
    assert not HEAVY & set(fresh(f"import landmark_onnx; {LOADED}"))


def test_this_test_would_see_what_is_heavy():
    assert {"numpy", "cv2"} <= set(fresh(f"import landmark_onnx; landmark_onnx.Retriever; {LOADED}"))


@pytest.mark.parametrize(
    ("kind", "make"),
    [("Retriever", fakes.make_retrieval), ("Classifier", fakes.make_cls), ("Detector", fakes.make_det)],
)
def test_running_a_model_loads_no_export_code(kind, make, tmp_path):
    path = make(tmp_path / "model.onnx")
    code = f"""
import sys
import landmark_onnx, numpy
model = landmark_onnx.{kind}(sys.argv[1], threads=1)
model(numpy.zeros((40, 50, 3), numpy.uint8))
from landmark_onnx.verify import verify
verify(sys.argv[1], threads=1)
{LOADED}"""
    loaded = set(fresh(code, path))
    assert "onnxruntime" in loaded
    assert not EXPORT & loaded


@pytest.mark.parametrize("module", MODULES)
def test_every_module_of_the_runtime_imports_without_export_code(module):
    """Also where that is installed and damaged: nothing may so much as try."""
    block = f"import sys; sys.modules.update(dict.fromkeys({sorted(EXPORT)!r}))"
    code = f"{block}; import {module}; print('true')"
    assert fresh(code) is True


def test_telemetry_is_off_before_onnx_runtime_is_there():
    code = "import json, landmark_onnx, os; print(json.dumps(os.environ['ORT_DISABLE_TELEMETRY']))"
    assert fresh(code) == "1"
    assert fresh(code, ORT_DISABLE_TELEMETRY="0") == "0", "the user's own choice stays"


@pytest.mark.parametrize("name", landmark_onnx.__all__)
def test_public_names_are_there_and_are_no_modules(name):
    """A function called as its module is would be replaced by it at the first import."""
    for module in MODULES:
        importlib.import_module(module)
    value = getattr(landmark_onnx, name)
    assert not isinstance(value, types.ModuleType)
    assert value.__module__.startswith("landmark_onnx.")
    assert value is getattr(landmark_onnx, name)


def test_public_names_are_listed_once_and_in_order():
    homes = [name for names in landmark_onnx._HOMES.values() for name in names]
    assert sorted(homes) == landmark_onnx.__all__


def test_public_names_are_shown_before_they_are_used():
    shown = fresh("import json, landmark_onnx; print(json.dumps(dir(landmark_onnx)))")
    assert {*landmark_onnx.__all__, "__version__"} <= set(shown)
    assert shown == sorted(set(shown))
    code = f"import json, landmark_onnx; dir(landmark_onnx); landmark_onnx.__version__; {LOADED}"
    assert not HEAVY & set(fresh(code))


def test_the_version_is_that_of_the_installation():
    assert landmark_onnx.__version__ == importlib.metadata.version("landmark-onnx")


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="module 'landmark_onnx' has no attribute 'nothing'"):
        landmark_onnx.nothing  # noqa: B018
