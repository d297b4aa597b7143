"""How the code may be cut: what a person has to hold in mind at once stays small, and a name means one thing."""

import ast
import collections
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = (
    ROOT / "landmark_onnx",
    ROOT / "export" / "landmark_onnx_export",
    ROOT / "models" / "landmark_onnx_models",
    ROOT / "benchmarks" / "landmark_onnx_bench",
)


def classes() -> Iterator[tuple[str, str]]:
    """Each public class of a module: its name, and where it is."""
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    yield node.name, str(path.relative_to(ROOT))


def test_no_public_class_name_is_defined_twice():
    found = collections.defaultdict(list)
    for name, place in classes():
        found[name].append(place)
    assert len(found) > 100
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


OPS = Path("export/landmark_onnx_export/ops/bodies.py")
"""Bodies of ONNX functions: their parameters are an operator's inputs and attributes, as its specification has them."""
FILE_LINES, OPS_LINES, FUNCTION_LINES, PARAMETERS = 300, 550, 40, 6


def sources() -> Iterator[tuple[Path, str]]:
    for package in (*PACKAGES, ROOT / "benchmarks" / "scripts"):
        for path in sorted(package.rglob("*.py")):
            yield path.relative_to(ROOT), path.read_text()


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many there are beside options: what is given by name alone and has a default, and what a command takes."""
    if any(ast.unparse(each) == "unfolded" for each in function.decorator_list):
        return 0
    given = function.args
    wanted = [each for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    return len([each for each in (*given.posonlyargs, *given.args, *wanted) if each.arg not in ("self", "cls")])


def too_large(path: Path, text: str) -> Iterator[str]:
    most = OPS_LINES if path == OPS else FILE_LINES
    if (lines := text.count("\n")) > most:
        yield f"{path}: {lines} lines, wanted at most {most}"
    commands = path.match("cli/commands/*.py")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        where = f"{path}:{node.lineno} {node.name}"
        if (lines := node.end_lineno - node.lineno + 1) > FUNCTION_LINES:
            yield f"{where}: {lines} lines, wanted at most {FUNCTION_LINES}"
        count = parameters(node) - (len(node.args.defaults) if commands else 0)
        if count > PARAMETERS and path != OPS:
            yield f"{where}: {count} parameters, wanted at most {PARAMETERS}"


def test_files_and_functions_stay_small():
    assert [line for path, text in sources() for line in too_large(path, text)] == []


def test_what_is_too_large_is_found():
    body = "\n".join(["def f(a, b, c, d, e, g, h, *, i=1):", *["    pass"] * 40]) + "\n" * 270
    assert list(too_large(Path("x.py"), body)) == [
        "x.py: 310 lines, wanted at most 300",
        "x.py:1 f: 41 lines, wanted at most 40",
        "x.py:1 f: 7 parameters, wanted at most 6",
    ]
