"""SIGKILL in the middle of the work: whatever is in the store afterwards is whole, and the next run succeeds."""

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
from fractions import Fraction
from pathlib import Path

import pytest

from landmark_onnx.cards.catalogue import card
from landmark_onnx.hub.addresses import MIRROR_VARIABLE, OFFLINE_VARIABLE
from landmark_onnx.hub.remove import prune
from landmark_onnx.modelfile.metadata import check_seal
from landmark_onnx.store.catalogue import exported_path, source_path
from landmark_onnx.store.status import stored_model
from servers import serving, slowly

pytestmark = [
    pytest.mark.paddle,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL"),
]

NAME = "res200_arcmargin"

NURSERY = """
import functools, json, os, pathlib, shutil, sys, time
from landmark_onnx.hub import download
from landmark_onnx.hub import checksums as trust
from landmark_onnx.cli import main
from landmark_onnx_export import convert
from landmark_onnx_export.paddle import variables as fluid
from landmark_onnx_export.graphs import write as weights

fluid.framework_pb2()
run_child = convert.run_child

def remembered(step, values):
    output, kept = values.get("output", values["program"]), pathlib.Path(sys.argv[1], step)
    if kept.exists():
        time.sleep(0.05)
        shutil.copyfile(kept, output)
    else:
        run_child(step, values)
        shutil.copyfile(output, kept)

def slow(work):
    def run(*values):
        time.sleep(0.25)
        return work(*values)
    return run

convert.run_child = remembered
convert.export_model = functools.partial(convert.export_model, check_parity=False)
for module, name in (weights, "publish"), (weights, "append_metadata"), (download, "publish"), (trust, "write_record"):
    setattr(module, name, slow(getattr(module, name)))

def live(environment, limit, *arguments):
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.environ.clear()
    os.environ.update(environment)
    weights.INLINE_LIMIT = int(limit)
    try:
        main(arguments)
    except SystemExit as left:
        os._exit(left.code or 0)
    finally:
        os._exit(99)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        live(*json.loads(line))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Forks a run for each line of its input, so that none waits for imports; what Paddle did once is remembered, and the
moments that matter last longer."""


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """A small release."""
    pytest.importorskip("paddle")
    from landmark_onnx_export.synthetic.release import write_release

    return write_release(card(NAME), tmp_path_factory.mktemp("release"), width=Fraction(1, 32), embedding=32)


class Victim:
    """A command that fills the store, again and again. seen: what its deaths have left there, by kind."""

    def __init__(self, nursery: "subprocess.Popen[bytes]", store: Path, release: Path, *arguments: str, inline: bool):
        self.nursery = nursery
        self.arguments = [str(1 << 30 if inline else 0), *arguments]
        self.store = store
        self.release = release.read_bytes()
        self.groups: list[int] = []
        self.seen: set[str] = set()
        self.complete()  # so that Paddle's part is remembered
        self.empty()

    def complete(self) -> float:
        """Run to the end; the seconds it takes."""
        begin = time.monotonic()
        assert self.run(300) == 0
        return time.monotonic() - begin

    def run(self, moment: float, *, children: bool = True) -> int:
        """Run; if it lives on after so many seconds, kill it, and `children` too, who else work on."""
        assert self.nursery.stdin
        assert self.nursery.stdout
        self.nursery.stdin.write(json.dumps([dict(os.environ), *self.arguments]).encode() + b"\n")
        pid = int(self.nursery.stdout.readline())
        self.groups.append(pid)
        if not select.select([self.nursery.stdout], [], [], moment)[0]:
            (os.killpg if children else os.kill)(pid, signal.SIGKILL)
        return int(self.nursery.stdout.readline())

    def good_files(self) -> dict[str, bytes]:
        """What is in the store under a name of its own."""
        found = {}
        for path in sorted(self.store.rglob("*")):
            relative = path.relative_to(self.store)
            if any(part.endswith(".tmp") for part in relative.parts):
                self.seen.add("temporary")
            elif path.name.endswith((".part", ".part.json")):
                self.seen.add("part")
            elif path.is_file() and relative.parts[0] != "locks":
                self.seen.add(relative.parts[0])
                found[str(relative)] = path.read_bytes()
        return found

    def check(self, whole: dict[str, bytes]) -> None:
        """Nothing is there but what a whole run leaves, byte for byte, and the beginning of a download."""
        for name, data in self.good_files().items():
            assert whole[name] == data, name
        part = source_path(NAME).with_name(f"{NAME}.tar.part")
        if part.exists():
            assert self.release.startswith(part.read_bytes())
        assert stored_model(NAME).state in ("nothing", "source", "exported")

    def bury(self) -> None:
        """End the children that outlived their parents."""
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.groups.clear()

    def empty(self) -> None:
        """Start again."""
        self.bury()
        time.sleep(0.1)
        shutil.rmtree(self.store)


