"""An exported fp32 file -> a file of reduced precision beside it, which says how far it agrees with fp32."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError
from landmark_onnx.extras import versions
from landmark_onnx.files.workfolders import folder_beside
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.modelfile.external_data import check_external_data
from landmark_onnx.modelfile.metadata import check_seal, read_metadata, read_seal
from landmark_onnx.precision import FLOORS, Precision, precision_of
from landmark_onnx.tasks import Task as TaskName
from landmark_onnx.verification.answers import Likeness, Photo, bound_of, floor_of, measure, runner
from landmark_onnx.verification.verify import Probe, probe_rule
from landmark_onnx_export.graphs.detector import name_nodes, rois_of
from landmark_onnx_export.graphs.fold import standard_imports
from landmark_onnx_export.graphs.saving import save_model
from landmark_onnx_export.graphs.write import Written, publish_model
from landmark_onnx_export.parity import PROBE_SIZE, SEED, seeded_image
from landmark_onnx_export.quantization.fp16 import halve
from landmark_onnx_export.quantization.mixed_precision import Task, search
from landmark_onnx_export.quantization.opset import modernise, with_constants
from landmark_onnx_export.quantization.reduced_network import ReducedNetwork
from landmark_onnx_export.quantization.report import QuantizationReport, QuantizationRequest, ReductionReport
from landmark_onnx_export.quantization.split import RULE, Split, judges, split
from landmark_onnx_export.workers.run import run_child
from landmark_onnx_export.workers.tasks import THREADS

MOST: Mapping[TaskName, tuple[int, int]] = {"retrieval": (480, 160), "cls": (480, 160), "det": (48, 16)}
"""Images at most, to calibrate with and to judge by: a detector takes seconds each, its head 1,000 rois."""

TOOLS = ("landmark-onnx", "onnx", "onnxruntime")
OWN = frozenset({"parity", "probe", "data", "tools"})
"""Metadata of the fp32 file that a reduced one does not take over: it has its own, or none."""

ANYWAY = "write it all the same with --force"
REMEDIES: Mapping[Precision, str] = {
    "int8": "give more photos, let more layers stay fp32 with --spare or name them with --exclude, or " + ANYWAY,
    "fp16": ANYWAY,
}


def reduce_model(
    source: Path,
    output: Path,
    wish: QuantizationRequest,
    *,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_bad: Callable[[str], None] = lambda why: None,
) -> ReductionReport:
    """Make `output` from the exported fp32 file `source`; below the floor nothing is written, unless forced.

    on_stage: the name of each stage as it begins. on_bad: why an image cannot be read.
    Raises: ModelFileError if `source` is no sound fp32 export, ImageError if there are too few images, ExportError.
    """
    start = time.perf_counter()
    metadata = fp32_metadata(source)
    card = ModelCard.from_dict(metadata["card"], f"{source}: card")
    exact = runner(card, source)
    on_stage("images")
    photos = _photos(card, wish, on_bad)
    floor, bound = limits = _limits(card, wish)
    with folder_beside(output) as folder:
        on_stage("fold")
        made = _make(card, folded_graph(source, folder), wish, photos.calibration, floor, on_stage)
        written = save_model(made.model, folder / output.name)
        on_stage("compare with fp32")
        agreement = measure(card, photos.held_out, exact, runner(card, written.model))
        shortfall = agreement.shortfall(card, floor, bound)
        refused = None if wish.force else _refusal(card, wish.precision, shortfall)
        recipe = _recipe(source, wish, photos, made, limits, forced=wish.force and shortfall is not None)
        kept = {key: value for key, value in metadata.items() if key not in OWN}
        size = 0 if refused else publish_model(written, output, kept | _metadata(card, written, agreement, recipe))
    return ReductionReport(
        card=card,
        recipe=recipe,
        agreement=agreement,
        path=None if refused else output,
        refused=refused,
        bytes=size,
        seconds=time.perf_counter() - start,
    )


def _limits(card: ModelCard, wish: QuantizationRequest) -> tuple[float, float | None]:
    """The floor, which the user may set, and the bound of a classifier's probabilities."""
    limits = FLOORS[wish.precision]
    return floor_of(card, limits) if wish.floor is None else wish.floor, bound_of(card, limits)


