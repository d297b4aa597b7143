"""What importing and using the runtime loads, each seen from a fresh interpreter."""

import ast
import importlib
import importlib.metadata
import json
import os
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import fakes
import landmark_onnx

EXPORT = {"paddle", "paddle2onnx", "onnx", "onnxscript", "onnx_ir", "landmark_onnx_export"}
HEAVY = EXPORT | {"numpy", "cv2", "onnxruntime", "rich", "typer", "pyarrow", "platformdirs"}
MODULES = sorted(each.name for each in pkgutil.iter_modules(landmark_onnx.__path__, "landmark_onnx.") if not each.ispkg)
PACKAGES = [
    "landmark_onnx",
    *(f"landmark_onnx.{room}" for room in ("search", "embedding", "recognition", "evaluation")),
]


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
from landmark_onnx.verification.verify import verify
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


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_there_and_are_no_modules(package):
    """A function called as its module is would be replaced by it at the first import."""
    package = importlib.import_module(package)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    for name in package.__all__:
        value = getattr(package, name)
        assert not isinstance(value, types.ModuleType), name
        assert value is getattr(package, name), name
        (home,) = [home for home, names in package._HOMES.items() if name in names]
        made_in = getattr(value, "__module__", home)
        assert made_in == home or not made_in.startswith("landmark_onnx"), "the table names where it is defined"


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_listed_once_and_in_order(package):
    package = importlib.import_module(package)
    homes = [name for names in package._HOMES.values() for name in names]
    assert sorted(homes) == sorted(package.__all__)
    assert len(set(homes)) == len(homes)


@pytest.mark.parametrize("package", PACKAGES)
def test_checkers_of_types_see_each_public_name_where_it_is(package):
    package = importlib.import_module(package)
    tree = ast.parse(Path(package.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        node.module: tuple(sorted(each.name for each in node.names))
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("landmark_onnx")
    }
    assert seen == {home: tuple(sorted(names)) for home, names in package._HOMES.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_shown_before_they_are_used(package):
    names = importlib.import_module(package).__all__
    shown = fresh(f"import json, {package}; print(json.dumps(dir({package})))")
    assert {*names} <= set(shown)
    assert shown == sorted(set(shown))
    assert not HEAVY & set(fresh(f"import {package}; dir({package}); {LOADED}"))


def test_the_version_is_shown_and_found_without_what_is_heavy():
    assert "__version__" in dir(landmark_onnx)
    assert not HEAVY & set(fresh(f"import landmark_onnx; landmark_onnx.__version__; {LOADED}"))


@pytest.mark.parametrize("package", PACKAGES)
def test_other_names_are_not_there(package):
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = importlib.import_module(package).nothing


def test_the_package_runs_as_the_command_line(tmp_path):
    """The same command as the script's: its name, its output, its codes."""
    command = [sys.executable, "-m", "landmark_onnx"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, f"landmark-onnx {landmark_onnx.__version__}\n")
    wrong = subprocess.run([*command, "nothing"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert wrong.returncode == 2
    assert "Usage: landmark-onnx " in wrong.stderr


def test_the_version_is_that_of_the_installation():
    assert landmark_onnx.__version__ == importlib.metadata.version("landmark-onnx")
