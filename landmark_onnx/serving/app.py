"""The application: all routes of a service, its errors as problems, its description."""

import functools

from fastapi import FastAPI

from landmark_onnx.serving import problems, routes_indexes, routes_info, routes_models, routes_page, routes_search
from landmark_onnx.serving.openapi import describe
from landmark_onnx.serving.service import Service

ROUTERS = (routes_info.router, routes_models.router, routes_search.router, routes_indexes.router)
"""What makes the routes of a service."""


def build_app(service: Service, *, page: bool, metrics: bool = True) -> FastAPI:
    """The application of a service. page, metrics: whether it has the page too, at /, and /metrics."""
    # FastAPI's own pages about the description are loaded from elsewhere, and its redirects forget a proxy's TLS.
    app = FastAPI(title="landmark-onnx", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for make in ROUTERS:
        app.include_router(make(service))
    if metrics:
        app.include_router(routes_info.metrics_router(service))
    if page:
        app.include_router(routes_page.router())
    app.openapi = functools.cache(functools.partial(describe, app))  # type: ignore[method-assign]
    problems.install(app)
    return app
