"""Options that several commands share: declared once as fields, handed to a command as frozen dataclasses."""

import dataclasses
import enum
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from landmark_onnx.images.limits import MAX_PIXELS
from landmark_onnx.inference.batching import BATCH_SIZE
from landmark_onnx.runtime.providers import ProviderRequest

if TYPE_CHECKING:
    from landmark_onnx.cards.schema import ModelCard
    from landmark_onnx.images.decode import ReadOptions
    from landmark_onnx.precision import Chosen, Precision

ENGINE, IMAGES, OUTPUT = "Where it runs", "Images", "Output"


class Format(enum.StrEnum):
    """How answers are written."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"


class DamagedImages(enum.StrEnum):
    """`landmark_onnx.images.decode.Damaged`, as typer takes it."""

    REFUSE = "refuse"
    ACCEPT = "accept"


class PrecisionName(enum.StrEnum):
    """`landmark_onnx.precision.Precision`, as typer takes it."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class PrecisionChoice(enum.StrEnum):
    """The same, or what tune chose."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    AUTO = "auto"


SUFFIXES = {".json": Format.JSON, ".ndjson": Format.NDJSON, ".jsonl": Format.NDJSON, ".csv": Format.CSV}
"""The format that a file's name asks for."""


def check_destination(path: Path | None) -> Path | None:
    """Refuse what could not be written, before the work. Raises: OSError."""
    if path:
        from landmark_onnx.files.atomic import check_writable

        check_writable(path)
    return path


def input_file(*names: str, text: str, metavar: str = "FILE", **more: Any) -> Any:
    """An option that names a file to read, which must be there. more: as typer's."""
    return typer.Option(*names, metavar=metavar, exists=True, dir_okay=False, help=text, **more)


def output_file(*names: str, text: str, **more: Any) -> Any:
    """An option that names a file to write: never a folder; that it can be read is not asked. more: as typer's."""
    return typer.Option(*names, metavar="FILE", dir_okay=False, readable=False, help=text, **more)


def check_pairs(pairs: list[str] | None) -> list[str] | None:
    """Refuse what is not key=value, as a usage error."""
    for pair in pairs or []:
        if not pair.partition("=")[0] or "=" not in pair:
            raise typer.BadParameter(f"wanted key=value, got {pair!r}")
    return pairs


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionOptions:
    """What runs a model."""

    provider: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, tensorrt, openvino, or ONNX Runtime's own name. auto prefers CUDA, takes "
            "OpenVINO where no ONNX Runtime is installed, and says what it took; anything else runs there or fails.",
            rich_help_panel=ENGINE,
        ),
    ] = "auto"
    provider_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            callback=check_pairs,
            help="Passed on to the provider unchanged; repeat for more.",
            rich_help_panel=ENGINE,
        ),
    ] = None
    device_id: Annotated[int | None, typer.Option(min=0, help="Which GPU.", rich_help_panel=ENGINE)] = None
    precision: Annotated[
        PrecisionChoice,
        typer.Option(
            help="fp16 and int8 run the file that `landmark-onnx quantize` wrote; bf16 takes openvino or tensorrt; "
            "auto, with the provider auto, is what `landmark-onnx tune` chose, in threads and batch size too.",
            rich_help_panel=ENGINE,
        ),
    ] = PrecisionChoice.FP32
    threads: Annotated[
        int,
        typer.Option(
            min=0,
            help="Threads of one inference; 0 leaves it to the runtime, within a container's CPU limit.",
            rich_help_panel=ENGINE,
        ),
    ] = 0

    def __post_init__(self) -> None:
        given = self.provider_option or self.device_id is not None or self.provider.lower() != "auto"
        if self.precision is PrecisionChoice.AUTO and given:
            text = "auto takes the provider that tune chose: leave --provider and its options out"
            raise typer.BadParameter(text, param_hint="--precision")

    def stored(self) -> "Precision":
        """The precision whose file has to be there: what tune chose is known by the fp32 one."""
        asked: Precision | Chosen = self.precision.value  # typed, so that the two lists stay the same
        return "fp32" if asked == "auto" else asked

    def request(self) -> ProviderRequest:
        """The same, as the runtime takes it. Raises: BadParameter for precision auto, which is of a model."""
        if self.precision is PrecisionChoice.AUTO:
            raise typer.BadParameter("auto is of this machine alone: name one here", param_hint="--precision")
        options = {key: value for key, _, value in (pair.partition("=") for pair in self.provider_option or [])}
        return ProviderRequest(name=self.provider, options=options, device_id=self.device_id, precision=self.stored())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Downloads:
    """Whether a model that is not in the store yet may be pulled."""

    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Download nothing: fail if the store has neither the model nor its release.",
            rich_help_panel=ENGINE,
        ),
    ] = False

    def read_card(self) -> "ModelCard | None":
        """The user's card: none."""
        return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource(Downloads):
    """Where a model comes from, and whose facts count."""

    card: Annotated[
        Path | None,
        input_file(text="A model card to use in place of the one inside the .onnx file.", rich_help_panel=ENGINE),
    ] = None

    def read_card(self) -> "ModelCard | None":
        """The card, if one was given. Raises: CardError."""
        from landmark_onnx.cards.catalogue import read_card

        return read_card(self.card) if self.card else None


FollowLinks = Annotated[
    bool,
    typer.Option("--follow-links", help="Search linked folders too, each once; loops end.", rich_help_panel=IMAGES),
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BatchReading:
    """How images are read, and how many run together."""

    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images of one shape that run together.",
            rich_help_panel=IMAGES,
            show_default=str(BATCH_SIZE),
        ),
    ] = None
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse larger images before decoding them.", rich_help_panel=IMAGES)
    ] = MAX_PIXELS
    damaged: Annotated[
        DamagedImages,
        typer.Option(
            help="What becomes of images that are cut or overwritten: an error, or what can be decoded and a warning.",
            rich_help_panel=IMAGES,
        ),
    ] = DamagedImages.REFUSE

    def reading(self) -> "ReadOptions":
        """The same, as images are read."""
        from landmark_onnx.images.decode import ReadOptions

        return ReadOptions(max_pixels=self.max_pixels, damaged=self.damaged.value)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Images(BatchReading):
    """How images go from folders through a model."""

    follow_links: FollowLinks = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions(Images):
    """The same, with answers that can be timed."""

    time: Annotated[
        bool,
        typer.Option(
            "--time", help="Add ms of decode, preprocess, inference, postprocess per image.", rich_help_panel=OUTPUT
        ),
    ] = False


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No notes, no progress; errors alone.", rich_help_panel=OUTPUT)
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where answers go, and how they look there."""

    format: Annotated[
        Format | None,
        typer.Option(
            help="By default: what FILE's suffix says; else table on a terminal, ndjson anywhere else.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    output: Annotated[
        Path | None,
        output_file(
            "--output",
            "-o",
            text="Write answers there instead; the file appears when it is whole, a pipe or device gets each as it "
            "comes.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    quiet: Quiet = False

    def chosen_format(self, *, terminal: bool) -> Format:
        """The format asked for, or the one that fits where the answers go."""
        if self.format:
            return self.format
        if self.output:
            return SUFFIXES.get(self.output.suffix.lower(), Format.NDJSON)
        return Format.TABLE if terminal else Format.NDJSON


def unfolded(command: Callable[..., None]) -> Callable[..., None]:
    """Show typer each field of the option dataclasses that `command` takes; `command` itself gets the dataclasses."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += [_parameter(field) for field in dataclasses.fields(groups[parameter.name])]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name]))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(field: dataclasses.Field[Any]) -> inspect.Parameter:
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
