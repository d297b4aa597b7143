"""Connections: their deadlines, what is no HTTP, and the end of a server in a thread."""

import pytest
from fastapi import FastAPI, Request

from landmark_onnx.serving.problems import install
from serving_client import request, running


def app() -> FastAPI:
    made = FastAPI(docs_url=None, redoc_url=None)
    install(made)

    @made.get("/things/{name}")
    def thing(name: str) -> dict[str, str]:
        return {"name": name}

    @made.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    return made


@pytest.fixture(scope="module")
def server():
    with running(app()) as served:
        yield served


def test_every_answer_has_an_id_and_the_headers_of_a_careful_server(server):
    answer = server.ask("GET", "/things/a")
    assert (answer.status, answer.json) == (200, {"name": "a"})
    assert len(answer.headers["x-request-id"]) == 36
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


def test_a_body_is_read(server):
    assert server.ask("POST", "/echo", b"abc").json == 3


def test_what_the_framework_refuses_is_a_problem(server):
    assert server.ask("GET", "/nothing").kind == "not-found"
    answer = server.ask("POST", "/things/a")
    assert (answer.kind, answer.headers["allow"]) == ("method-not-allowed", "GET")


def test_a_connection_whose_body_was_not_read_takes_no_other_request(server):
    with server.wire(request("POST", "/nothing", b"abc"), request("GET", "/things/a")) as wire:
        assert wire.answer().headers["connection"] == "close"
        assert wire.closed
