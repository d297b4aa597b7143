"""The reference in docs/ against the code: every key of a card, every public name."""

import dataclasses
import importlib
import re
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from landmark_onnx.cards.catalogue import shipped_cards
from landmark_onnx.cards.schema import Golden, ModelCard, Postprocess, Preprocess, Source

REFERENCE = Path(__file__).parents[1] / "docs/reference"
CARDS = (REFERENCE / "cards.md").read_text(encoding="utf-8")
PYTHON = (REFERENCE / "python.md").read_text(encoding="utf-8")

TABLES = {"Top level": ModelCard, "`[source]`": Source, "`[preprocess]`": Preprocess} | {
    "`[postprocess]`": Postprocess,
    "`[golden]`": Golden,
}
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
EXAMPLES = re.findall(r"```toml\n(.*?)```", CARDS, re.DOTALL)


def section(text, title):
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text):
    """The table of a section, a dictionary for each line."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    head, _, *body = lines
    return [dict(zip(head, line, strict=True)) for line in body]


def words(hint):
    """An annotation as the reference has it."""
    origin, args = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return "table"
    if origin is Mapping:
        return f"table of {WORDS[args[1]]}s"
    if origin is Literal:
        return ", ".join(f'`"{arg}"`' for arg in args)
    if origin is Annotated:
        limits = str(args[1])
        return limits if args[0] is str else f"{WORDS[args[0]]}, {limits}"
    if origin is tuple:
        if args[1:] == (...,):
            what, _, limits = words(args[0]).partition(",")
            return f"{what}s,{limits}"
        assert len(set(args)) == 1
        what, _, limits = words(args[0]).partition(",")
        return f"{len(args)} {what}s,{limits}"
    if origin in (Union, types.UnionType):
        (hint,) = set(args) - {types.NoneType}
    return WORDS[hint]


def default(field):
    """A default as TOML has it."""
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()}`"
    value = field.default
    if value is dataclasses.MISSING:
        return "required"
    if value is None:
        return "none"
    if dataclasses.is_dataclass(value):
        return "`{}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value) if isinstance(value, tuple) else value}`"


@pytest.mark.parametrize("title", TABLES)
def test_every_key_of_a_card_is_there_with_its_type_and_default(title):
    hints = get_type_hints(TABLES[title], include_extras=True)
    wanted = {
        f"`{field.name}`": (words(hints[field.name]), default(field)) for field in dataclasses.fields(TABLES[title])
    }
    table = rows(section(CARDS, title))
    assert {row["key"]: (row["type"], row["default"]) for row in table} == wanted
    assert [row["key"] for row in table] == list(dict.fromkeys(row["key"] for row in table)), "each once"
    assert all(row["meaning"] for row in table)


def test_every_table_of_a_card_is_there():
    nested = {hint for hint in get_type_hints(ModelCard).values() if dataclasses.is_dataclass(hint)}
    assert nested | {ModelCard} == set(TABLES.values())


@pytest.mark.parametrize("example", EXAMPLES, ids=[tomllib.loads(each)["name"] for each in EXAMPLES])
def test_examples_are_cards(example):
    card = ModelCard.from_dict(tomllib.loads(example), "cards.md")
    assert card.name not in shipped_cards()


def test_there_is_an_example_for_each_kind_of_model():
    found = [ModelCard.from_dict(tomllib.loads(example), "cards.md") for example in EXAMPLES]
    assert {card.task for card in found} == {"retrieval", "cls", "det"}
    assert {card.source.network == "program" for card in found} == {True, False}
    assert any(card.outputs for card in found), "an ONNX file of others"


def test_every_network_is_named():
    networks = pytest.importorskip("landmark_onnx_export.networks.build").NETWORKS
    named = set(re.findall(r"`(\w+)`", section(CARDS, "`[source]`").split("Networks:")[1]))
    assert named >= {name for name in networks if not name.endswith(("_auto", "_fc"))}
    assert {name for name in named if "net" in name or "inception" in name} <= set(networks)


@pytest.mark.parametrize("package", re.findall(r"^## `([\w.]+)`$", PYTHON, re.MULTILINE))
def test_every_public_name_is_there_and_no_other(package):
    table = rows(section(PYTHON, f"`{package}`"))
    named = [name for row in table for name in re.findall(r"`(\w+)`", row["name"])]
    assert sorted(named) == sorted(importlib.import_module(package).__all__)


def test_every_room_that_hands_on_names_is_there():
    rooms = [f"landmark_onnx.{room}" for room in ("search", "embedding", "recognition", "evaluation")]
    assert {"landmark_onnx", *rooms} == set(re.findall(r"^## `([\w.]+)`$", PYTHON, re.MULTILINE))
