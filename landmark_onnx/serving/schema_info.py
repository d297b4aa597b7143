"""What a service says of itself, typed: for OpenAPI."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from landmark_onnx.serving.schema import ModelFacts


class Status(BaseModel):
    """Of a process that answers."""

    status: Literal["ok"] = "ok"


class Alive(BaseModel):
    """As the Open Inference Protocol has it."""

    live: Literal[True] = True


class Readiness(Alive):
    """As the Open Inference Protocol has it."""

    ready: bool


class ServedModel(ModelFacts):
    """A model and how it runs."""

    task: Literal["retrieval", "cls", "det"]
    precision: str
    provider: str


class IndexState(BaseModel):
    """An index, and which state of it."""

    name: str
    generation: Annotated[int, Field(description="Of its files: adding rows keeps it, removing some does not")]
    rows: int


class IndexFacts(IndexState):
    """What there is in an index."""

    dim: Annotated[int, Field(description="Values of a vector")]
    models: Annotated[list[str], Field(description="Whose embeddings make a vector, in this order")]
    pca_from: Annotated[int | None, Field(description="Values before whitening, null without")]
    pca_explained: Annotated[float | None, Field(description="Share of the variance that whitening keeps")]
    approximate: Annotated[str | None, Field(description="What the approximate index is, null without one")]
    labels: Annotated[str | None, Field(description="Where landmarks are from, null without")]


class StepParameter(BaseModel):
    """A number of a step, and what a request may ask."""

    name: str
    kind: Literal["int", "float"]
    default: float
    min: float
    max: float


class StepFacts(BaseModel):
    """A step after the search."""

    name: str
    parameters: list[StepParameter]


class QueueState(BaseModel):
    """What waits now."""

    images: int
    seconds: Annotated[float, Field(description="Until what waits is likely answered")]


class Information(BaseModel):
    """What is served, within which limits, and what this key may do."""

    version: str
    models: list[ServedModel]
    indexes: list[IndexFacts]
    recognize: Annotated[bool, Field(description="Whether there is an index to recognize by")]
    detector: Annotated[str | None, Field(description="Whose boxes may say that an image shows no landmark")]
    rules: Annotated[list[str], Field(description="By which they say so")]
    steps: list[StepFacts]
    limits: dict[str, Any]
    key_required: bool
    queue: QueueState
    may: list[str]
