"""8 bits by `landmark-onnx quantize` beside what others make of the same graph: answers, seconds, speed.

    python benchmarks/scripts/int8_engines.py efficientnet_lite0 -o benchmarks/results/MACHINE/int8-engines

Besides what the tests need: `pip install nncf`. Small models beside the starter are page_turn, line_turn_v2 and modesty
of tests/test_real_weights.py, which shows how they are added. Each engine gets the graph as `quantize` folds it and the
same views of sample photos to calibrate with; other views judge. Speed is that of bare sessions in turns, one image at
a time. What the output has of other models, of the same machine and versions, stays.
"""

import argparse
import importlib.resources
import inspect
import json
import logging
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from end_to_end import PHOTOS, views
from made import PROGRAM, say

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.extras import versions
from landmark_onnx.files.workfolders import temporary_folder
from landmark_onnx.hub.pull import ensure
from landmark_onnx.images.decode import read_image
from landmark_onnx.types import Array, Tensors
from landmark_onnx.verification.answers import Photo, answers, compare, feeds, opened
from landmark_onnx_bench.environment import load_average, machine
from landmark_onnx_bench.report import markdown_table, ran_on, ratio_text, write_both
from landmark_onnx_bench.statistics import Ratio
from landmark_onnx_export.graphs.detector import name_nodes
from landmark_onnx_export.quantization.opset import modernise
from landmark_onnx_export.quantization.qdq import quantise
from landmark_onnx_export.quantization.quantize import folded_graph, fp32_metadata

LAYERS = ("Conv", "Gemm", "MatMul")
CALIBRATING, JUDGING = 12, 32
"""Views of each photo."""

Make = Callable[[onnx.ModelProto, Sequence[Tensors], Path], None]
"""From the folded graph and what calibrates it to a file in 8 bits."""


def main() -> None:
    """Have every engine make its file of every model; then let all of them take turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names in the store, or paths: embeddings and classifiers")
    parser.add_argument("--engines", nargs="*", choices=list(ENGINES), default=list(ENGINES), help="beside our own")
    parser.add_argument("--judges", type=int, default=JUDGING, help="views of each photo that judge")
    parser.add_argument("--rounds", type=int, default=9, help="of the turns")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without suffix: .json and .md are written")
    asked = parser.parse_args()
    rows = kept(asked.output, asked.models)
    with temporary_folder() as folder:
        calibration = write_views(folder / "calibration", CALIBRATING, seed=0)
        judges = write_views(folder / "judges", asked.judges, seed=1)
        for name in asked.models:
            engines = {engine: ENGINES[engine] for engine in asked.engines}
            rows += contest(ensure(name), engines, folder, calibration, judges, asked.rounds)
            write(rows, asked.output)


def facts() -> dict[str, Any]:
    """Of the machine and what runs on it."""
    found = machine()
    return {**found, "versions": found["versions"] | versions("nncf")}


def kept(output: Path, models: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of other models that were made by the same on the same."""
    path = output.with_suffix(".json")
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if any(found.get("machine", {}).get(key) != facts()[key] for key in ("cpu", "usable_cores", "versions")):
        return []
    return [row for row in found["rows"] if row["model"] not in models]


def write_views(folder: Path, each: int, seed: int) -> list[Photo]:
    """Views of every sample photo as PNG files."""
    folder.mkdir()
    random, made = np.random.default_rng(seed), []
    for package, names in PHOTOS.items():
        for name in names:
            source = views(read_image(importlib.resources.files(package).joinpath(name).read_bytes()), random)
            for number, view in zip(range(each), source, strict=False):
                made.append(Photo(folder / f"{Path(name).stem}-{number}.png", ""))
                cv2.imwrite(str(made[-1].path), view)
    return made


