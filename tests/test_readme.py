"""The README against what it speaks of."""

import re
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
    names = re.findall(r"constraints/[\w-]+\.txt|\.readme/[\w.-]+|\.docker/[\w.-]+", README)
    assert names
    assert all((ROOT / name).is_file() for name in names)


def test_the_picture_is_not_a_burden():
    assert sum(path.stat().st_size for path in (ROOT / ".readme").iterdir()) < 200_000
