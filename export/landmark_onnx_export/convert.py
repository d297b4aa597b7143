"""A Paddle release -> one checked ONNX file that says what it is."""

import dataclasses
import importlib.metadata
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from landmark_onnx.cards.catalogue import ready_folder, shipped_cards, users_folder
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import EXPORTERS, ExportError
from landmark_onnx.extras import versions
from landmark_onnx.files.workfolders import folder_beside
from landmark_onnx.modelfile.labels import parse_labels, read_labels
from landmark_onnx.tasks import InputKind
from landmark_onnx.verification.tolerance import Agreement
from landmark_onnx_export import parity, programs
from landmark_onnx_export.graphs import io as graph
from landmark_onnx_export.graphs.fold import lean_model
from landmark_onnx_export.graphs.uint8_input import check_card, take_pixels
from landmark_onnx_export.graphs.write import publish_model, write_model
from landmark_onnx_export.ops.lower import CUSTOM_OPS, lower
from landmark_onnx_export.paddle import edits
from landmark_onnx_export.paddle.converter import check_converter
from landmark_onnx_export.paddle.interface import Tensors
from landmark_onnx_export.paddle.pir import parse_pir
from landmark_onnx_export.paddle.runtime import PIR_SUFFIX
from landmark_onnx_export.releases.source import ReleaseSource, open_source
from landmark_onnx_export.workers.run import run_child

logger = logging.getLogger("landmark_onnx.export.convert")

TOOLS = ("landmark-onnx", *EXPORTERS.values(), "onnxruntime")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportForm:
    """What file is made of a release.

    raw: every op as the program has it, weights the released bits; else `lean` for any machine.
    input_kind: "uint8" for a graph that normalises by itself, see `landmark_onnx_export.graphs.uint8_input`.
    """

    raw: bool = False
    input_kind: InputKind = "float32"

    def metadata(self) -> dict[str, Any]:
        """What the file says of it: "input", where that is not float32."""
        return {} if self.input_kind == "float32" else {"input": self.input_kind}


LEAN = ExportForm()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export made. agreement: with Paddle, None if not asked. unused: variables of the source left aside."""

    path: Path
    card: ModelCard
    seconds: float
    agreement: Agreement | None
    unused: tuple[str, ...]


def export_model(
    card: ModelCard,
    source: Path,
    output: Path,
    form: ExportForm = LEAN,
    *,
    check_parity: bool = True,
    beside: Path | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> ExportReport:
    """Export `source` (tar, folder, binary model) to the ONNX file `output`; on any error nothing is left there.

    beside: a folder, as that of the card's file, in which its labels may be if they are not in the release; they are
    looked for beside the release and among the user's cards, too. on_stage: the name of each stage as it begins.
    Raises: ExportError, also if the labels that a user's card names are nowhere; MissingExtraError.
    """
    start = time.perf_counter()
    if form.input_kind == "uint8":
        check_card(card)
    with folder_beside(output) as folder, open_source(source) as opened:
        labels = _labels(card, opened, beside)
        on_stage("program")
        program, unused = _program(card, opened, folder)
        tensors = program.tensors(card)
        on_stage("convert")
        model, weights = _convert(card, program, tensors, folder, raw=form.raw), program.variables
        if not form.raw:
            on_stage("optimise")
            model, weights = lean_model(model, weights, folder)
        if form.input_kind == "uint8":
            take_pixels(model.graph, card.preprocess)
        written = write_model(model, weights, folder / output.name)
        measured = None
        if check_parity:
            on_stage("parity")
            paddle = parity.PaddleModel(*program.write(folder), tensors)
            measured = parity.measure(card, paddle, written.model, folder, form.input_kind)
        publish_model(written, output, _metadata(card, opened, measured) | labels | form.metadata())
    agreed = measured.agreement if measured else None
    return ExportReport(path=output, card=card, seconds=time.perf_counter() - start, agreement=agreed, unused=unused)


def _program(card: ModelCard, source: ReleaseSource, folder: Path) -> tuple[programs.PaddleProgram, tuple[str, ...]]:
    """The program with dynamic sizes, and the variables it does not use."""
    check_converter(source.path, source.kind)
    program = programs.opened(card, programs.runnable(card, source, folder), folder)
    unused = tuple(sorted({*program.variables} - {*program.parameters()}))
    logger.info("%s: variables that the network does not use: %s", card.name, ", ".join(unused) or "none")
    return program, unused


def _convert(
    card: ModelCard, program: programs.PaddleProgram, tensors: Tensors, folder: Path, *, raw: bool
) -> onnx.ModelProto:
    """The ONNX model without weights: standard ops alone, our tensor names, weights still among the inputs."""
    made = folder / "converted.onnx"
    if program.is_pir:
        _convert_pir(card, program, folder / f"converter{PIR_SUFFIX}", made)
        model = onnx.load(made)
        graph.declare_weights(model.graph, [program.variables[name] for name in program.parameters()])
    else:
        given = folder / "converter.pdmodel"
        given.write_bytes(edits.converter_input(program.data))
        run_child("paddle2onnx", {"program": str(given), "output": str(made), "custom_ops": dict(CUSTOM_OPS)})
        model = onnx.load(made)
    model = lower(model, raw=raw)
    names = zip((*tensors.inputs, *tensors.outputs), (*card.input_keys(), *card.output_keys()), strict=True)
    graph.name_tensors(model.graph, dict(names))
    model.graph.name, model.doc_string = card.name, card.summary
    model.producer_name, model.producer_version = "landmark-onnx", importlib.metadata.version("landmark-onnx")
    return model


def _convert_pir(card: ModelCard, program: programs.PaddleProgram, given: Path, made: Path) -> None:
    """Without its parameters, a program of Paddle 3 becomes a graph that has their names and lacks their values."""
    given.write_bytes(program.data)
    try:
        run_child("paddle2onnx", {"program": str(given), "output": str(made), "custom_ops": {}})
    except ExportError as error:
        ops = ", ".join(sorted(parse_pir(program.data).ops))
        raise ExportError(f"{card.name}: {error}; the program's ops are {ops}") from error


def _metadata(card: ModelCard, source: ReleaseSource, measured: parity.Parity | None) -> dict[str, Any]:
    """What the file says of itself: see `landmark_onnx.modelfile.metadata`."""
    metadata: dict[str, Any] = {
        "card": card.to_dict(),
        "source": {"name": source.path.name, "kind": source.kind, "sha256": source.sha256},
        "tools": versions(*TOOLS),
    }
    if measured:
        metadata |= {"parity": measured.to_json(), "probe": measured.probe.to_json()}
    return metadata


def _labels(card: ModelCard, source: ReleaseSource, beside: Path | None) -> dict[str, dict[str, str]]:
    """The class names that the card wants, as metadata."""
    wanted = card.source.labels
    if not wanted:
        return {}
    if (text := source.read_text(wanted)) is not None:
        found = parse_labels(text, wanted)
    else:
        folders = [folder for folder in (beside, source.path.parent, users_folder(), ready_folder()) if folder]
        file = next((file for folder in folders if (file := folder / wanted).is_file()), None)
        if file is None:
            places = ", ".join(dict.fromkeys(map(str, (source.path, *folders))))
            why = f"{card.name}: its card wants labels from {wanted}: no such file in {places}"
            if card.name not in shipped_cards():
                raise ExportError(why)
            logger.warning("%s; its classes have no names", why)
            return {}
        found = read_labels(file)
    return {"labels": {str(index): name for index, name in found.items()}}