def contest(
    model: Path,
    engines: Mapping[str, Make],
    folder: Path,
    calibration: Sequence[Photo],
    judges: Sequence[Photo],
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """A row for each engine. folder: takes the files."""
    card = ModelCard.from_dict(fp32_metadata(model)["card"], str(model))
    place = folder / card.name
    place.mkdir()
    graph = modernise(onnx.load(folded_graph(model, place)))
    name_nodes(graph.graph)
    session = opened(card, model)
    exact = answers(card, judges, session.run)
    fed = [session.file_feeds(tensors) for tensors in feeds(card, calibration)]
    files, rows = {"fp32": place / "fp32.onnx"}, {}
    onnx.save(graph, files["fp32"])
    for engine, make in {"landmark-onnx": quantize(model, calibration[0].path.parent), **engines}.items():
        say(f"{card.name}: {engine}")
        files[engine], start = place / f"{engine.replace(' ', '_')}.onnx", time.perf_counter()
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        make(copy, fed, files[engine])
        seconds = time.perf_counter() - start
        likeness = compare(card, exact, answers(card, judges, opened(card, files[engine]).run))
        left, layers = plain_layers(files[engine])
        rows[engine] = {"model": card.name, "engine": engine, "likeness": likeness.to_json(), "seconds": seconds}
        rows[engine] |= {"layers_in_fp32": left, "layers": layers, "lines": lines_of_code(engine)}
        rows[engine] |= {"command": shlex.join(["python", *sys.argv]), "load": load_average()}
    for runtime, opener in RUNTIMES.items():
        say(f"{card.name}: turns on {runtime}")
        for engine, ratio in turns({name: opener(path) for name, path in files.items()}, fed[0], rounds).items():
            rows[engine][runtime] = ratio
    return iter(rows.values())


def quantize(model: Path, calibration: Path) -> Make:
    """Our own engine, through the command line; below the floor too."""

    def make(graph: onnx.ModelProto, fed: Sequence[Tensors], path: Path) -> None:
        one = min(calibration.iterdir())  # we judge by others: its own judgement is not asked for
        command = [PROGRAM, "quantize", str(model), "--calibrate", str(calibration), "--held-out", str(one)]
        subprocess.run([*command, "--force", "-o", str(path)], check=True, stdout=subprocess.DEVNULL)

    return make


def by_nncf(graph: onnx.ModelProto, fed: Sequence[Tensors], path: Path) -> None:
    """NNCF's `quantize` as it is called without options."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    onnx.save(nncf.quantize(graph, nncf.Dataset(list(fed)), subset_size=len(fed)), path)


def by_accuracy_control(graph: onnx.ModelProto, fed: Sequence[Tensors], path: Path) -> None:
    """NNCF's `quantize_with_accuracy_control`: the cosine with fp32 of what calibrates, 1 at first, may lose 0.01."""
    import nncf
    import onnxruntime

    def answers_of(model: onnx.ModelProto, inputs: Iterable[Tensors]) -> list[Array]:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return [session.run(None, dict(each))[0].reshape(-1) for each in inputs]

    def likeness(model: onnx.ModelProto, judged: Iterable[tuple[Tensors, Array]]) -> tuple[float, None]:
        inputs, exact = zip(*judged, strict=True)
        pairs = zip(answers_of(model, inputs), exact, strict=True)
        return statistics.mean(float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in pairs), None

    nncf.set_log_level(logging.ERROR)
    judged = nncf.Dataset(list(zip(fed, answers_of(graph, fed), strict=True)))
    views = nncf.Dataset(list(fed))
    onnx.save(nncf.quantize_with_accuracy_control(graph, views, judged, likeness, subset_size=len(fed)), path)


def by_onnxruntime(method: str) -> Make:
    """ONNX Runtime's `quantize_static`, weights per channel, with ranges by `method`."""

    def make(graph: onnx.ModelProto, fed: Sequence[Tensors], path: Path) -> None:
        from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped there
            def __init__(self) -> None:
                self.left = iter(fed)

            def get_next(self) -> Tensors | None:
                return next(self.left, None)

        plain = path.with_suffix(".plain.onnx")
        onnx.save(graph, plain)
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(plain, path, Reader(), calibrate_method=CalibrationMethod[method], per_channel=True, **types)

    return make


ENGINES: Mapping[str, Make] = {
    "NNCF": by_nncf,
    "NNCF accuracy control": by_accuracy_control,
    "ONNX Runtime MinMax": by_onnxruntime("MinMax"),
    "ONNX Runtime Percentile": by_onnxruntime("Percentile"),
}


def lines_of_code(engine: str) -> int:
    """Of this project: what an engine is, or what calls it."""
    if engine in ENGINES:
        return len(inspect.getsource(ENGINES[engine]).splitlines())
    parts = Path(inspect.getfile(quantise)).parent.glob("*.py")
    return sum(len(part.read_text("utf-8").splitlines()) for part in parts)


def plain_layers(path: Path) -> tuple[int, int]:
    """Layers that read no 8 bits, and all of them."""
    graph = onnx.load(path, load_external_data=False).graph
    made = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    layers = [node for node in graph.node if node.op_type in LAYERS]
    return sum(not made.issuperset(node.input[:2]) for node in layers), len(layers)


def on_onnxruntime(path: Path) -> Callable[[Tensors], object]:
    """A bare session."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda fed: session.run(None, dict(fed))


def on_openvino(path: Path) -> Callable[[Tensors], object]:
    """A bare compiled model, in fp32 where it is not in 8 bits."""
    import openvino

    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", hints)
    return lambda fed: compiled(dict(fed))


RUNTIMES = {"onnxruntime": on_onnxruntime, "openvino": on_openvino}


def turns(runs: Mapping[str, Callable[[Tensors], object]], fed: Tensors, rounds: int) -> dict[str, dict[str, Any]]:
    """Each one's time by that of fp32, a `Ratio`."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(10):
                run(fed)
            if round_:  # the first warms up
                times[name].append(time.perf_counter() - start)
    exact = times.pop("fp32")
    return {name: Ratio.of(own, exact).to_json() for name, own in times.items()}


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The table, and its numbers."""
    head = ["model", "engine", "views", "cosine", "top-1", "seconds", "layers in fp32"]
    head += [*(f"{name} / fp32" for name in RUNTIMES), "lines of code here"]
    loads = sorted(row["load"] or 0.0 for row in rows)
    lines = [
        "# 8 bits by several engines",
        "",
        *(f"    {command}" for command in dict.fromkeys(row["command"] for row in rows)),
        "",
        f"- {ran_on(facts())}; load of the machine {loads[0]} to {loads[-1]}",
        "- judged on views of sample photos; of probabilities, the rows' cosine",
        "",
        *markdown_table(head, [_row(row) for row in rows]),
        "",
    ]
    write_both(path, {"machine": facts(), "rows": rows}, "\n".join(lines))


def _row(row: Mapping[str, Any]) -> list[str]:
    top1 = row["likeness"].get("top1")
    return [
        row["model"],
        row["engine"],
        str(row["likeness"]["images"]),
        f"{row['likeness']['cosine']:.4f}",
        "" if top1 is None else f"{top1:.3f}",
        f"{row['seconds']:.0f}",
        f"{row['layers_in_fp32']} of {row['layers']}",
        *(ratio_text(row[runtime]) for runtime in RUNTIMES),
        f"{row['lines']:,}",
    ]


if __name__ == "__main__":
    os.environ["NNCF_CI"] = "1"  # NNCF sends nothing, then
    main()
