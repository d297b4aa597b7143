"""`landmark-onnx quantize`: files of reduced precision, and how far they agree with fp32."""

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landmark_onnx.cli.model_names import complete_model
from landmark_onnx.cli.options import FollowLinks, Format, Output, Quiet
from landmark_onnx.cli.output import Column, Record, View
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import emit, reporting
from landmark_onnx.extras import extra

if TYPE_CHECKING:
    from landmark_onnx_export.quantization.bf16 import SettingReport
    from landmark_onnx_export.quantization.report import QuantizationRequest, ReductionReport


class Target(enum.StrEnum):
    """What a model is reduced to."""

    INT8 = "int8"
    FP16 = "fp16"
    BF16 = "bf16"


def _rows(record: Record) -> list[Record]:
    return [{**record, **record["agreement"], "MB": record["bytes"] / 1e6 or None}]


VIEW = View(
    (
        Column("model"),
        Column("precision"),
        Column("cosine", ".5f"),
        Column("cosine_min", ".5f"),
        Column("top1", ".2%"),
        Column("top5_error", ".4f"),
        Column("matched", ".2%"),
        Column("images"),
        Column("MB", ".1f"),
        Column("path"),
    ),
    _rows,
)

BF16_NOTE = "bf16 has no file of its own: run the fp32 one with --precision bf16 --provider openvino"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Name of an exported model in the store, or a path to its .onnx file.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Calibrate = Annotated[
    list[str],
    typer.Option(
        "--calibrate",
        metavar="DIR",
        help="Photos like those to come, 40 or more: folders, files, patterns. int8 takes its ranges from "
        "them. More are better: up to 640 count, of a detector 64.",
        show_default=False,
    ),
]
HeldOut = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIR",
        help="Photos to judge by; never calibrated with. By default the quarter of DIR whose files have the smallest "
        "SHA-256.",
        show_default=False,
    ),
]
Reduced = Annotated[Target, typer.Option(help="int8, fp16, or bf16, which is measured alone.")]
Floor = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Refuse to write below this: mean cosine of embeddings, share of equal best classes, or of boxes matched.",
        show_default="int8: 0.99, 0.95, 0.95; fp16: 0.999, 0.99, 0.98",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Write the file even below the floor; it will say so.")]
Excluded = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="NODE", help="A layer that stays fp32; repeat for more.", show_default=False),
]
Spared = Annotated[
    float | None,
    typer.Option(
        "--spare",
        min=0,
        max=1,
        metavar="SHARE",
        help="Of the layers: how many may stay fp32 where 8 bits are too few.",
        show_default="0.12",
    ),
]
Narrow = Annotated[
    bool, typer.Option("--reduce-range", help="Weights of 7 bits: for x86 CPUs without VNNI, where 8 may overflow.")
]
Where = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="PATH", help="The .onnx file, or a folder; by default beside the fp32 one."),
]
Json = Annotated[bool, typer.Option("--json", help="The whole report as a JSON array on standard output.")]


def reduce_precision(
    model: Model,
    calibrate: Calibrate,
    held_out: HeldOut = None,
    follow_links: FollowLinks = False,
    precision: Reduced = Target.INT8,
    floor: Floor = None,
    force: Force = False,
    exclude: Excluded = None,
    spare: Spared = None,
    reduce_range: Narrow = False,
    output: Where = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a file of reduced precision beside an exported one, and measure on photos held out how far it agrees.

    int8 calibrates with photos, keeps in fp32 what answers lose most by, and of a detector all that decides where
    boxes are.
    Below the floor nothing is written (exit code 1). bf16 is a setting, not a file: it is measured with OpenVINO.
    """
    with extra("quantize"):
        import landmark_onnx_export.quantization.quantize  # noqa: F401  # what may be missing is missed here
        from landmark_onnx_export.quantization.report import SPARE, QuantizationRequest

    if precision is not Target.INT8 and (exclude or reduce_range or spare is not None):
        raise typer.BadParameter("--exclude, --spare and --reduce-range are for int8 alone")
    shown = Output(format=Format.JSON if as_json else Format.TABLE, quiet=quiet)
    with reporting(shown, bar=True) as report:
        request = QuantizationRequest(
            precision=precision.value,
            calibrate=_photos(calibrate, report, follow_links=follow_links),
            held_out=_photos(held_out, report, follow_links=follow_links) if held_out else None,
            floor=floor,
            force=force,
            exclude=exclude or (),
            spare=SPARE if spare is None else spare,
            reduce_range=reduce_range,
        )
        emit(_made(model, output, request, report), VIEW, shown, report)


def _photos(arguments: list[str], report: Reporter, *, follow_links: bool) -> list[Path]:
    from landmark_onnx.cli.inputs import expand

    return [Path(path) for path in expand(arguments, report.note, follow_links=follow_links)]


def _made(
    model: str, output: Path | None, request: "QuantizationRequest", report: Reporter
) -> "Iterator[ReductionReport | SettingReport]":
    from landmark_onnx.precision import precision_file
    from landmark_onnx.store.catalogue import find_model
    from landmark_onnx.store.locks import file_locked
    from landmark_onnx_export.quantization.bf16 import measure_setting
    from landmark_onnx_export.quantization.quantize import reduce_model

    source = find_model(model)
    tell: dict[str, Any] = {"on_stage": lambda stage: report.stage(f"{source.stem}: {stage}"), "on_bad": report.failure}
    if request.precision == "bf16":
        report.note(BF16_NOTE)
        yield measure_setting(source, request, **tell)
        return
    target = precision_file(source, request.precision)
    if output:
        target = output / target.name if output.is_dir() else output
    if request.precision == "int8" and not request.reduce_range and _lacks_vnni():
        report.note(
            "this CPU has no VNNI, so 8-bit sums may overflow here: what is measured shows it; see --reduce-range"
        )

    def on_wait() -> None:
        report.stage("waiting for another process")

    # The fp32 file must stay what it is until the end.
    with file_locked(source, on_wait=on_wait), file_locked(target, on_wait=on_wait):
        yield reduce_model(source, target, request, **tell)


def _lacks_vnni() -> bool:
    import platform

    from landmark_onnx.runtime.cpu import cpu_model

    features = cpu_model()[1]
    return platform.machine() in ("x86_64", "AMD64") and bool(features) and not features & {"avx512_vnni", "avx_vnni"}
