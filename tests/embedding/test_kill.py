"""SIGKILL in the middle of `landmark-onnx embed`: whatever is there afterwards is whole, and the next run goes on."""

import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fakes
from landmark_onnx.embedding.feature_folder import open_features
from landmark_onnx.embedding.manifest import read_manifest
from landmark_onnx.errors import FeatureError
from landmark_onnx.images.contact_sheet import write_image

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

NURSERY = """
import json, os, sys, time
import landmark_onnx.cli.commands.embed, landmark_onnx.embedding.ray_cluster, landmark_onnx.embedding.listing
import landmark_onnx.embedding.join, landmark_onnx.embedding.update
import onnxruntime
import pyarrow.parquet
from landmark_onnx.files import atomic as files
from landmark_onnx.cli import main
from landmark_onnx.embedding import extract, swap

publish = files.publish

def slow(temporary, path):
    time.sleep(0.01)
    publish(temporary, path)
    time.sleep(0.01)

def slow_path(*arguments, shard_path=swap.shard_path):
    time.sleep(0.003)
    return shard_path(*arguments)

files.publish = slow
swap.shard_path = slow_path
extract.KEEP_SECONDS = 0.0  # rows are kept one by one, as if each took half a minute
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        try:
            main(json.loads(line))
        except SystemExit as left:
            os._exit(left.code or 0)
        finally:
            os._exit(99)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Forks a run for each line of its input, so that none waits for imports; the moments that matter last longer."""


@pytest.fixture(scope="module")
def nursery() -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", NURSERY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    ) as process:
        yield process
        process.kill()


def live(nursery: "subprocess.Popen[bytes]", arguments: list[str], moment: float) -> int:
    """Run the command line; if it lives on after `moment` seconds, kill it."""
    assert nursery.stdin
    assert nursery.stdout
    nursery.stdin.write(json.dumps(arguments).encode() + b"\n")
    pid = int(nursery.stdout.readline())
    if not select.select([nursery.stdout], [], [], moment)[0]:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, signal.SIGKILL)
    return int(nursery.stdout.readline())


def contents(folder: Path) -> dict[str, bytes]:
    """The files that are not hidden."""
    return {path.name: path.read_bytes() for path in folder.glob("*") if not path.name.startswith(".")}


def check(folder: Path, whole: dict[str, bytes]) -> bool:
    """Nothing but what a whole run leaves, byte for byte, save the manifest; whether it says that all is there."""
    found = contents(folder)
    manifest = json.loads(found.pop("features.json", b'{"complete": false}'))
    assert found.items() <= whole.items()
    if manifest["complete"]:
        assert found.keys() == whole.keys() - {"features.json"}
    return bool(manifest["complete"])


def slay(nursery: "subprocess.Popen[bytes]", tmp_path: Path, kills: int) -> None:
    """Kill it at random moments, spread over its life, again and again until a run outlives all of them."""
    for number in range(33):
        shape = (64, 80) if number % 3 else (80, 64)
        write_image(tmp_path / f"photos/{number:02}.png", fakes.photo(*shape, seed=number))
    (tmp_path / "photos/17.png").write_bytes(b"bad")
    model = str(fakes.make_retrieval(tmp_path / "model.onnx", dim=16))
    command = ["embed", str(tmp_path / "photos"), "-m", model, "--shard-size", "3", "--threads", "1", "-o"]
    begin = time.monotonic()
    assert live(nursery, [*command, str(tmp_path / "whole")], 60) == 1
    seconds = time.monotonic() - begin
    whole = contents(tmp_path / "whole")
    chance = random.Random(kills)
    folder, deaths, gone_on = tmp_path / "features", 0, 0
    for number in range(10 * kills):
        before = len(contents(folder))
        code = live(nursery, [*command, str(folder)], seconds * chance.random())
        deaths += code == -signal.SIGKILL
        gone_on += 0 < before < len(contents(folder))
        complete = check(folder, whole)
        if code != -signal.SIGKILL:
            assert code == 1
            assert contents(folder) == whole
        if complete:
            folder = tmp_path / f"features{number}"
        if deaths >= kills:
            break
    assert gone_on >= kills / 10
    assert live(nursery, [*command, str(folder)], 60) == 1
    assert contents(folder) == whole
    assert {path.name for path in folder.iterdir()} - whole.keys() <= {".lock"}
    features = open_features(folder)
    assert features.count == 32
    assert np.isfinite(features.vectors(features.models[0].name)).all()


def seen_by_readers(folder: Path, states: dict[str, dict[str, bytes]]) -> str:
    """Which of the states a folder is in, to the last value; between two of them it says that it is not complete."""
    if not read_manifest(folder).complete:
        with pytest.raises(FeatureError, match="not complete; run the same landmark-onnx embed again"):
            open_features(folder)
        return "between"
    open_features(folder).verify()
    (name,) = [name for name, state in states.items() if contents(folder) == state]
    return name


def slay_update(nursery: "subprocess.Popen[bytes]", tmp_path: Path, kills: int) -> set[str]:
    """Kill an update, again and again until it outlives that, then begin with the old features; what was seen."""
    photos = tmp_path / "photos"
    for number in range(20):
        write_image(photos / f"{number:02}.png", fakes.photo(64, 80, seed=number))
    model = str(fakes.make_retrieval(tmp_path / "model.onnx", dim=16))
    command = ["embed", str(photos), "-m", model, "--shard-size", "3", "--threads", "1", "--batch-size", "1", "-o"]
    assert live(nursery, [*command, str(tmp_path / "old")], 60) == 0
    for number in range(0, 30, 4):
        write_image(photos / f"{number:02}.png", fakes.photo(64, 80, seed=100 + number))
    (photos / "01.png").unlink()
    (photos / "02.png").rename(photos / "40.png")
    assert live(nursery, [*command, str(tmp_path / "new")], 60) == 0
    states = {name: contents(tmp_path / name) for name in ("old", "new")}
    folder = tmp_path / "features"
    shutil.copytree(tmp_path / "old", folder)
    begin = time.monotonic()
    assert live(nursery, [*command, str(folder), "--update"], 60) == 0
    seconds = time.monotonic() - begin
    chance, seen, deaths = random.Random(kills), [], 0
    while deaths < kills:
        if contents(folder) == states["new"]:
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "old", folder)
        code = live(nursery, [*command, str(folder), "--update"], seconds * chance.random())
        assert code in (0, -signal.SIGKILL)
        seen.append(seen_by_readers(folder, states))
        assert code or seen[-1] == "new"
        deaths += bool(code)
    assert live(nursery, [*command, str(folder)], 60) == (0 if seen[-1] != "old" else 1)
    assert live(nursery, [*command, str(folder), "--update"], 60) == 0
    assert contents(folder) == states["new"]
    assert {path.name for path in folder.iterdir()} - states["new"].keys() <= {".lock"}
    return set(seen)


def test_an_update_killed_and_started_again(nursery, tmp_path):
    assert "old" in slay_update(nursery, tmp_path, 6)


@pytest.mark.slow
def test_an_update_killed_at_many_moments(nursery, tmp_path):
    assert slay_update(nursery, tmp_path, 40) == {"old", "between", "new"}


def test_killed_and_started_again(nursery, tmp_path):
    slay(nursery, tmp_path, 10)


@pytest.mark.slow
def test_killed_at_many_moments(nursery, tmp_path):
    slay(nursery, tmp_path, 40)