def _refusal(card: ModelCard, precision: Precision, shortfall: str | None) -> str | None:
    return f"{card.name}: not written: at {precision} {shortfall}; {REMEDIES[precision]}" if shortfall else None


def fp32_metadata(source: Path) -> dict[str, Any]:
    """Its metadata. Raises: ModelFileError if it is not whole, or not what a reduced file can be made from."""
    check_seal(source)
    metadata = read_metadata(source) or {}
    check_external_data(source, metadata.get("data"))
    if "card" not in metadata:
        raise ModelFileError(f"{source}: no model card inside: not exported by landmark-onnx")
    if (precision := precision_of(metadata, source)) != "fp32":
        raise ModelFileError(f"{source}: is {precision} already; give the fp32 file it was made from")
    return metadata


def _photos(card: ModelCard, wish: QuantizationRequest, on_bad: Callable[[str], None]) -> Split:
    most = MOST[card.task]
    if wish.precision == "int8":
        return split(wish.calibrate, wish.held_out, most, on_bad=on_bad)
    return Split((), judges(wish.held_out or wish.calibrate, most[1], on_bad=on_bad))


def folded_graph(source: Path, folder: Path) -> Path:
    """The graph as ONNX Runtime folds it, without metadata, each node with a name; a file in `folder`."""
    folded = folder / "folded.onnx"
    plain = with_constants(source, folder)
    run_child("optimise", {"model": str(plain.absolute()), "output": str(folded), "data": "folded.data"})
    graph = onnx.load(folded, load_external_data=False)
    name_nodes(graph.graph)
    del graph.metadata_props[:]
    standard_imports(graph)
    onnx.save(graph, folded)
    return folded


def _make(
    card: ModelCard,
    folded: Path,
    wish: QuantizationRequest,
    photos: Sequence[Photo],
    floor: float,
    on_stage: Callable[[str], None],
) -> ReducedNetwork:
    if wish.precision == "fp16":
        on_stage("halve")
        return halve(folded, rois_of(card))
    graph = modernise(onnx.load(folded, load_external_data=False))
    name_nodes(graph.graph)
    onnx.save(graph, folded)
    return search(
        Task(
            card=card,
            model=folded,
            photos=photos,
            floor=floor,
            exclude=wish.exclude,
            spare=wish.spare,
            reduce_range=wish.reduce_range,
            on_stage=on_stage,
        )
    )


def _recipe(
    source: Path,
    wish: QuantizationRequest,
    photos: Split,
    made: ReducedNetwork,
    limits: tuple[float, float | None],
    *,
    forced: bool,
) -> QuantizationReport:
    seal = read_seal(source)
    assert seal is not None
    return QuantizationReport(
        of=seal.sha256,
        precision=wish.precision,
        method=made.method,
        excluded=made.excluded,
        layers=made.layers,
        reduce_range=wish.reduce_range,
        calibration_images=len(photos.calibration),
        held_out=RULE if photos.calibration and wish.held_out is None else "a folder of its own",
        floor=limits[0],
        bound=limits[1],
        forced=forced,
    )


def _metadata(card: ModelCard, written: Written, agreement: Likeness, recipe: QuantizationReport) -> dict[str, Any]:
    """What the file says of itself, and what it answers to a picture."""
    picture = seeded_image(*PROBE_SIZE, seed=SEED)
    outputs = runner(card, written.model, threads=THREADS)(preprocess(probe_rule(card), picture))
    return {
        "precision": recipe.precision,
        "recipe": dataclasses.asdict(recipe),
        "agreement": agreement.to_json(),
        "tools": versions(*TOOLS),
        "probe": Probe.ask(picture, outputs).to_json(),
    }
