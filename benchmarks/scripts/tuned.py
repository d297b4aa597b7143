"""Whether what `landmark-onnx tune` chooses is slower than the default: a contest of the two when it has ended.

python benchmarks/scripts/tuned.py efficientnet_lite0 res152_arcmargin -o benchmarks/results/MACHINE/tune/two_cores
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from made import PROGRAM, say

from landmark_onnx.files.workfolders import temporary_folder
from landmark_onnx.hub.pull import ensure
from landmark_onnx.runtime.tuned import TunedChoice, read_choice
from landmark_onnx_bench.environment import machine
from landmark_onnx_bench.interleaved import Contest, ContestRules
from landmark_onnx_bench.report import markdown_table, ran_on, ratio_text, write_both
from landmark_onnx_bench.resolve import entry, own
from landmark_onnx_bench.sample_photos import write_photos
from landmark_onnx_bench.targets import Workload
from landmark_onnx_bench.tuned_forms import default_form

PHOTOS, SIZE = 8, (480, 640)


def main() -> None:
    """Tune each model, then measure what was chosen beside the default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names in the store, or paths")
    parser.add_argument("--seconds", type=float, default=180.0, help="as of tune")
    parser.add_argument("--rounds", type=int, default=7, help="of the contest after it")
    parser.add_argument("--note", default="", help="what else was so, such as the load that others made")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without suffix: .json and .md are written")
    asked = parser.parse_args()
    found: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "note": asked.note,
        "models": [],
    }
    for name in asked.models:
        found["models"].append(show(name, asked.seconds, asked.rounds))
        write_both(asked.output, found, "\n".join(text(found)) + "\n")


def show(name: str, seconds: float, rounds: int) -> dict[str, Any]:
    """What tune tried and chose, and the ratios of the choice afterwards: {} where it is the default."""
    say(f"{name}: tune")
    command = [PROGRAM, "tune", name, "--seconds", str(seconds), "--format", "json"]
    tried = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    choice = read_choice(ensure(name))
    say(f"{name}: {choice.words()}")
    after = {} if choice.ratio == 1 else ratios(name, choice, rounds)
    return {"model": Path(name).stem, "choice": dataclasses.asdict(choice), "after": after, "tried": tried}


def ratios(name: str, choice: TunedChoice, rounds: int) -> dict[str, Any]:
    """Target -> the choice's cost by the default's, in a contest of its own."""
    model = entry(ensure(name))
    (form,) = own(model, [choice.provider], [choice.precision], threads=choice.threads, batch_size=choice.batch_size)
    rules = ContestRules(work=Workload(seconds=1.0), max_windows=rounds, agree=False)
    contest = Contest(model, [default_form(model), form], rules, on_stage=lambda stage: None)
    with temporary_folder() as folder:
        standings = contest.hold(write_photos(folder, PHOTOS, *SIZE))
    return {each.target: each.ratio.to_json() for each in standings if each.ratio}


def text(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [
        "# What tune chooses, beside the default",
        "",
        f"{ran_on(found['machine'])}; `{found['command']}`",
        "",
        "Ratios are times for an image by the default's, median and range of rounds; below 1 is faster. `after` is a",
        "contest of the choice with the default when tune had ended.",
        *(["", found["note"]] if found["note"] else []),
    ]
    for each in found["models"]:
        after = ", ".join(f"{target} {ratio_text(ratio)}" for target, ratio in each["after"].items())
        rows = [_row(row) for row in each["tried"]]
        head = ["provider", "precision", "threads", "batch", "ms", "ratio", "like fp32", "verdict"]
        lines += ["", f"## {each['model']}", "", f"after: {after or 'the default was chosen'}", ""]
        lines += markdown_table(head, rows)
    return lines


def _row(row: dict[str, Any]) -> list[str]:
    likeness = row["likeness"]
    return [
        row["provider"],
        row["precision"],
        str(row["threads"] or "default"),
        str(row["batch_size"]),
        f"{row['ms']:.4g}" if row["ms"] else "",
        ratio_text(row["ratio"]),
        f"{likeness['value']:.5f}" if likeness else "",
        f"{row['verdict']}: {row['reason']}" if row["reason"] else row["verdict"],
    ]


if __name__ == "__main__":
    main()
