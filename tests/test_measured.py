"""What texts say was measured against benchmarks/results/, and what its tables say of themselves."""

import ast
import importlib.util
import itertools
import re
import shlex

import pytest

from pages import PAGES, ROOT, TEXTS, wrong

TABLES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in ROOT.glob("benchmarks/results/**/*.md")
}
TARGET = re.compile(r"^\[(\w+)\]: (\S*benchmarks/results/\S+)$", re.MULTILINE)


def figures(page):
    """Each measured figure of a page, and the table that it links to: `[0.98][name]`, `[name]: path`."""
    for name, target in TARGET.findall(TEXTS[page]):
        for text in re.findall(rf"\[([^\]]+)\]\[{name}\]", TEXTS[page]):
            yield " ".join(text.split()), (PAGES[page].parent / target).resolve()


def strange_figures(page):
    """Those that do not stand in their table."""
    for figure, path in figures(page):
        if not re.search(rf"(?<![\w.,]){re.escape(figure)}(?!\w|[.,]\d)", path.read_text(encoding="utf-8")):
            yield figure


def unknown_tables(page):
    """Names of tables that the page does not say: what refers to them is no link."""
    text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE)
    return set(re.findall(r"\]\[(\w+)\]", text)) - dict(TARGET.findall(text)).keys()


@pytest.mark.parametrize("page", TEXTS)
def test_its_figures_stand_in_the_tables_they_link_to(page):
    assert not list(strange_figures(page))
    assert not unknown_tables(page)


def test_figures_that_stand_nowhere_would_be_seen(monkeypatch):
    path = "benchmarks/results/xeon-amx-2-cores/must_hold.md"
    told = re.search(r"\d+ of \d+ hold", TABLES[path])[0]
    broken, cut = told.replace(" hold", "\nhold"), told.removesuffix(" hold")[:-1]
    text = f"[0.123456][x] [{broken}][x] [{cut}][x] [0.82][y] [9][]\n\n[x]: ../{path}\n"
    monkeypatch.setitem(TEXTS, "docs/fast.md", text)
    assert list(strange_figures("docs/fast.md")) == ["0.123456", cut]
    assert unknown_tables("docs/fast.md") == {"y"}


def commands_of(result):
    """The command lines in a table's head."""
    lines = [line.strip() for line in TABLES[result].splitlines() if line.startswith("    ")]
    return [*lines, *re.findall(r"`((?:python|landmark-onnx) [^`]*)`", TABLES[result])]


def cannot_run(command):
    """Why a command of a table does not run as it stands there today, or None."""
    words = shlex.split(command)
    words = list(itertools.dropwhile(lambda word: re.match(r"\w+=", word), words))
    if words[0] == "landmark-onnx":
        return wrong(words[1:], whole=False)
    if words[1] == "-m":
        return None if importlib.util.find_spec(words[2]) else f"no module {words[2]}"
    script = ROOT / words[1]
    if not script.is_file():
        return f"no file {words[1]}"
    known = {node.value for node in ast.walk(ast.parse(script.read_text("utf-8"))) if isinstance(node, ast.Constant)}
    unknown = [word for word in words if word.startswith("-") and word not in known]
    return f"no options {unknown}" if unknown else None


@pytest.mark.parametrize("result", TABLES)
def test_a_table_says_what_made_it_and_on_what(result):
    assert commands_of(result)
    assert not [problem for command in commands_of(result) if (problem := cannot_run(command))]
    assert re.search(r"\d (of \d+ )?cores", TABLES[result])
    assert re.search(r"landmark-onnx \d+\.\d+", TABLES[result])


def test_commands_that_do_not_run_would_be_seen():
    assert cannot_run("python benchmarks/scripts/none.py") == "no file benchmarks/scripts/none.py"
    assert cannot_run("A=1 python benchmarks/scripts/must_hold.py --none") == "no options ['--none']"
    assert cannot_run("python -m landmark_onnx_bench.none") == "no module landmark_onnx_bench.none"
    assert cannot_run("landmark-onnx bench --none") == "no options ['--none']"
