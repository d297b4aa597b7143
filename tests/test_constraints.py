"""The pinned sets in constraints/: whole, hashed, without an index, such that pip takes the pins and nothing else."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "constraints").glob("*.txt"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
MODELS = "test-models"
"""Packages that are no dependencies: tests take their model files, and ask for nothing that they require."""
PIR = "export-pir"
"""The set of an environment of its own, whose versions are not those that are installed here."""
MADE_OF = {
    "export": ("cpu", "export"),
    PIR: ("cpu", PIR),
    "serve": ("cpu", "search", "serve"),
    "serve-gpu": ("gpu", "search", "serve"),
}
SETS = {path.stem: MADE_OF.get(path.stem, (path.stem,)) for path in FILES if path.stem != MODELS}
"""Set -> the extras that .ci/pin makes it of."""

ELSEWHERE = re.compile(r"nvidia-|onnxruntime-gpu$")
"""What only a GPU's set brings: not installed with the tests, so its metadata are not here to be read."""


def pins(path):
    """Name -> the requirement of each pinned distribution."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    found = [Requirement(line.partition(" --hash")[0]) for line in text.splitlines() if not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in found}


def wanted(requirement, extras):
    """Whether a requirement of a distribution that was asked for with `extras` holds here."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))


def lacking(pinned, requirement):
    """The extras that are asked for and not pinned: pip takes the newest release for these, beside the pin."""
    pin = pinned.get(canonicalize_name(requirement.name))
    return set(requirement.extras) - set(pin.extras if pin else ())


def own(*extras):
    """What the project itself asks for with these extras, its references to itself resolved."""
    for extra in extras:
        for requirement in map(Requirement, EXTRAS[extra]):
            if requirement.name == "landmark-onnx":
                yield from own(*requirement.extras)
            else:
                yield requirement


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_pin_has_its_hashes_and_no_file_names_an_index(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|--(extra-)?index|--find-links", text)
    entries = text.replace("\\\n", " ").splitlines()
    assert entries
    assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("chosen", SETS)
def test_what_is_required_with_extras_is_pinned_with_them(chosen):
    pinned = pins(ROOT / "constraints" / f"{chosen}.txt")
    bad = [f"landmark-onnx wants {each}" for each in own(*SETS[chosen]) if lacking(pinned, each)]
    unread = []
    for name, pin in pinned.items():
        if chosen == PIR or (pin.marker and not pin.marker.evaluate()):
            continue
        try:
            there = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            unread.append(name)
            continue
        assert pin.specifier.contains(there.version, prereleases=True), f"{pin} is pinned, {there.version} is here"
        needs = [each for each in map(Requirement, there.requires or ()) if wanted(each, pin.extras)]
        bad += [f"{name} wants {each}" for each in needs if lacking(pinned, each)]
    assert bad == []
    assert [name for name in unread if not ELSEWHERE.match(name)] == []


def test_a_pin_without_the_extra_that_is_asked_for_would_be_seen():
    pinned = {"coverage": Requirement("coverage==7.1")}
    assert lacking(pinned, Requirement("coverage[toml]>=7")) == {"toml"}
    assert lacking({"coverage": Requirement("coverage[toml]==7.1")}, Requirement("coverage[toml]>=7")) == set()


def test_the_environment_of_the_tests_has_no_broken_requirements():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        pytest.skip("this environment was made without pip")
    assert done.returncode == 0, done.stdout
