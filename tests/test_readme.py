"""README and docs against what they speak of."""

import os
import pkgutil
import re
import shlex
import subprocess
import sys

import pytest

from landmark_onnx.cards.catalogue import original_cards, shipped_cards
from landmark_onnx.cli.commands import COMMANDS
from pages import PAGES, ROOT, TEXTS, wrong

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?<![\w./-])(?:\.ci|benchmarks|constraints|docker|docs|landmark_onnx|tests)/[\w./-]*\w(?<![A-Z])")
"""A name in capitals is the reader's own."""


def prose(text):
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(text):
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def bad_links(page):
    """Relative links of a page that lead nowhere."""
    for target in LINK.findall(prose(TEXTS[page])):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (PAGES[page].parent / name).resolve() if name else PAGES[page]
        if not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            yield target


def model_rows():
    """The README's table of models, from the cards."""
    for card in original_cards().values():
        scores = [card.scores.get("public_map100"), card.scores.get("private_map100")]
        figures = " | ".join("" if score is None else f"{score:.4f}" for score in scores)
        yield f"| `{card.name}` | {card.task} | {card.summary} | {card.preprocess.size} | {figures} |"


def ready_rows():
    """The guide's table of models that can be had, from the cards."""
    for name, card in shipped_cards().items():
        if name not in original_cards():
            values = card.postprocess.dimension or ""
            size = f"{card.source.bytes / 1e6:.0f} MB" if card.source.bytes else ""
            licence = card.licence.partition(";")[0]
            yield f"| `{name}` | {card.task} | {values} | {licence} | {size} | {card.training_data} |"


def shell_lines(text):
    """Each simple command of a page's bash blocks, as words; and spans of code that begin as one."""
    for language, block in FENCE.findall(text):
        if language == "bash":
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                yield from split_words(words)
    for span in SPAN.findall(prose(text)):
        if span.split()[0] in {"landmark-onnx", *COMMANDS}:
            yield from split_words(shlex.split(span))


def split_words(words):
    """The simple commands of a line."""
    command = []
    for word in [*words, "&&"]:
        if word in ("&&", "||", "|", ";"):
            yield command
            command = []
        else:
            command.append(word)


def own_arguments(words):
    """What a simple command gives to landmark-onnx, or None."""
    for at, word in enumerate(words):
        if re.fullmatch(r"(\S*/)?landmark-onnx(:\w+)?", word) and words[0] not in ("pip", "git") and "-t" not in words:
            return words[at + 1 :]
    return words if words and words[0] in COMMANDS else None


@pytest.mark.parametrize(("page", "rows"), [("README.md", model_rows), ("docs/guides/models.md", ready_rows)])
def test_the_models_are_those_of_the_cards(page, rows):
    table = [line for line in TEXTS[page].splitlines() if re.match(r"\| `\w+` \| (retrieval|cls|det) \|", line)]
    assert table == list(rows())


@pytest.mark.parametrize("page", TEXTS)
def test_its_links_lead_somewhere(page):
    assert not list(bad_links(page))


@pytest.mark.parametrize("page", TEXTS)
def test_the_files_it_names_are_there(page):
    assert not [name for name in FILE.findall(LINK.sub("", TEXTS[page])) if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", TEXTS)
def test_the_python_names_it_names_are_there(page):
    for name in SPAN.findall(prose(TEXTS[page])):
        if re.fullmatch(r"landmark_onnx(\.\w+)+", name):
            pkgutil.resolve_name(name)


def test_every_page_is_in_the_table_of_contents():
    contents = {(ROOT / "docs" / target).resolve() for target in LINK.findall(TEXTS["docs/README.md"])}
    assert {path.resolve() for name, path in PAGES.items() if name not in ("README.md", "docs/README.md")} == contents


def test_what_is_asked_of_links_and_files_would_be_seen(monkeypatch):
    monkeypatch.setitem(TEXTS, "README.md", "[a](docs/nothing.md) [b](docs/fast.md#nothing) [c](docs/fast.md#threads)")
    assert list(bad_links("README.md")) == ["docs/nothing.md", "docs/fast.md#nothing"]
    assert FILE.findall("`constraints/none.txt`, bundle/models/a, benchmarks/search/results.") == [
        "constraints/none.txt",
        "benchmarks/search/results",
    ]


def own_lines(text):
    return [line for words in shell_lines(text) if (line := own_arguments(words)) is not None]


@pytest.mark.parametrize("page", TEXTS)
def test_its_command_lines_are_commands(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = "".join(block[0] for block in FENCE.finditer(TEXTS[page]))
    problems = {" ".join(line): wrong(line, whole=True) for line in own_lines(blocks)}
    problems |= {" ".join(line): wrong(line, whole=False) for line in own_lines(prose(TEXTS[page]))}
    assert not {line: problem for line, problem in problems.items() if problem}


def test_command_lines_are_found():
    assert sum(len(own_lines(text)) for text in TEXTS.values()) > 60


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("landmark-onnx nothing", "no command"),
        ("landmark-onnx cls --nothing a.jpg", "--nothing"),
        ("HOME=x .venv/bin/landmark-onnx index nothing", "no command"),
        ("landmark-onnx cls -m a --format nothing a.jpg", "nothing"),
        ("docker run landmark-onnx:cpu retrieval --nothing", "--nothing"),
        ("landmark-onnx models rm a --card && landmark-onnx demo --out x", "--out"),
    ],
)
def test_command_lines_that_are_wrong_would_be_seen(line, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [wrong(own, whole=True) for own in own_lines(f"```bash\n{line}  # a note\n```\n")]
    assert problem in found[-1]
    assert "--nothing" in wrong(["cls", "--nothing"], whole=False)


def test_the_pictures_are_no_burden():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs").rglob("*.*") if path.suffix != ".md"}
    assert {name: size for name, size in sizes.items() if size > 150_000} == {}


def typed(folder):
    """What mypy says of the programs in a folder."""
    # What an editable installation is of is not looked through for types.
    sources = os.pathsep.join(str(ROOT / source) for source in (".", "models"))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir"]
    return subprocess.run(
        [*command, str(ROOT / ".mypy_cache/readme"), *sorted(path.name for path in folder.iterdir())],
        cwd=folder,
        env=os.environ | {"MYPYPATH": sources},
        capture_output=True,
        text=True,
    )


def test_its_examples_are_typed(tmp_path):
    """Each Python block of README and docs, as a program of its own."""
    for page, text in TEXTS.items():
        for number, block in enumerate(block for language, block in FENCE.findall(text) if language == "python"):
            stem = re.sub(r"\W", "_", f"{page}_{number}")
            (tmp_path / f"{stem}.py").write_text(block)
    assert len(list(tmp_path.iterdir())) > 4
    done = typed(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_that_are_not_there_would_be_seen(tmp_path):
    rooms = ["landmark_onnx", *re.findall(r"^## `(landmark_onnx\.\w+)`$", "\n".join(TEXTS.values()), re.MULTILINE)]
    (tmp_path / "wrong.py").write_text("".join(f"from {room} import Nothing\n" for room in rooms))
    assert typed(tmp_path).stdout.count('has no attribute "Nothing"') == len(rooms) > 4
