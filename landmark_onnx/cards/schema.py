"""Model cards: every fact of a model, declared once as TOML, validated once, used by every layer."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from landmark_onnx.errors import CardError
from landmark_onnx.files.structure import Count, DocumentError, Matches, Within, structure
from landmark_onnx.tasks import DECODERS, DETECTOR_INPUTS, INPUTS, OUTPUTS, Decoder, Task

T = TypeVar("T")

MAX_SIDE = 16384
"""Pixels; with what is beyond, no image fits into memory."""

Side: TypeAlias = Annotated[int, Within(1, MAX_SIDE)]
OptionalSide: TypeAlias = Annotated[int, Within(0, MAX_SIDE)]
Share: TypeAlias = Annotated[float, Within(0, 1)]
Moderate: TypeAlias = Annotated[float, Within(-1e6, 1e6)]
Byte: TypeAlias = Annotated[int, Within(0, 255)]
Positive: TypeAlias = Annotated[float, Within(1e-6, 1e6)]
"""Of what is computed in float32: neither it nor its inverse gets infinite."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the model's files are, and how export rebuilds the network.

    network: a name in `landmark_onnx_export.networks.build.NETWORKS`, or "program" for a binary model that ships its
    own. A model that comes as ONNX needs none.
    url: https, file, `hf://OWNER/REPO@REVISION/PATH`, `modelscope://OWNER/REPO@REVISION/PATH`, or `package://NAME/PATH`
    for a file inside an installed package; what it is shows in its bytes: a Paddle release as a tar, an ONNX model, or
    a state dict of torch's older form. bytes: its size, 0 if not known.
    data_url: the second file of a model of two: the weights beside an ONNX file, or beside a Paddle program.
    labels: file that maps class index to name, if there is one: inside the release, beside the card or beside the
    model; imagenet1k.txt and coco80.txt come with this package. labels_url: where it is to be had.
    """

    network: str = "program"
    url: str = ""
    bytes: Count = 0
    sha256: str = ""
    data_url: str = ""
    data_sha256: str = ""
    labels: str = ""
    labels_url: str = ""
    labels_sha256: str = ""

    def labels_file(self) -> str:
        """What the file of class names is called, "" if there is none."""
        return self.labels or self.labels_url.rpartition("/")[2]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How a BGR uint8 image becomes the network's input. `landmark_onnx.inference.preprocess` has the rules.

    size: pixels of the short side, or of both sides for "exact" and "letterbox"; width: of these, where it is not
    square. antialias: Pillow resizes, whose filters grow with the scale; else OpenCV, whose do not.
    rounding: of the long side, or of both of a letterbox: halves up, or down to whole pixels.
    multiple, min_side: each side is floored to a multiple, but not below min_side pixels ("short_side_floor"), or
    padded to one ("short_side_capped").
    max_ratio: images longer than this get a smaller target; 0 for no limit.
    max_side: cap of the long side in pixels, for "short_side_capped".
    crop: side of the centre crop in pixels; 0 for none. offset: how half a pixel before the crop is rounded, or before
    the image in a letterbox. pad, pad_place: colour of a letterbox, in the order of `colour`, and where the image is.
    mean, std: of each channel in the order of `colour`: of 0..1, or, if one of them is above 1, all of 0..255.
    """

    resize: Literal["short_side_floor", "short_side_capped", "exact", "letterbox"]
    size: Side
    interpolation: Literal["nearest", "linear", "cubic", "area", "lanczos4"]
    antialias: bool = False
    rounding: Literal["half_away", "floor"] = "half_away"
    width: OptionalSide = 0
    multiple: Annotated[int, Within(1, 4096)] = 1
    min_side: Annotated[int, Within(1, 4096)] = 1
    max_ratio: Annotated[float, Within(0, MAX_SIDE)] = 0.0
    max_side: OptionalSide = 0
    crop: OptionalSide = 0
    offset: Literal["floor", "ceil", "half_even"] = "floor"
    pad: tuple[Byte, ...] = ()
    pad_place: Literal["corner", "centre"] = "centre"
    colour: Literal["rgb", "bgr", "gray"] = "rgb"
    mean: tuple[Moderate, ...] = (0.485, 0.456, 0.406)
    std: tuple[Positive, ...] = (0.229, 0.224, 0.225)

    @property
    def channels(self) -> int:
        """Of the network's image: 3, or 1 of a gray one."""
        return 1 if self.colour == "gray" else 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Postprocess:
    """What turns outputs into a result.

    pool: what becomes of an output (N, T, D) of T tokens: the first one, their mean, or a refusal.
    dimension: values of an embedding, 0 if the card does not say it.
    normalise: divide embeddings by their L2 norm. softmax: the classifier answers logits, not probabilities.
    decoder: what a detector answers, see `landmark_onnx.inference.decoders`.
    score, iou, keep: detection thresholds and the most boxes of an image.
    variances: scale of the box deltas dx, dy, dw, dh.
    """

    pool: Literal["none", "cls", "mean"] = "none"
    dimension: Annotated[int, Within(0, 1 << 20)] = 0
    normalise: bool = False
    softmax: bool = False
    decoder: Decoder = "rois"
    score: Share = 0.1
    iou: Share = 0.5
    keep: Annotated[int, Within(1, 1_000_000)] = 100
    variances: tuple[Moderate, Moderate, Moderate, Moderate] = (0.1, 0.1, 0.2, 0.2)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """What the model is known to answer to an image, from somewhere else than here.

    url, sha256: of the image file; none for the picture that this package draws itself.
    first: the first values of the embedding or of the probabilities, as they are handed on; empty if nobody knows them.
    tolerance: the largest difference of a value that is rounding.
    """

    url: str = ""
    sha256: str = ""
    first: tuple[Moderate, ...] = ()
    tolerance: Share = 1e-3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model's facts. `inputs` and `outputs` map our tensor names to those in the ONNX file, where they differ.

    notice: text that must stay with copies of the weights. scores: published figures by name; protocols: how each was
    measured. proved: the day on which a person pulled it from its address and compared its answer, if one did.
    """

    name: Annotated[str, Matches(r"[A-Za-z0-9][\w.-]{0,99}", "letters, digits, '.', '_' and '-'")]
    task: Task
    summary: str
    preprocess: Preprocess
    source: Source = Source()
    licence: str = "not stated"
    licence_url: str = ""
    notice: str = ""
    training_data: str = ""
    postprocess: Postprocess = Postprocess()
    golden: Golden = Golden()
    proved: str = ""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    protocols: Mapping[str, str] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], origin: str) -> Self:
        """Build and validate. Raises: CardError that names `origin` and the key.

        >>> preprocess = {"resize": "exact", "size": 224, "interpolation": "linear"}
        >>> table = {"name": "shops", "task": "retrieval", "summary": "shop fronts", "preprocess": preprocess}
        >>> ModelCard.from_dict(table, "shops.toml").input_names()
        ('image',)
        >>> ModelCard.from_dict(table | {"task": "search"}, "shops.toml")
        Traceback (most recent call last):
        landmark_onnx.errors.CardError: shops.toml: task: wanted one of 'retrieval', 'cls', 'det', got 'search'
        """
        try:
            card = structure(cls, table, origin)
        except DocumentError as error:
            raise CardError(str(error)) from None
        _check(card, origin)
        return card

    def to_dict(self) -> dict[str, Any]:
        """The card as JSON-ready data; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    def input_names(self) -> tuple[str, ...]:
        """The ONNX file's input names, in the order of `input_keys`."""
        return tuple(self.inputs.get(name, name) for name in self.input_keys())

    def input_keys(self) -> tuple[str, ...]:
        """Our names of the inputs: those of the task; a detector of another decoder has those that the card names."""
        if self.postprocess.decoder == "rois":
            return INPUTS[self.task]
        return tuple(name for name in DETECTOR_INPUTS if name == "image" or name in self.inputs)

    def output_keys(self) -> tuple[str, ...]:
        """Our names of the outputs: those of the task, or of a detector's decoder."""
        return DECODERS[self.postprocess.decoder] if self.task == "det" else OUTPUTS[self.task]

    def file_inputs(self, feeds: Mapping[str, T]) -> dict[str, T]:
        """What is fed under our names, under the ONNX file's."""
        return {theirs: feeds[ours] for ours, theirs in zip(self.input_keys(), self.input_names(), strict=True)}

    def output_names(self) -> tuple[str, ...]:
        """The ONNX file's output names, in the order of `output_keys`."""
        return tuple(self.outputs.get(name, name) for name in self.output_keys())


