"""The page: the files that `page_files` lists, and nothing else."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from landmark_onnx.serving.page_files import PAGE_HEADERS, PageFile, page_files


def router() -> APIRouter:
    """The routes of the page, whose files are read now."""
    routes = APIRouter(include_in_schema=False)
    for path, file in page_files().items():
        routes.add_api_route(path, _handler(file), methods=["GET", "HEAD"])
    return routes


def _handler(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    headers = {**PAGE_HEADERS, "ETag": file.etag, "Cache-Control": "no-cache"}

    async def answer(request: Request) -> Response:
        known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
        if file.etag in known or known == ["*"]:
            return Response(status_code=304, headers=headers)
        return Response(file.data, media_type=file.media_type, headers=headers)

    return answer
