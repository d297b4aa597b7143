"""The figures that the project has to reach, each measured beside what it is measured against, in one run."""

import dataclasses
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from held import Bench, Figure, Held
from made import PROGRAM, say

from landmark_onnx.cards.catalogue import original_cards
from landmark_onnx.errors import LandmarkError
from landmark_onnx.precision import FLOORS, MEASURES
from landmark_onnx_bench.resolve import own, peer
from landmark_onnx_bench.statistics import Ratio, digits
from landmark_onnx_bench.targets import OWN, Scenario, Workload
from landmark_onnx_bench.worker_process import Child

RETRIEVAL = tuple(name for name, each in original_cards().items() if each.task == "retrieval")
CLS = tuple(name for name, each in original_cards().items() if each.task == "cls")
DET = tuple(name for name, each in original_cards().items() if each.task == "det")

BEST = "paddle-onednn"
"""The peer that most figures are taken to."""

MATCHED = 0.98
"""Share of the boxes at fp32 that a reduced precision has to find again."""

STARTS = 5
PHOTOS = 500


Measured = tuple[list[Figure], list[dict[str, Any]]]
"""Figures, and the rows of the contest that they come from."""


def fp32(bench: Bench, name: str) -> Measured:
    """Latency at fp32 against every peer."""
    model = bench.shop.model(name)
    held = Held(bench, model, ["fp32"], (BEST, "onnxruntime-raw", "openvino"), bench.rules("model"))
    rivals = [label for label in ("onnxruntime-raw", "openvino") if label in held]
    best = min(rivals, key=lambda label: held.cost(label), default="onnxruntime-raw")
    return [
        held.figure("fp32 / Paddle oneDNN", "<= 1.00", "fp32", BEST),
        held.figure("fp32 / best of raw export and OpenVINO", "<= 1.03", "fp32", best),
    ], held.rows


def reduced(bench: Bench, name: str) -> Measured:
    """Latency and likeness at bf16 and int8."""
    model = bench.shop.model(name)
    reason = bench.shop.reduced(name, "int8")
    held = Held(bench, model, ["fp32", "bf16", "int8"], (BEST,), bench.rules("model", agree=True))
    measure = MEASURES[model.card.task]
    found = []
    for precision, speed in (("bf16", "<= 0.50"), ("int8", "<= 0.28")):
        detail = reason if precision == "int8" else ""
        figure = held.figure(f"{precision} / Paddle oneDNN fp32", speed, precision, BEST, detail=detail)
        found += [
            figure,
            held.likeness(
                f"{precision} like fp32, {measure}", f">= {getattr(FLOORS[precision], measure):g}", figure.by
            ),
        ]
    return found, held.rows


def detector(bench: Bench, name: str) -> Measured:
    """From file to boxes, at fp32 and at the best reduced precision."""
    model = bench.shop.model(name)
    reason = bench.shop.reduced(name, "int8")
    held = Held(bench, model, ["fp32", "bf16", "int8"], (BEST,), bench.rules("file", queries=1, agree=True))
    labels = [label for label in held if label.startswith(OWN) and label.split()[-1] in ("bf16", "int8")]
    labels = [label for label in labels if held.alike(label) >= MATCHED] or labels
    precision = min(labels, key=held.cost).split()[-1] if labels else "int8"
    less = held.figure("detector, reduced precision / Paddle oneDNN fp32", "<= 0.50", precision, BEST, detail=reason)
    return [
        held.figure("detector, fp32 / Paddle oneDNN", "<= 0.95", "fp32", BEST),
        less,
        held.likeness("detector, boxes matched at that precision", f">= {MATCHED}", less.by),
    ], held.rows


