"""A release's program with its weights, in either of Paddle's formats: ProgramDesc, and PIR since Paddle 3."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ExportError
from landmark_onnx_export.networks.build import build
from landmark_onnx_export.paddle import edits, pir
from landmark_onnx_export.paddle.binary_model import write_binary_model, write_pir_model
from landmark_onnx_export.paddle.interface import Tensors
from landmark_onnx_export.paddle.variables import Variable, parse_program, persistable_names
from landmark_onnx_export.releases.source import ReleaseSource
from landmark_onnx_export.workers.run import run_child


@dataclass(frozen=True, slots=True)
class PaddleProgram:
    """data: a serialized ProgramDesc or, if `is_pir`, JSON. variables: all that the release has, used or not."""

    data: bytes
    variables: Mapping[str, Variable]
    is_pir: bool

    def parameters(self) -> list[str]:
        """The names of the variables that it uses, sorted."""
        return (
            sorted(pir.parse_pir(self.data).parameters) if self.is_pir else persistable_names(parse_program(self.data))
        )

    def tensors(self, card: ModelCard) -> Tensors:
        """Which input and output is which. Raises: ExportError where their number, rank or type is not the card's."""
        return pir.parse_pir(self.data).tensors(card) if self.is_pir else edits.tensors(parse_program(self.data), card)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The program and its parameters as files for Paddle. Raises: ExportError if a variable is missing."""
        return (write_pir_model if self.is_pir else write_binary_model)(self.data, self.variables, folder)


def runnable(card: ModelCard, source: ReleaseSource, folder: Path) -> PaddleProgram:
    """The program as Paddle runs it on a CPU, rebuilt around a train model's weights; what is made lies in `folder`.

    Raises: ExportError if there is neither a program nor a network of the card's.
    """
    if source.program is None:
        if card.source.network == "program":
            raise ExportError(f"{source.path}: a train model without a program; {card.name} needs a binary model")
        return PaddleProgram(build(card.source.network, card.task, source.variables), source.variables, is_pir=False)
    if source.kind == "pir":
        return PaddleProgram(pir.in_float32(source.program), pir.widened(source.variables, folder), is_pir=True)
    return PaddleProgram(source.program, source.variables, is_pir=False)


def opened(card: ModelCard, program: PaddleProgram, folder: Path) -> PaddleProgram:
    """The program for any batch, height and width; a detector that answers rows has places for one size inside.

    Raises: ExportError if an op needs a fixed image size.
    """
    if card.postprocess.decoder == "rows":
        return program
    if program.is_pir:
        return replace(program, data=pir.with_open_sizes(program.data))
    resized = folder / "resized.pdmodel"
    resized.write_bytes(edits.with_open_sizes(program.data))
    run_child("shapes", {"program": str(resized)})
    return replace(program, data=resized.read_bytes())
