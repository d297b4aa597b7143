"""The README against what it speaks of."""

import os
import re
import subprocess
import sys
from pathlib import Path

from landmark_onnx.cards import cards

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def model_rows():
    """The README's table of models, from the cards."""
    for card in cards().values():
        scores = [card.scores.public_map100, card.scores.private_map100]
        figures = " | ".join("" if score is None else f"{score:.4f}" for score in scores)
        yield f"| `{card.name}` | {card.task} | {card.summary} | {card.preprocess.size} | {figures} |"


def test_the_models_are_those_of_the_cards():
    table = [line for line in README.splitlines() if re.match(r"\| `\w+` \| (retrieval|cls|det) \|", line)]
    assert table == list(model_rows())


def test_the_files_it_names_are_there():
    names = re.findall(r"constraints/[\w-]+\.txt|docs/[\w.-]+|docker/[\w.-]+", README)
    assert names
    assert all((ROOT / name).is_file() for name in names)


def test_the_picture_is_not_a_burden():
    assert sum(path.stat().st_size for path in (ROOT / "docs").iterdir()) < 200_000


def test_its_example_is_typed(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    # What an editable installation is of is not looked through for types.
    sources = os.pathsep.join(str(ROOT / folder) for folder in (".", "models"))
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(ROOT / ".mypy_cache/readme"),
    ]
    done = subprocess.run(
        [*command, "example.py"], cwd=tmp_path, env=os.environ | {"MYPYPATH": sources}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