@pytest.fixture(scope="module")
def nursery(release, tmp_path_factory) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", NURSERY, str(tmp_path_factory.mktemp("remembered"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        yield process
        process.kill()


@pytest.fixture
def pulling(store, release, monkeypatch) -> Iterator[list[str]]:
    """The arguments of a pull, from a slow server."""
    monkeypatch.delenv(OFFLINE_VARIABLE)
    monkeypatch.setenv("NO_PROXY", "*")
    with serving(release.read_bytes(), *[slowly(0.5)] * 1000) as server:
        monkeypatch.setenv(MIRROR_VARIABLE, server.url(""))
        yield ["models", "pull", NAME]


def slay(victim: Victim, count: int, *, each_completes: bool) -> None:
    """Kill it at `count` random moments, spread over its life; then let it live."""
    seconds = victim.complete()
    whole = victim.good_files()
    assert check_seal(exported_path(NAME))
    victim.seen.clear()
    victim.empty()
    chance = random.Random(count)
    moments = [seconds * (number + chance.random()) / count for number in range(count)]
    try:
        for number, moment in enumerate(chance.sample(moments, count)):
            victim.run(moment, children=number % 2 == 0)
            victim.check(whole)
            if each_completes or stored_model(NAME).state == "exported":
                victim.complete()
                assert victim.good_files() == whole
                victim.empty()
        victim.complete()
        assert victim.good_files() == whole
    finally:
        victim.bury()
    time.sleep(0.1)
    prune()
    left = {str(path.relative_to(victim.store)) for path in victim.store.rglob("*") if path.is_file()}
    assert left == {*whole, "locks/_store.lock", f"locks/{NAME}.lock"}
    assert not list(victim.store.rglob("*.tmp"))


def exporting(release: Path) -> list[str]:
    return ["export", NAME, "--from", str(release)]


def test_a_pull_that_is_killed(nursery, store, release, pulling):
    slay(Victim(nursery, store, release, *pulling, inline=True), 6, each_completes=False)


def test_an_export_that_is_killed(nursery, store, release):
    victim = Victim(nursery, store, release, *exporting(release), "--no-parity", inline=False)
    slay(victim, 8, each_completes=False)
    assert len(list((store / "models").glob("*.onnx.data"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("inline", [True, False])
def test_a_pull_that_is_killed_at_many_moments(inline, nursery, store, release, pulling):
    victim = Victim(nursery, store, release, *pulling, inline=inline)
    slay(victim, 16, each_completes=True)
    assert victim.seen == {"temporary", "part", "sources", "models"}


@pytest.mark.slow
@pytest.mark.parametrize("inline", [True, False])
def test_an_export_that_is_killed_at_many_moments(inline, nursery, store, release):
    victim = Victim(nursery, store, release, *exporting(release), "--no-parity", inline=inline)
    slay(victim, 16, each_completes=True)
    assert victim.seen == {"temporary", "models"}