def load(bench: Bench, name: str) -> Measured:
    """Session creation and the memory it takes at most, in fresh processes, against the raw export."""
    model = bench.shop.model(name)
    (ours,) = own(model, ["cpu"], ["fp32"], threads=bench.threads, batch_size=1)
    raw = peer(model, "onnxruntime-raw", bench.shop.folder, threads=bench.threads, batch_size=1)
    photo = bench.shop.photos(1)
    facts: dict[str, list[Mapping[str, Any]]] = {ours.label: [], raw.label: []}
    for turn in range(STARTS + 1):
        for contestant in (ours, raw):
            say(f"{name}: load {contestant.label}, {turn}")
            with Child(contestant, photo) as child:
                if turn:  # the first one fills the machine's cache, and the system's of files
                    facts[contestant.label].append(child.facts)
    found = []
    for title, wanted, key, unit, size in (
        ("load / raw export", "<= 0.40", "session_seconds", "s", 1.0),
        ("peak memory of the load / raw export", "<= 0.65", "loaded_bytes", "MB", 1e6),
        ("peak memory of the load and one run / raw export", "<= 0.65", "first_run_bytes", "MB", 1e6),
    ):
        values = [[each[key] / size for each in facts[label]] for label in (ours.label, raw.label)]
        less, more = (digits(statistics.median(each)) for each in values)
        ratio, detail = digits(Ratio.of(*values).median), f"{less:g} against {more:g} {unit}"
        found.append(Figure(name=title, model=name, wanted=wanted, measured=ratio, detail=detail))
    return found, [{"contestant": label, "facts": [dict(each) for each in rows]} for label, rows in facts.items()]


def throughput(bench: Bench, name: str) -> Measured:
    """From files to answers over many photos, against the network alone at the same batch size, before and after."""
    model = bench.shop.model(name)
    (ours,) = own(model, ["cpu"], ["fp32"], threads=bench.threads, batch_size=bench.batch_size)
    whole = -(-bench.photos // bench.batch_size)
    some = max(1, whole // 5)
    with Child(ours, bench.shop.photos(bench.photos)) as child:
        windows = []
        for target, queries in (("model", some), ("file", whole), ("model", some)):
            say(f"{name}: {target}, {queries * bench.batch_size} photos")
            work = Workload(scenario=Scenario.OFFLINE, queries=queries)
            windows.append((target, child.window(target, work)))
    alone = statistics.mean(window.rate for target, window in windows if target == "model")
    (through,) = [window.rate for target, window in windows if target == "file"]
    figure = Figure(
        name=f"files to answers / network alone, batch {bench.batch_size}, {bench.photos} photos",
        model=name,
        wanted=">= 0.95",
        measured=digits(through / alone),
        by=ours.label,
        detail=f"{digits(through)} against {digits(alone)} images/s",
    )
    return [figure], [{"target": target, **window.to_json()} for target, window in windows]


def cold(bench: Bench, name: str) -> Measured:
    """`landmark-onnx cls` from the start of the process to its end, less one inference; files in the page cache."""
    model, photo = bench.shop.model(name), bench.shop.photos(1)
    command = [PROGRAM, "cls", "-m", str(model.path), str(photo[0]), "--threads", str(bench.threads), "--quiet"]
    seconds = []
    for turn in range(STARTS + 1):
        say(f"{name}: cold start {turn}")
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=bench.shop.environment(), check=False)
        if done.returncode:
            raise LandmarkError(f"{' '.join(command)}: {done.stderr.strip()}")
        if turn:  # the first one fills the machine's cache
            seconds.append(time.perf_counter() - start)
    (ours,) = own(model, ["cpu"], ["fp32"], threads=bench.threads, batch_size=1)
    with Child(ours, photo) as child:
        inference = child.window("model", Workload(queries=5)).cost
    median = statistics.median(seconds)
    figure = Figure(
        name="cold start of cls in seconds, less one inference",
        model=name,
        wanted="<= 2.00",
        measured=digits(median - inference),
        detail=f"{digits(median)} s in all, inference {digits(inference)} s",
    )
    return [figure], [{"seconds": [digits(value) for value in seconds], "inference": digits(inference)}]


@dataclasses.dataclass(frozen=True, slots=True)
class Measure:
    """What one run of a measurement needs. models: those that it is defined for."""

    run: Callable[[Bench, str], Measured]
    models: Sequence[str]


RUNS: Mapping[str, Measure] = {
    "cold": Measure(cold, CLS),
    "load": Measure(load, (*RETRIEVAL, *CLS, *DET)),
    "fp32": Measure(fp32, (*RETRIEVAL, *CLS)),
    "reduced": Measure(reduced, RETRIEVAL),  # of classifiers class_head.py: a random head's best class means nothing
    "detector": Measure(detector, DET),
    "throughput": Measure(throughput, RETRIEVAL),
}
"""The quick ones first."""
