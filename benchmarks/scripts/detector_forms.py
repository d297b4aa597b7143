"""How a detector does in bf16, by which of its parts are, and in int8: boxes found again, time, by OpenVINO at fp32.

    python benchmarks/scripts/detector_forms.py -o benchmarks/results/MACHINE/detector/forms

On two detectors: one with random last layers, whose scores are nearly ties, and one with fitted ones, see
`trained_heads`. The forms take turns, photo by photo, so that other load on the machine falls on all of them.
"""

import argparse
import functools
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from made import PROGRAM, Workshop, say
from trained_heads import fitted

from landmark_onnx.cards.catalogue import card
from landmark_onnx.files.workfolders import temporary_folder
from landmark_onnx.results import Detections
from landmark_onnx.runtime.openvino_bf16 import as_convolutions, behind_roi_align, write_marked
from landmark_onnx.runtime.providers import openvino
from landmark_onnx.types import Array, Tensors
from landmark_onnx.verification.answers import Photo, answer, compare, feeds, runner
from landmark_onnx_bench.environment import load_average, machine
from landmark_onnx_bench.report import markdown_table, ran_on, ratio_text, write_both
from landmark_onnx_bench.statistics import Ratio, digits

NAME = "res50_oid_v4_detector"
CARD = card(NAME)
EXACT = "fp32"
SHIPPED = "bf16 behind RoIAlign, last layers fp32"
INT8 = "int8 behind RoIAlign, last layers fp32, ONNX Runtime"
"""OpenVINO 2026.4 cannot compile that file: it loses the shape of what its RoIAlign reads."""
FORMS = (EXACT, "bf16 everywhere", "bf16 before RoIAlign", "bf16 behind RoIAlign", SHIPPED, INT8)


def main() -> None:
    """Make both detectors, measure each, write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/benchmarks"), help="where models and photos are made")
    parser.add_argument("--width", type=float, default=1.0, help="of the networks, 1 as released")
    parser.add_argument("--photos", type=int, default=6, help="that are judged by")
    parser.add_argument("--calibrating", type=int, default=12, help="photos that int8 is calibrated with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True, help="without suffix: .json and .md are written")
    asked = parser.parse_args()
    plain = Workshop(folder=asked.work.resolve() / f"width{asked.width:g}", width=asked.width)
    found: dict[str, Any] = {
        "command": command(sys.argv),
        "machine": machine(),
        "load_before": load_average(),
        "width": asked.width,
        "detectors": {},
    }
    for title, shop in (("fitted last layers", fitted(plain, NAME)), ("random last layers", plain)):
        path = shop.model(NAME).path
        photos = shop.photos(asked.photos + asked.calibrating)
        reduced = in_eight_bits(path, photos[asked.photos :])
        found["detectors"][title] = measured(path, reduced, photos[: asked.photos], asked.threads)
        write_both(asked.output, found, "\n".join(text(found)) + "\n")


def command(given: Sequence[str]) -> str:
    """The command line less --work, which is a place of its machine and changes no figure."""
    at = given.index("--work") if "--work" in given else len(given)
    return " ".join(["python", *given[:at], *given[at + 2 :]])


def in_eight_bits(path: Path, photos: Sequence[Path]) -> Path:
    """What `landmark-onnx quantize` makes of it, below the floor too: others judge it here."""
    with temporary_folder() as folder:
        for place in ("calibration", "judge"):
            (folder / place).mkdir()
        for photo in photos:
            shutil.copy(photo, folder / ("calibration" if photo != photos[0] else "judge"))
        made = path.with_name(f"{path.stem}.forms.onnx")
        options = ["--calibrate", folder / "calibration", "--held-out", folder / "judge", "--force", "-o", made]
        subprocess.run([PROGRAM, "quantize", path, *options], check=True, stdout=subprocess.DEVNULL)
    return made


def measured(path: Path, reduced: Path, photos: Sequence[Path], threads: int) -> dict[str, Any]:
    """Boxes found again and time of each form, and what fp32 finds. reduced: the file in int8."""
    runs = {form: functools.partial(run, compiled(path, form, threads)) for form in FORMS if form != INT8}
    runs[INT8] = runner(CARD, reduced, threads=threads)
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    answers: dict[str, list[Any]] = {form: [] for form in FORMS}
    background: list[float] = []
    for number, fed in enumerate(feeds(CARD, [Photo(photo, "") for photo in photos])):
        say(f"photo {number + 1} of {len(photos)}")
        for form, ask in runs.items():
            start = time.perf_counter()
            outputs = ask(fed)
            seconds[form].append(time.perf_counter() - start)
            answers[form].append(answer(CARD, fed, outputs))
            if form == EXACT:
                background.append(float(outputs["probability"][:, 0].mean()))
    return {
        "scores": scores(answers[EXACT], background),
        "forms": {
            form: {
                "likeness": compare(CARD, answers[EXACT], answers[form]).to_json(),
                "time": Ratio.of(seconds[form], seconds[EXACT]).to_json(),
                "seconds": digits(statistics.median(seconds[form])),
            }
            for form in FORMS
        },
    }


def compiled(path: Path, form: str, threads: int) -> Any:
    """A request of OpenVINO's that runs the file in that form."""
    package = openvino()
    core = package.Core()
    model = core.read_model(str(path))
    head = behind_roi_align(model)
    names = {node.get_friendly_name() for node in model.get_ordered_ops()}
    exact: Mapping[str, Any] = {"bf16 before RoIAlign": head, "bf16 behind RoIAlign": names - head}
    if form == SHIPPED:
        exact = {form: names - head | as_convolutions(model, head)}
    file = path.with_name(f"{form.replace(' ', '-').replace(',', '')}.xml")
    write_marked(package, model, exact.get(form, ()), file)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32" if form == EXACT else "bf16",
        "INFERENCE_NUM_THREADS": str(threads),
    }
    return core.compile_model(str(file), "CPU", settings).create_infer_request()