def _check(card: ModelCard, origin: str) -> None:
    """The rules that no annotation can state. Raises: CardError for the first one that does not hold."""
    for rule, holds in (_preprocess_rules(card.preprocess) | _card_rules(card)).items():
        if not holds:
            raise CardError(f"{origin}: {rule}")


def _preprocess_rules(prep: Preprocess) -> dict[str, bool]:
    sided, boxed = prep.resize in ("exact", "letterbox"), prep.resize == "letterbox"
    capped = prep.resize == "short_side_capped"
    # Long images come out smaller where max_ratio is set; else every short side is the floored size.
    floored = 0 if prep.max_ratio else prep.size // prep.multiple * prep.multiple
    shortest = min(prep.size, prep.width or prep.size) if sided else max(prep.min_side, floored)
    counts = {key: len(getattr(prep, key)) for key in ("mean", "std", "pad") if key != "pad" or prep.pad}
    return {
        "preprocess: width: wanted for exact and letterbox alone": sided or not prep.width,
        "preprocess: pad: wanted for letterbox alone": boxed or not prep.pad,
        "preprocess: crop: wanted none with letterbox": not (boxed and prep.crop),
        "preprocess: crop: wanted at most the shortest side that the resize leaves": prep.crop <= shortest,
        "preprocess: antialias: wanted with another resize, this one is of float32": not (capped and prep.antialias),
        "preprocess: max_ratio: wanted 0 or 1 and more": prep.max_ratio == 0 or prep.max_ratio >= 1,
        "preprocess: max_side: wanted at least size for this resize": (
            prep.max_side >= prep.size if capped else prep.max_side == 0
        ),
    } | {
        f"preprocess: {key}: wanted {prep.channels} for colour {prep.colour!r}, got {count}": count == prep.channels
        for key, count in counts.items()
    }


