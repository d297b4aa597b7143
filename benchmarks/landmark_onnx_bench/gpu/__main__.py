"""`python -m landmark_onnx_bench.gpu`: every measurement of a GPU, in one command that can be taken up again.

    python -m landmark_onnx_bench.gpu                        # all models in the store, into out/gpu/CARD
    python -m landmark_onnx_bench.gpu --models res152_arcmargin models/*.onnx --only parity first
    python -m landmark_onnx_bench.gpu --provider cpu         # a rehearsal: the same on the CPU

gpu.json and gpu.md are rewritten after each step. A step that was done, of the same model, card and versions, is not
run again; one that failed is.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from landmark_onnx.errors import LandmarkError
from landmark_onnx.runtime.cpu import available_cores
from landmark_onnx_bench.gpu.forms import STEPS
from landmark_onnx_bench.gpu.run import GpuRequest, measure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is left to measure -> the exit code: 1 if a step failed, or nothing could be measured at all."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # nvidia-smi counts so, and CUDA would not
    try:
        return measure(requested(arguments), say)
    except LandmarkError as error:
        say(f"landmark_onnx_bench.gpu: error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130


def requested(arguments: Sequence[str] | None) -> GpuRequest:
    """What the command line asks for."""
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m landmark_onnx_bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: out/gpu/ and the card's name")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="names or files; default: all of the store")
    parser.add_argument("--made-up", nargs="+", metavar="NAME", help="make these with random weights (extra export)")
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal without a GPU")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS), metavar="STEP")
    parser.add_argument("--batch-sizes", nargs="+", type=positive, default=[2, 4, 16, 32, 64], metavar="N")
    parser.add_argument("--windows", type=positive, default=7, help="at most, of each contestant")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a window")
    parser.add_argument("--threads", type=positive, default=available_cores(), help="of the CPU's contestants")
    found = parser.parse_args(arguments)
    return GpuRequest(
        output=found.output,
        models=tuple(found.models or ()),
        made_up=tuple(found.made_up or ()),
        rehearsal=found.provider == "cpu",
        only=tuple(found.only),
        batch_sizes=tuple(sorted(set(found.batch_sizes))),
        windows=found.windows,
        seconds=found.seconds,
        threads=found.threads,
    )


def positive(text: str) -> int:
    """A whole number above 0. Raises: ValueError."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