def run(request: Any, fed: Tensors) -> dict[str, Array]:
    """The card's outputs; they stay as they are after the next run."""
    results = request.infer({name: fed[name] for name in ("image", "im_info")})
    return {name: results[name].copy() for name in ("rois", "probability", "deltas")}


def scores(answers: Sequence[Detections], background: Sequence[float]) -> dict[str, Any]:
    """How far apart the scores of the boxes of a photo are, mean over the photos, and the background's probability."""
    ordered = [np.sort(each.scores)[::-1] for each in answers]
    return {
        "boxes": [len(each) for each in ordered],
        "quartiles": np.round(np.quantile(np.concatenate(ordered), [0, 0.25, 0.5, 0.75, 1]), 3).tolist(),
        "background": digits(statistics.mean(background)),
    }


def text(found: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    lines = [
        "# A detector in bf16 by part, and in int8",
        "",
        f"    {found['command']}",
        "",
        f"- {ran_on(found['machine'])}",
        f"- network of width {found['width']:g}; load average before {found['load_before']}",
        "- matched: share of the boxes of OpenVINO at fp32 that are found again, same class and IoU of 0.5 and more; "
        "extra: others, as a share of them; time: by that of fp32, median and range over the photos",
    ]
    for title, each in found["detectors"].items():
        spread = each["scores"]
        lines += [
            "",
            f"## {title.capitalize()}",
            "",
            f"Boxes of a photo: {min(spread['boxes'])} to {max(spread['boxes'])}; least score, quartiles and best: "
            f"{', '.join(f'{value:g}' for value in spread['quartiles'])}; background's probability of a proposal, "
            f"mean: {spread['background']:g}",
            "",
        ]
        rows = [
            [
                form,
                f"{row['likeness']['matched']:.4f}",
                f"{row['likeness']['extra']:.4f}",
                str(row["likeness"]["boxes"]),
                ratio_text(row["time"]),
                f"{row['seconds']:g}",
            ]
            for form, row in each["forms"].items()
        ]
        lines += markdown_table(["form", "matched", "extra", "boxes", "time", "seconds"], rows)
    return lines


if __name__ == "__main__":
    main()
