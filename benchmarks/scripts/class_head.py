"""A classifier's last layer in 8 bits beside fp32, at as many classes as a released one has: answers, time, memory.

    python benchmarks/scripts/class_head.py -o benchmarks/results/MACHINE/class-head

The classifier is made of the centroids of its classes (centroids.py), quantised by `landmark-onnx quantize`, and
measured by `landmark-onnx bench`, a report for each provider. Views that it did not calibrate with are answered by
both on each provider; what has to hold is in must_hold.md. What is made stays in --work, and is not made again.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from centroids import Classes, network_card, write_classifier
from held import Figure
from made import PROGRAM, say

from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.precision import FLOORS, precision_file
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.store.catalogue import HOME_VARIABLE
from landmark_onnx.verification.answers import Likeness, Photo, measure, runner
from landmark_onnx_bench.environment import load_average, machine
from landmark_onnx_bench.report import markdown_table, ran_on, read_report, write_both
from landmark_onnx_bench.statistics import digits

CALIBRATION = 160


def main() -> None:
    """Make what is missing, compare the answers, then let both take turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, default=Path("out/class-head"), help="where models and views are made")
    parser.add_argument("--classes", type=int, default=203_094)
    parser.add_argument("--views", type=int, default=500, help="that answers are compared over")
    parser.add_argument("--providers", nargs="+", default=["cpu", "openvino"])
    parser.add_argument("--windows", type=int, default=6, help="at most, of each contestant")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a window")
    options = parser.parse_args()
    os.environ[HOME_VARIABLE] = str((options.work / "store").resolve())
    model, views = made(Classes(options.classes), options.work, options.views)
    options.output.mkdir(parents=True, exist_ok=True)
    figures = [figure for provider in options.providers for figure in measured(model, views, provider, options)]
    write(figures, model, options.output / "must_hold")


def made(classes: Classes, work: Path, count: int) -> tuple[Path, Path]:
    """The classifier, with its int8 file beside it, and a folder of `count` views to ask both."""
    model = work / f"centroids{classes.count}.onnx"
    if not model.is_file():
        say(f"{model}: made")
        write_classifier(classes, model)
    calibration, views = work / f"views{classes.count}", work / f"others{classes.count}-{count}"
    for folder, number, seed in ((calibration, CALIBRATION, 0), (views, count, 1)):
        if not folder.is_dir():
            classes.write_views(folder, number, seed)
    if not precision_file(model, "int8").is_file():
        say(f"{model}: int8")
        subprocess.run([PROGRAM, "quantize", str(model), "--calibrate", str(calibration)], check=True)
    return model, views


def measured(model: Path, views: Path, provider: str, options: argparse.Namespace) -> list[Figure]:
    """What int8 is beside fp32 on a provider."""
    like = alike(model, views, provider)
    rows = contest(model, views, provider, options)
    one, four = ({row["precision"]: row for row in rows if row["batch_size"] == size} for size in (1, 4))
    times = f"{one['int8']['p50_ms']:g} against {one['fp32']['p50_ms']:g} ms"
    # The first load, that of batch 1, fills the machine's cache.
    less, more = (digits(four[precision]["peak_bytes"] / 1e6) for precision in ("int8", "fp32"))
    asked, worst = f"{like.images} views", FLOORS["int8"].top5_error
    figures = (
        ("int8 like fp32, top1", ">= 0.98", like.top1, asked),
        ("int8 like fp32, top5_error", f"<= {worst:g}", like.top5_error, asked),
        ("int8 / fp32, batch 1", "<= 0.35", one["int8"]["ratio"]["median"], times),
        ("peak memory, int8 / fp32, batch 4", "<= 0.30", less / more, f"{less:g} against {more:g} MB"),
    )
    return [
        Figure(name=name, model=provider, wanted=wanted, measured=digits(value or 0.0), detail=detail)
        for name, wanted, value, detail in figures
    ]


def alike(model: Path, views: Path, provider: str) -> Likeness:
    """How far int8 on a provider answers like fp32 on ONNX Runtime's CPU."""
    card, photos = network_card(), [Photo(path, "") for path in sorted(views.iterdir())]
    say(f"{provider}: {len(photos)} views")
    return measure(
        card, photos, runner(card, model), runner(card, precision_file(model, "int8"), ProviderRequest(name=provider))
    )


def megabytes(model: Path) -> float:
    """Of a model, the weights beside it included."""
    return round(sum(path.stat().st_size for path in (model, external_data(model)) if path) / 1e6, 1)


def contest(model: Path, views: Path, provider: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """fp32 and int8 in turns: their rows. The report goes to PROVIDER.json and PROVIDER.md."""
    place = options.work / f"bench-{provider}"
    command = [PROGRAM, "bench", "-m", str(model), "--images", str(views), "--provider", provider, "--target", "model"]
    for key, values in (("--precision", ("fp32", "int8")), ("--batch-size", ("1", "4", "16"))):
        command += [word for value in values for word in (key, value)]
    command += ["--duration", str(options.seconds), "--windows", str(options.windows), "-o", str(place), "-q"]
    say(f"{provider}: bench")
    subprocess.run(command, check=True)
    for suffix in (".json", ".md"):
        shutil.copyfile(place / f"bench{suffix}", options.output / f"{provider}{suffix}")
    return list(read_report(place / "bench.json")["rows"])


def write(figures: Sequence[Figure], model: Path, path: Path) -> None:
    """The table of what holds, and its numbers."""
    facts, command = machine(), " ".join(["python", *sys.argv])
    rows = [
        (each.name, each.model, each.wanted, f"{each.measured:g}", "yes" if each.holds else "**no**", each.detail)
        for each in figures
    ]
    lines = [
        "# A classifier with many classes in 8 bits",
        "",
        f"    {command}",
        "",
        f"- {ran_on(facts)}; load of the machine {load_average()}",
        f"- files: {megabytes(precision_file(model, 'int8')):g} MB in place of {megabytes(model):g}",
        "",
        *markdown_table(["figure", "provider", "wanted", "measured", "holds", "detail"], rows),
        "",
    ]
    written = {"command": command, "machine": facts, "figures": [figure.to_json() for figure in figures]}
    write_both(path, written, "\n".join(lines))


if __name__ == "__main__":
    main()
