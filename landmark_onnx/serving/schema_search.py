"""What requests to indexes may ask and what answers say, typed, as `schema` does for models."""

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from landmark_onnx.serving.pictures import SIDES
from landmark_onnx.serving.query_steps import BOUNDS, MOST_STEPS
from landmark_onnx.serving.schema import (
    ImageOptions,
    ImageProblem,
    ModelFacts,
    Region,
    RequestOptions,
    Took,
)
from landmark_onnx.serving.schema_info import IndexFacts, IndexState

MOST_NEIGHBOURS = 1000

IndexName: TypeAlias = Annotated[
    str | None, Field(max_length=255, description="Name of an index; needed where several are served")
]
_TOP = f"Neighbours of a query, nearest first, at most {MOST_NEIGHBOURS:,}"
_STEPS = (
    f"At most {MOST_STEPS} steps after the search, NAME or NAME:key=value,key=value, of {', '.join(BOUNDS)}, as "
    "/v1/info has them"
)
StepSpec: TypeAlias = Annotated[str, Field(max_length=255)]


class HowToSearch(RequestOptions):
    """How neighbours are looked for."""

    top: Annotated[int, Field(ge=1, le=MOST_NEIGHBOURS, description=_TOP)] = 20
    approximate: Annotated[bool, Field(description="By the approximate index, which may miss some; without steps")] = (
        False
    )
    steps: Annotated[tuple[StepSpec, ...], Field(max_length=MOST_STEPS, strict=False, description=_STEPS)] = ()


class SearchOptions(HowToSearch):
    """Options of /v1/search."""

    index: IndexName = None
    crop: Region = None


class RecognizeOptions(ImageOptions):
    """Options of /v1/recognize."""

    index: IndexName = None


class ByIdOptions(HowToSearch):
    """The query of /v1/indexes/{name}/search."""

    model_config = ConfigDict(strict=False)

    id: Annotated[str, Field(description="Of an image of the index")]


class PictureOptions(BaseModel):
    """The query of /v1/indexes/{name}/image."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(description="Of an image of the index")]
    side: Annotated[int, Field(description="Pixels of its longer side, at most", json_schema_extra={"enum": SIDES})] = (
        SIDES[0]
    )


class IndexList(BaseModel):
    """All indexes."""

    indexes: list[IndexFacts]


class NeighbourAnswer(BaseModel):
    """A neighbour."""

    rank: int
    id: str
    score: Annotated[float, Field(description="Cosine, unless a step says otherwise; higher is nearer")]
    landmark: Annotated[str | None, Field(description="With labels alone")] = None


class LandmarkVotes(BaseModel):
    """A landmark and the sum of its neighbours' votes, each 1 - squared L2."""

    landmark: str
    score: float


class QueryAnswer(BaseModel):
    """What every answer to a query says."""

    position: Annotated[int, Field(description="Among the request's images or vectors, from 0")]
    image: Annotated[str, Field(description="The file's name, if one was given")]
    id: Annotated[str | None, Field(description="Of the query, if it is an image of an index")] = None
    size: Annotated[
        list[int] | None, Field(min_length=2, max_length=2, description="Width and height as decoded, upright")
    ] = None
    crop: Annotated[list[float | str] | None, Field(description="As it was asked")] = None


class NeighboursAnswer(QueryAnswer):
    """The neighbours of a query; an image of the index is the first of its own."""

    neighbours: list[NeighbourAnswer]
    votes: Annotated[list[LandmarkVotes] | None, Field(description="With labels alone, best first")] = None


class IndexAnswer(BaseModel):
    """What every answer from an index says."""

    models: list[ModelFacts]
    index: IndexState
    took: Took


class SearchAnswer(IndexAnswer):
    """Of a search."""

    results: list[NeighboursAnswer | ImageProblem]


class CandidateAnswer(BaseModel):
    """A landmark with its votes, and their sum."""

    landmark: str
    score: float
    neighbours: float
    classifiers: float


class NeighbourVoteAnswer(BaseModel):
    """A neighbour that votes."""

    id: str
    landmark: str | None
    cosine: float
    vote: float


class ClassVoteAnswer(BaseModel):
    """A class that votes, of a classifier."""

    model: str
    index: int
    landmark: str | None
    vote: float


class RuleAnswer(BaseModel):
    """A rule by which an image shows no landmark. area: share of the image."""

    rule: str
    area: float
    boxes: list[dict[str, Any]]


class RecognitionAnswer(QueryAnswer):
    """The landmark of an image, and why. An image of an index is judged by its neighbours alone."""

    landmark: str | None
    score: float | None
    labels: str | None
    candidates: list[CandidateAnswer]
    neighbours: list[NeighbourVoteAnswer]
    classes: list[ClassVoteAnswer]
    no_landmark: list[RuleAnswer]


class RecognizeAnswer(IndexAnswer):
    """Of /v1/recognize."""

    results: list[RecognitionAnswer | ImageProblem]
