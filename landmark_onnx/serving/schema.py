"""What requests may ask and what answers say, typed: options are validated by it, and OpenAPI describes both."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

MOST_CLASSES = 1000
"""Of a classifier's answer: what it is loaded with, and the most that `top` may ask."""

_NUMBER = {"type": "number"}
_CROP: dict[str, Any] = {
    "type": "array",
    "prefixItems": [_NUMBER, _NUMBER, _NUMBER, _NUMBER, {"const": "relative"}],
    "items": False,
    "minItems": 4,
    "maxItems": 5,
    "description": "Part of an image: x, y, width, height, in pixels of it as decoded and upright; or of 0..1 "
    'with "relative" behind them. Corners are rounded to whole pixels.',
}
Region: TypeAlias = Annotated[None, WithJsonSchema(_CROP)]
"""Described here alone: a request's reader has given it to the image before options are looked at."""

ModelName: TypeAlias = Annotated[
    str | None, Field(max_length=255, description="Name of a model; needed where several of the task are served")
]
Box: TypeAlias = Annotated[list[float], Field(min_length=4, max_length=4, description="x, y, width, height in pixels")]


class RequestOptions(BaseModel):
    """What every request may ask. Unknown options are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    timeout: Annotated[float | None, Field(ge=0.001, description="Seconds, at most the server's own")] = None


class ImageOptions(RequestOptions):
    """What every request for answers to single images may ask."""

    crop: Region = None


class EmbedOptions(ImageOptions):
    """Options of /v1/embed."""

    model: ModelName = None
    encoding: Annotated[
        Literal["json", "base64"], Field(description="Of vectors: numbers, or base64 of little-endian float32")
    ] = "json"


class ClassifyOptions(ImageOptions):
    """Options of /v1/classify."""

    model: ModelName = None
    top: Annotated[int, Field(ge=1, le=MOST_CLASSES, description="Classes of an image, the most probable first")] = 20


class DetectOptions(ImageOptions):
    """Options of /v1/detect."""

    model: ModelName = None
    min_score: Annotated[
        float,
        Field(ge=0, le=1, description="Boxes of less are left out, beside those that the model itself leaves out"),
    ] = 0.0


class CompareOptions(RequestOptions):
    """Options of /v1/compare."""

    model: ModelName = None


class SentImage(BaseModel):
    """An image in a JSON body."""

    model_config = ConfigDict(extra="forbid")

    data: Annotated[str, Field(pattern="^data:[^,]*;base64,", description="A data URI, in base64 (RFC 2397)")]
    name: Annotated[str, Field(description="What the answer calls it")] = ""
    crop: Region = None


class IndexedImage(BaseModel):
    """An image of an index in place of one that is sent."""

    model_config = ConfigDict(extra="forbid")

    id: str
    index: Annotated[str, Field(description="Needed where several are served")] = ""
    crop: Region = None


class ProblemDetails(BaseModel):
    """An error, as RFC 9457 has it."""

    type: Annotated[str, Field(description="urn:x-landmark-onnx:NAME")]
    title: str
    status: int
    detail: str
    instance: Annotated[str, Field(description="urn:uuid: and the request's id")]
    limit: float | None = None
    got: float | str | None = None
    retry_after: Annotated[float | None, Field(description="Seconds")] = None
    errors: list[dict[str, Any]] | None = None


class ModelFacts(BaseModel):
    """Which model answers."""

    name: str
    sha256: Annotated[str, Field(description="Of its file")]


class Took(BaseModel):
    """Seconds of all images together, by stage."""

    queue: float
    decode: float
    preprocess: float
    inference: float
    postprocess: float
    search: float | None = None


class ImageProblem(BaseModel):
    """An image that has no answer, beside others that have one."""

    position: int
    image: str
    problem: ProblemDetails


class ImageAnswer(BaseModel):
    """What every answer to an image says."""

    position: Annotated[int, Field(description="Among the request's images, from 0")]
    image: Annotated[str, Field(description="The file's name, if one was given")]
    id: Annotated[str | None, Field(description="If it is an image of an index")] = None
    size: Annotated[list[int], Field(min_length=2, max_length=2, description="Width and height as decoded, upright")]
    crop: Annotated[list[float | str] | None, Field(description="As it was asked")] = None


class EmbeddingAnswer(ImageAnswer):
    """Its last bits may differ with the images that shared its batch."""

    embedding: Annotated[list[float] | str, Field(description="Of the network, not of unit length; or base64 of it")]
    encoding: Literal["base64"] | None = None


class ClassLabel(BaseModel):
    """A class and its probability."""

    index: int
    score: float
    name: str | None


class ClassificationAnswer(ImageAnswer):
    """The most probable classes, best first."""

    labels: list[ClassLabel]


class DetectedBox(BaseModel):
    """A box, in pixels of the image or of its crop."""

    category_id: int
    name: str | None
    bbox: Box
    score: float


class DetectionAnswer(ImageAnswer):
    """Boxes, by class and then by falling score."""

    detections: list[DetectedBox]


class ComparisonAnswer(ImageAnswer):
    """How alike it is to the first image."""

    query: Annotated[str, Field(description="The first image's name")]
    cosine: Annotated[float, Field(ge=0, le=1)]


class ModelAnswer(BaseModel):
    """What every answer of one model says."""

    model: ModelFacts
    took: Took


class EmbedAnswer(ModelAnswer):
    """Of /v1/embed."""

    results: list[EmbeddingAnswer | ImageProblem]


class ClassifyAnswer(ModelAnswer):
    """Of /v1/classify."""

    results: list[ClassificationAnswer | ImageProblem]


class DetectAnswer(ModelAnswer):
    """Of /v1/detect."""

    results: list[DetectionAnswer | ImageProblem]


class CompareAnswer(ModelAnswer):
    """Of /v1/compare: of each image but the first."""

    results: list[ComparisonAnswer | ImageProblem]
