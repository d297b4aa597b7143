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
