"""The child process of one contestant: it loads it, keeps it loaded, and does one thing at a time when told to.

`python -m landmark_onnx_bench.worker` reads JSON orders, a line each, from standard input and writes a JSON line in
answer to each; its first order is the contestant. It leaves when its input ends.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from landmark_onnx.errors import LandmarkError
from landmark_onnx.images.decode import read_image
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx_bench.backends import ENGINES, Backend
from landmark_onnx_bench.batches import batches
from landmark_onnx_bench.environment import peak_bytes
from landmark_onnx_bench.loadgen import check_scenario, generate, harness, installed
from landmark_onnx_bench.single_stream import Responder, single_stream
from landmark_onnx_bench.targets import Contestant, Target, Workload

WARM_SECONDS = 0.2
MAX_FEEDS = 32
"""Photos that are kept prepared: of 500 at once the tensors alone would take gigabytes."""


class Worker:
    """A loaded contestant and the samples it is asked about."""

    def __init__(self, contestant: Contestant, paths: Sequence[str]) -> None:
        """paths: of photos that can be read."""
        start = time.perf_counter()
        self.engine: Backend = ENGINES[contestant.runtime](contestant)
        self.session_seconds = time.perf_counter() - start
        self.loaded_bytes = peak_bytes()
        self._paths = list(paths)
        rule, as_uint8 = self.engine.card.preprocess, self.engine.as_uint8
        self._feeds = [preprocess(rule, read_image(path), as_uint8=as_uint8) for path in paths[:MAX_FEEDS]]
        self._batches = batches(self._feeds, self.engine.batch_size)
        start = time.perf_counter()
        self.engine.run(self._batches[0])
        self.first_seconds = time.perf_counter() - start
        self.first_bytes = peak_bytes()
        self._rates: dict[Target, float] = {}

    def facts(self) -> dict[str, Any]:
        """What loading showed; JSON-ready."""
        return {
            "providers": list(self.engine.providers),
            "batch_size": self.engine.batch_size,
            "input": list(self._batches[0]["image"].shape),
            "harness": harness(),
            "note": self.engine.note,
            "session_seconds": self.session_seconds,
            "first_run_seconds": self.first_seconds,
            "loaded_bytes": self.loaded_bytes,
            "first_run_bytes": self.first_bytes,
        }

    def window(self, target: Target, work: Mapping[str, Any]) -> dict[str, Any]:
        """One window of work."""
        workload = Workload.from_json(work)
        check_scenario(workload.scenario)
        rate = self.rate(target)["rate"]
        asked = (workload, self._answer(target), self.engine.batch_size, self._samples(target))
        window = generate(*asked, rate) if installed() else single_stream(*asked)
        return {
            "images": window.images,
            "seconds": window.seconds,
            "latencies": window.latencies,
            "peak_bytes": peak_bytes(),
        }

    def rate(self, target: Target) -> dict[str, float]:
        """Images per second of a warm-up, which each target has once."""
        if target not in self._rates:
            self._rates[target] = self._warm_up(self._answer(target), self._samples(target))
        return {"rate": self._rates[target]}

    def outputs(self, limit: int, output: str) -> dict[str, Any]:
        """Write what the network answers to the first `limit` photos, one by one, to the .npz file `output`."""
        arrays = {}
        for number, feeds in enumerate(self._feeds[:limit]):
            for name, values in {**feeds, **self.engine.run(feeds)}.items():
                if name != "image":
                    arrays[f"{number}/{name}"] = values
        np.savez(output, allow_pickle=False, **arrays)
        return {"photos": min(limit, len(self._feeds))}

    def _samples(self, target: Target) -> int:
        return len(self._batches) * self.engine.batch_size if target == "model" else len(self._paths)

    def _answer(self, target: Target) -> Responder:
        size = self.engine.batch_size

        def tensors(samples: Sequence[int]) -> Iterator[int]:
            for at in range(0, len(samples), size):
                chunk = samples[at : at + size]
                feeds = self._batches[chunk[0] // size]
                if len(chunk) < size:
                    feeds = {name: values[: len(chunk)] for name, values in feeds.items()}
                self.engine.run(feeds)
                yield len(chunk)

        def files(samples: Sequence[int]) -> Iterator[int]:
            for _ in self.engine.answers([self._paths[sample] for sample in samples]):
                yield 1

        return tensors if target == "model" else files

    def _warm_up(self, answer: Responder, samples: int) -> float:
        """Images per second of the last of some batches; the first run of a shape is slower than the others."""
        begun = time.perf_counter()
        size = self.engine.batch_size
        while True:
            start = time.perf_counter()
            answered = sum(answer([number % samples for number in range(size)]))
            now = time.perf_counter()
            if now - begun >= WARM_SECONDS:
                return answered / (now - start)


def obey(orders: Iterator[str], reply: Callable[[dict[str, Any]], None]) -> None:
    """Carry out each order and reply to it; a foreseeable failure is a reply with a key "error"."""
    worker: Worker | None = None
    for line in orders:
        order = json.loads(line)
        try:
            if worker is None:
                worker = Worker(Contestant.from_json(order["contestant"]), order["paths"])
                reply(worker.facts())
            elif order["do"] == "rate":
                reply(worker.rate(order["target"]))
            elif order["do"] == "window":
                reply(worker.window(order["target"], order["work"]))
            else:
                reply(worker.outputs(order["limit"], order["output"]))
        except (LandmarkError, OSError) as error:
            reply({"error": str(error)})
        except Exception as error:  # a peer's: none of them has a public base class
            reply({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"})


def main() -> None:
    """The child's side."""
    # What libraries print must not come between the replies.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def reply(answer: dict[str, Any]) -> None:
            replies.write(json.dumps(answer) + "\n")
            replies.flush()

        obey(iter(sys.stdin.readline, ""), reply)


if __name__ == "__main__":
    main()
