"""The service's description of itself, OpenAPI 3.1: what FastAPI finds, and bodies that our own code reads."""

from collections import defaultdict
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from landmark_onnx.serving.payload import JSON, MULTIPART, RAW
from landmark_onnx.serving.problems import KINDS, MEDIA_TYPE
from landmark_onnx.serving.schema import IndexedImage, ProblemDetails, RequestOptions, SentImage

GENERAL = ("bad-request", "unauthorized", "forbidden", "foreign-host", "foreign-site", "internal", "draining")
"""Kinds of problems that any request may have."""

_TEMPLATE = "#/components/schemas/{model}"
_BINARY = {"type": "string", "format": "binary"}
_FAILED = {"description": "How many of several images have a problem", "schema": {"type": "integer"}}
_RETRY = {"description": "Seconds", "schema": {"type": "integer"}}
_SHARED = (IndexedImage, ProblemDetails, SentImage)


def documented(
    summary: str, options: type[RequestOptions], answer: type[BaseModel], *, vectors: bool = False
) -> dict[str, Any]:
    """What a route's decorator is told of a request about images: its bodies, its options and all its answers.

    vectors: whether a JSON body may have them in place of images.
    """
    said = {"description": "Answered", "model": answer, "headers": {"Failed-Images": _FAILED}}
    return {
        "summary": summary,
        "responses": {200: said} | problems(*KINDS),
        "openapi_extra": {"parameters": _parameters(options), "requestBody": _body(options, vectors=vectors)},
        "response_model": None,
    }


def problems(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Status -> description, of these kinds of problems and those that any request may have."""
    titles: dict[int, list[str]] = defaultdict(list)
    for name in dict.fromkeys((*kinds, *GENERAL)):
        titles[KINDS[name].status].append(f"{name}: {KINDS[name].title}.")
    return {status: _problem(status, " ".join(said)) for status, said in sorted(titles.items())}


def _problem(status: int, description: str) -> dict[str, Any]:
    said = {"description": description, "content": {MEDIA_TYPE: {"schema": _reference(ProblemDetails)}}}
    return said | ({"headers": {"Retry-After": _RETRY}} if status in (429, 503) else {})


def describe(app: FastAPI) -> dict[str, Any]:
    """The description of an application whose routes are all there."""
    found = get_openapi(
        title="landmark-onnx",
        version=version("landmark-onnx"),
        summary="Embeddings, classes, detections and landmarks of photos.",
        description="Every error is a problem (RFC 9457), whose type is urn:x-landmark-onnx: and its name. Whatever "
        "is asked here changes nothing, and may be asked again. Answers may differ in the last bits with the images "
        "that shared a batch; with --batch-size 1 they are those of the library.",
        routes=app.routes,
    )
    _, shared = models_json_schema([(model, "serialization") for model in _SHARED], ref_template=_TEMPLATE)
    found["components"]["schemas"] |= shared["$defs"]
    found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{"key": []}, {}]  # a server may have no keys
    return found


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(model=model.__name__)}


def _schema(options: type[RequestOptions]) -> dict[str, Any]:
    return options.model_json_schema(ref_template=_TEMPLATE)


def _parameters(options: type[RequestOptions]) -> list[dict[str, Any]]:
    """The options as a query has them, beside a body that is one image."""
    found = []
    for name, schema in _schema(options)["properties"].items():
        said = schema.pop("description", "").rstrip(".")
        if name == "crop":
            schema, said = {"type": "string"}, f"{said}. Here with commas between them"
        text = f"{said}. Only beside a body that is an image."
        found.append({"name": name, "in": "query", "required": False, "schema": schema, "description": text})
    return found


def _body(options: type[RequestOptions], *, vectors: bool) -> dict[str, Any]:
    """A body with images in each of its forms."""
    form = {
        "type": "object",
        "properties": {"image": {"type": "array", "items": _BINARY, "minItems": 1}, "options": _schema(options)},
        "required": ["image"],
        "additionalProperties": False,
    }
    images = {"type": "array", "minItems": 1, "items": {"oneOf": [_reference(SentImage), _reference(IndexedImage)]}}
    row = {"type": "array", "minItems": 1, "items": {"type": "number"}}
    document = {
        "type": "object",
        "properties": {"images": images, "options": _schema(options)}
        | ({"vectors": {"type": "array", "minItems": 1, "items": row}} if vectors else {}),
        "additionalProperties": False,
    }
    document |= (
        {"oneOf": [{"required": ["images"]}, {"required": ["vectors"]}]} if vectors else {"required": ["images"]}
    )
    content: dict[str, Any] = {raw: {"schema": _BINARY} for raw in RAW}
    content[MULTIPART] = {"schema": form, "encoding": {"options": {"contentType": JSON}}}
    content[JSON] = {"schema": document}
    return {"required": True, "content": content}
