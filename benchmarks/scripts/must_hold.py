"""Every figure that the project has to reach, side by side with its rival, in one run that can be taken up again.

    python benchmarks/scripts/must_hold.py -o benchmarks/results/MACHINE
    python benchmarks/scripts/must_hold.py --only fp32 --models inceptionv4_arcmargin -o out/quick
    python benchmarks/scripts/must_hold.py --width 0.0625 --windows 3 --seconds 0.3 --photos 20 -o out/dry   # a dry run

    python benchmarks/scripts/must_hold.py --only -o benchmarks/results/MACHINE   # only writes the table

The first command is the whole table, and goes on where it was stopped. MACHINE is called after the CPU. What was
measured stays in DIR/parts, and is not measured again without --again, unless with other options, on another CPU or
with other versions; what could not be had is. Models (random weights), photos and caches are made once in --work. Run
it on a quiet machine: the load of the others is written down, not taken out.
"""

import argparse
import dataclasses
import itertools
import json
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from figures import PHOTOS, RUNS
from held import Bench, Figure, read_part
from made import Workshop, say

from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.runtime.cpu import available_cores
from landmark_onnx.store.catalogue import HOME_VARIABLE
from landmark_onnx_bench.environment import load_average, machine
from landmark_onnx_bench.report import markdown_table, write_both


def main() -> None:
    """Measure what is left to measure, then write the table of everything measured so far."""
    options = arguments()
    bench = Bench(
        shop=Workshop(folder=options.work.resolve() / f"width{options.width:g}", width=options.width),
        providers=tuple(options.providers),
        threads=options.threads or available_cores(),
        windows=options.windows,
        seconds=options.seconds,
        batch_size=options.batch_size,
        photos=options.photos,
    )
    os.environ[HOME_VARIABLE] = bench.shop.environment()[HOME_VARIABLE]
    for name in options.only:
        measure = RUNS[name]
        for model in measure.models:
            path = options.output / "parts" / f"{name}.{model}.json"
            if (not options.models or model in options.models) and (options.again or not done(path, bench)):
                say(f"== {name} {model}")
                write_json(path, measured(bench, name, model))
                write_table(options.output)
    write_table(options.output)


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", nargs="*", choices=list(RUNS), default=list(RUNS), help="none: write the table alone")
    models = sorted({model for measure in RUNS.values() for model in measure.models})
    parser.add_argument("--models", nargs="+", choices=models, metavar="NAME", help=", ".join(models))
    parser.add_argument("--work", type=Path, default=Path("out/benchmarks"), help="where models and photos are made")
    parser.add_argument("--width", type=float, default=1.0, help="of the networks, 1 as released")
    parser.add_argument("--providers", nargs="+", default=["cpu", "openvino"], help="of which the best counts")
    parser.add_argument("--threads", type=int, default=0, help="0 for all cores")
    parser.add_argument("--windows", type=int, default=7, help="at most, of each contestant")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a window")
    parser.add_argument("--batch-size", type=int, default=4, help="of throughput")
    parser.add_argument("--photos", type=int, default=PHOTOS, help="of throughput")
    parser.add_argument("--again", action="store_true", help="measure also what was measured before")
    return parser.parse_args()


def done(path: Path, bench: Bench) -> bool:
    """Whether a part is there, was measured as it would be now, and has all of its figures."""
    if not path.is_file():
        return False
    figures, part = read_part(path)
    here, there = machine(), part["machine"]
    same = all(part.get(key) == value for key, value in settings(bench).items())
    same &= all(there[key] == here[key] for key in ("cpu", "usable_cores", "python", "versions"))
    return same and all(figure.measured is not None for figure in figures)


def settings(bench: Bench) -> dict[str, Any]:
    """What of the command's options a figure depends on; JSON-ready."""
    return {
        "width": bench.shop.width,
        "providers": list(bench.providers),
        "threads": bench.threads,
        "windows": bench.windows,
        "seconds": bench.seconds,
        "batch_size": bench.batch_size,
        "photos": bench.photos,
    }


