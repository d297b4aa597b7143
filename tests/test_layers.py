"""The order of the rooms: a room imports only rooms before its own, the exporter is reached by few, and no circles."""

import ast
from pathlib import Path

import pytest

import landmark_onnx

ROOT = Path(__file__).parents[1]
SOURCES = {
    "landmark_onnx": ROOT,
    "landmark_onnx_export": ROOT / "export",
    "landmark_onnx_models": ROOT / "models",
    "landmark_onnx_bench": ROOT / "benchmarks",
}

ORDER = (
    ("landmark_onnx_models",),
    ("lazy", "errors", "extras", "types", "tasks", "precision", "results"),
    ("files",),
    ("cards",),
    ("modelfile", "images"),
    ("store",),
    ("runtime",),
    ("inference",),
    ("verification",),
    ("landmark_onnx_export",),
    ("hub",),
    ("model",),
    ("embedding", "evaluation", "doctor"),
    ("search", "deploy"),
    ("recognition",),
    ("serving",),
    ("landmark_onnx_bench",),
    ("cli",),
)
"""Rooms, and single modules, from the first to the last. A room of a line imports those of the lines above it."""

LINE = {room: number for number, rooms in enumerate(ORDER) for room in rooms}
VOCABULARY = ORDER[1]
EXEMPT = ("landmark_onnx", "landmark_onnx.__main__")
"""The lazy front, and `python -m landmark_onnx`."""

EXPORTER_IS_REACHED_BY = ("landmark_onnx.hub.exporter", "landmark_onnx.cli.commands.", "landmark_onnx_bench.")


def modules(sources=SOURCES):
    """Name -> file of each module."""
    found = {}
    for package, folder in sources.items():
        for path in sorted((folder / package).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def module_of(name, known):
    """The module that a dotted name is, or is inside of; None if it is none of ours."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def arrows(name, text, known):
    """(line, module) of whatever a module's text imports of ours: at the top, in functions, for types, as children."""
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}, line {node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known and "." in node.value
        ):
            names = [] if name.startswith(node.value) else [node.value]  # `-m MODULE` of a child process
        for each in names:
            target = module_of(each, known)
            if target and target != name:
                yield node.lineno, target


def room(module):
    """The room of a module: a folder of landmark_onnx, a module beside them, or another package."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "landmark_onnx" and rest else package


def fault(module, target):
    """Which rule an arrow breaks, or ''."""
    here, there = room(module), room(target)
    if module in EXEMPT or here == there:
        return ""
    if there == "landmark_onnx":
        return "the front imports everybody, and nobody imports it"
    if there == "landmark_onnx_export" and not module.startswith(EXPORTER_IS_REACHED_BY):
        return f"the exporter is reached by {', '.join(EXPORTER_IS_REACHED_BY)} alone"
    if here in VOCABULARY and there in VOCABULARY:
        return ""
    if LINE[there] >= LINE[here]:
        return f"{here} comes before {there} or stands beside it: it may import {', '.join(before(here))}"
    return ""


def before(here):
    """The rooms that a room may import."""
    return [each for rooms in ORDER[: LINE[here]] for each in rooms]


def test_every_module_has_a_room():
    assert sorted({room(module) for module in MODULES} - set(LINE) - {"landmark_onnx", "__main__"}) == []


def test_rooms_import_only_rooms_before_their_own():
    faults = []
    for module, path in MODULES.items():
        for line, target in arrows(module, path.read_text(encoding="utf-8"), MODULES):
            if reason := fault(module, target):
                faults.append(f"{path.relative_to(ROOT)}:{line}: {module} -> {target}: {reason}")
    assert faults == []


def test_no_circles_between_files():
    graph = {
        module: {target for _, target in arrows(module, path.read_text(encoding="utf-8"), MODULES)}
        for module, path in MODULES.items()
        if module not in EXEMPT
    }
    assert [" -> ".join(circle) for circle in circles(graph)] == []


def circles(graph):
    """One circle through each module that is on one and was not on an earlier one."""
    found, state = [], {}

    def visit(node, path):
        state[node] = "open"
        for target in sorted(graph.get(node, ())):
            if state.get(target) == "open":
                found.append([*path[path.index(target) :], target])
            elif target not in state:
                visit(target, [*path, target])
        state[node] = "done"

    for node in sorted(graph):
        if node not in state:
            visit(node, [node])
    return found


def test_the_lazy_front_names_modules_that_are_there():
    assert [home for home in landmark_onnx._HOMES if home not in MODULES] == []


@pytest.mark.parametrize(
    ("module", "text", "wanted"),
    [
        ("landmark_onnx.files.atomic", "from landmark_onnx.store.locks import locked", "files comes before store"),
        ("landmark_onnx.files.atomic", "def f():\n    import landmark_onnx.model", "files comes before model"),
        ("landmark_onnx.store.locks", "COMMAND = 'landmark_onnx.cli.commands.det'", "store comes before cli"),
        ("landmark_onnx.hub.pull", "import landmark_onnx_export.convert", "the exporter is reached by"),
        ("landmark_onnx.model", "from landmark_onnx import Retriever", "nobody imports it"),
        ("landmark_onnx.modelfile.metadata", "import landmark_onnx.images.decode", "stands beside it"),
    ],
)
def test_an_arrow_that_breaks_a_rule_is_seen(module, text, wanted):
    [(_, target)] = arrows(module, text, MODULES)
    assert wanted in fault(module, target)


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "a"]]
