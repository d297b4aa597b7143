"""Paddle Inference and ONNX Runtime side by side: the same full-width network, input, threads and machine, in turns.

    python benchmarks/against_paddle.py res152_arcmargin --rounds 7 --threads 2

Prints one JSON object: medians in seconds and the ratio of the two, which alone is a claim. Weights are random.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from landmark_onnx.cards import ModelCard, card, cards
from landmark_onnx.preprocess import preprocess
from landmark_onnx.providers import ProviderRequest
from landmark_onnx.session import Session
from landmark_onnx.types import INPUTS, Tensors
from landmark_onnx_export.convert import export_model
from landmark_onnx_export.fluid import parse_program
from landmark_onnx_export.networks import build, write_binary_model
from landmark_onnx_export.paddle_runtime import paddle_module
from landmark_onnx_export.parity import seeded_image
from landmark_onnx_export.programs import tensors
from landmark_onnx_export.sources import open_source
from landmark_onnx_export.synthetic import write_release


def paddle_runner(
    facts: ModelCard, release: Path, folder: Path, threads: int, *, onednn: bool
) -> Callable[[Tensors], None]:
    """One run of the released program with Paddle Inference."""
    with open_source(release) as source:
        program = source.program or build(facts.source.network, facts.task, source.variables)
        files = write_binary_model(program, source.variables, folder)
    names = tensors(parse_program(program), facts.task)
    inference = paddle_module().inference
    config = inference.Config(*map(str, files))
    config.disable_gpu()
    config.disable_glog_info()
    config.enable_memory_optim()
    config.set_cpu_math_library_num_threads(threads)
    if not onednn:
        config.disable_mkldnn()
    predictor = inference.create_predictor(config)

    def run(feeds: Tensors) -> None:
        for ours, theirs in zip(INPUTS[facts.task], names.inputs, strict=True):
            predictor.get_input_handle(theirs).copy_from_cpu(feeds[ours])
        predictor.run()
        for name in names.outputs:
            predictor.get_output_handle(name).copy_to_cpu()

    return run


def measure(runners: dict[str, Callable[[Tensors], object]], feeds: Tensors, rounds: int) -> dict[str, float]:
    """Median seconds of each runner; they take turns, so that whatever the machine does meets them all."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(rounds + 1):
        for name, run in runners.items():
            start = time.perf_counter()
            run(feeds)
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", choices=list(cards()))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=float, default=1.0, help="of the network, 1 as released")
    options = parser.parse_args()
    for name in options.models:
        facts = card(name)
        feeds = {
            key: np.ascontiguousarray(value)
            for key, value in preprocess(facts.preprocess, seeded_image(480, 640, 1)).items()
        }
        with tempfile.TemporaryDirectory() as work:
            release = write_release(facts, Path(work), width=options.width)
            report = export_model(facts, release, Path(work, "model.onnx"), check_parity=False)
            session = Session(report.path, ProviderRequest(name="cpu"), threads=options.threads)
            runners: dict[str, Callable[[Tensors], object]] = {
                "paddle": paddle_runner(facts, release, Path(work), options.threads, onednn=False),
                "paddle_onednn": paddle_runner(facts, release, Path(work), options.threads, onednn=True),
                "onnxruntime": lambda feeds, session=session, facts=facts: session.run(facts, feeds),
            }
            medians = measure(runners, feeds, options.rounds)
        ratios = {f"{peer}_over_onnxruntime": round(medians[peer] / medians["onnxruntime"], 2) for peer in runners}
        del ratios["onnxruntime_over_onnxruntime"]
        shape = list(feeds["image"].shape)
        print(json.dumps({"model": name, "input": shape, "threads": options.threads, "seconds": medians} | ratios))


if __name__ == "__main__":
    main()