def measured(bench: Bench, name: str, model: str) -> dict[str, Any]:
    """One part; what fails is a part too, so that the rest goes on."""
    begun, load = datetime.now(UTC).isoformat(timespec="seconds"), load_average()
    try:
        figures, rows = RUNS[name].run(bench, model)
    except Exception as error:  # hours of other figures are still to come
        say(f"{name} {model}: {traceback.format_exc()}")
        figures, rows = (
            [Figure(name=name, model=model, wanted="<= 0", measured=None, detail=f"{type(error).__name__}: {error}")],
            [],
        )
    return {
        "command": ["python", *sys.argv],
        "begun": begun,
        "load_before": load,
        **settings(bench),
        "machine": machine(),
        # A refusal names files: as they lie in --work, wherever that is.
        "figures": [
            dataclasses.replace(figure, detail=figure.detail.replace(f"{bench.shop.folder}{os.sep}", "")).to_json()
            for figure in figures
        ],
        "rows": rows,
    }


def write_table(folder: Path) -> None:
    """must_hold.json and must_hold.md of all parts in `folder`."""
    parts = [read_part(path) for path in sorted((folder / "parts").glob("*.json"))]
    figures = [(figure, part) for found, part in parts for figure in found]
    figures.sort(key=lambda pair: pair[0].name)
    if not figures:
        return
    text = "\n".join(lines([figure for figure, _ in figures], [part for _, part in parts]))
    write_both(folder / "must_hold", {"figures": [figure.to_json() for figure, _ in figures]}, text)


def lines(figures: Sequence[Figure], parts: Sequence[dict[str, Any]]) -> list[str]:
    """The tables for people, and what made them."""
    rows = [
        (
            figure.name,
            figure.model,
            figure.wanted,
            "not had" if figure.measured is None else f"{figure.measured:g}",
            "yes" if figure.holds else "**no**",
            figure.by,
            figure.detail,
        )
        for figure in figures
    ]
    return [
        "# What must hold",
        "",
        *(f"    {command}" for command in dict.fromkeys(" ".join(part["command"]) for part in parts)),
        "",
        f"- {min(part['begun'] for part in parts)} to {max(part['begun'] for part in parts)}",
        *dict.fromkeys(line for part in parts for line in ran_on(part)),
        f"- {sum(figure.holds for figure in figures)} of {len(figures)} hold",
        "",
        *markdown_table(["figure", "wanted", "measured", "hold"], ranges(figures)),
        "",
        *markdown_table(["figure", "model", "wanted", "measured", "holds", "by", "detail"], rows),
        "",
    ]


def ran_on(part: dict[str, Any]) -> list[str]:
    """What a part was measured on and with; parts of one run say the same."""
    facts = part["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return [
        f"- {facts['cpu']}, {facts['usable_cores']} cores; {', '.join(facts['flags'])}",
        f"- {facts['system']}, Python {facts['python']}, {versions}",
        f"- networks of width {part['width']:g} with random weights, {part['threads']} threads",
    ]


def ranges(figures: Sequence[Figure]) -> list[tuple[str, str, str, str]]:
    """Each figure over all models, from the lowest to the highest, as texts quote it."""
    rows = []
    for (name, wanted), group in itertools.groupby(figures, lambda figure: (figure.name, figure.wanted)):
        members = list(group)
        known = sorted(figure.measured for figure in members if figure.measured is not None)
        span = " to ".join(dict.fromkeys(f"{value:.3g}" for value in (*known[:1], *known[-1:])))
        rows.append((name, wanted, span or "not had", f"{sum(figure.holds for figure in members)} of {len(members)}"))
    return rows


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Whole or not at all: an interrupted run is taken up again from what is there."""
    with atomic_write(path) as file:
        file.write((json.dumps(data, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