def _card_rules(card: ModelCard) -> dict[str, bool]:
    prep, post, source = card.preprocess, card.postprocess, card.source
    inputs = INPUTS[card.task] if post.decoder == "rois" else DETECTOR_INPUTS
    return {
        "preprocess: resize: wanted short_side_capped for the decoder rois of task det, and for that alone": (
            (prep.resize == "short_side_capped") == (card.task == "det" and post.decoder == "rois")
        ),
        "postprocess: decoder: wanted for task det alone": card.task == "det" or post.decoder == "rois",
        "postprocess: pool, dimension: wanted for task retrieval alone": (
            card.task == "retrieval" or (post.pool, post.dimension) == ("none", 0)
        ),
        "source: data_sha256: wanted with data_url": bool(source.data_sha256) >= bool(source.data_url),
        "source: labels_sha256: wanted with labels_url": bool(source.labels_sha256) >= bool(source.labels_url),
        "golden: sha256: wanted with url": bool(card.golden.sha256) >= bool(card.golden.url),
        "protocols: wanted names of scores": set(card.protocols) <= set(card.scores),
        f"inputs: wanted keys among {', '.join(inputs)}": set(card.inputs) <= set(inputs),
        f"outputs: wanted keys among {', '.join(card.output_keys())}": set(card.outputs) <= set(card.output_keys()),
    }
