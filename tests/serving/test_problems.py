"""Errors as a program reads them: each kind, each source, and that nothing of ours is told."""

import json
import logging

import pytest
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, ValidationError
from starlette.testclient import TestClient

from landmark_onnx.errors import (
    ClientQueueFullError,
    DeadlineError,
    ImageError,
    LandmarkError,
    QueueFullError,
    SchedulerClosedError,
    SessionError,
    StepError,
    TooLateError,
    UnknownModelError,
)
from landmark_onnx.serving.problems import (
    KINDS,
    MEDIA_TYPE,
    ProblemError,
    install,
    instance,
    invalid,
    pointer,
    problem_of,
)

UUID = "123e4567-e89b-42d3-a456-426614174000"


class Options(BaseModel, extra="forbid"):
    top: int = 1


def app_that_raises(error: Exception) -> TestClient:
    app = FastAPI()
    install(app)

    @app.api_route("/", methods=["GET", "POST"])
    def fail(top: int = Query(default=1, le=9)) -> None:
        raise error

    @app.post("/options")
    def options(options: Options) -> None:
        """Takes a body."""

    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_an_answer_of_its_status(kind):
    answer = app_that_raises(ProblemError(kind, "because")).get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (KINDS[kind].status, MEDIA_TYPE)
    assert answer.json() == {
        "type": f"urn:x-landmark-onnx:{kind}",
        "title": KINDS[kind].title,
        "status": KINDS[kind].status,
        "detail": "because",
    }


def test_all_that_a_problem_can_say():
    errors = [{"detail": "wanted a number", "pointer": "#/options/top"}]
    problem = ProblemError("queue-full", "a", limit=2, got=3, retry_after=10, errors=errors, headers={"X": "y"})
    said = problem.to_json(UUID)
    assert 10 <= said.pop("retry_after") <= 12
    assert said == {
        "type": "urn:x-landmark-onnx:queue-full",
        "title": "The queue is full",
        "status": 503,
        "detail": "a",
        "instance": f"urn:uuid:{UUID}",
        "limit": 2,
        "got": 3,
        "errors": errors,
    }
    assert problem.headers == {"X": "y", "Retry-After": str(problem.retry_after)}


@pytest.mark.parametrize(
    ("estimate", "least", "most"),
    [(0, 1, 2), (-5, 1, 2), (0.2, 1, 2), (30, 30, 36), (1e9, 60, 72), (float("nan"), 60, 72)],
)
def test_retry_after_is_a_minute_at_most_and_spread(estimate, least, most):
    said = {ProblemError("queue-full", "", retry_after=estimate).retry_after for _ in range(200)}
    assert all(least <= seconds <= most for seconds in said)
    assert len(said) > 1 or most == least + 1


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        (UUID, f"urn:uuid:{UUID}"),
        ("a.b-c_1", "a.b-c_1"),
        ("-" * 36, "-" * 36),
        (UUID.replace("-", ""), UUID.replace("-", "")),
    ],
)
def test_the_instance_is_the_requests_id(given, uri):
    assert instance(given) == uri


@pytest.mark.parametrize(
    ("error", "kind", "detail"),
    [
        (ImageError("a.jpg: truncated"), "bad-image", "a.jpg: truncated"),
        (StepError("no step 'a'"), "invalid", "no step 'a'"),
        (UnknownModelError("no model 'a'"), "not-found", "no model 'a'"),
        (DeadlineError("60 s have passed"), "timeout", "60 s have passed"),
        (SchedulerClosedError("it ends"), "draining", "it ends"),
        (HTTPException(404), "not-found", "no such address"),
        (HTTPException(418, "teapot"), "bad-request", "teapot"),
        (HTTPException(413, "big"), "body-too-large", "big"),
    ],
)
def test_what_the_sender_can_change_is_told(error, kind, detail):
    said = app_that_raises(error).get("/").json()
    assert (said["type"], said["detail"]) == (f"urn:x-landmark-onnx:{kind}", detail)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(QueueFullError, "queue-full"), (ClientQueueFullError, "client-queue-full"), (TooLateError, "too-late")],
)
def test_a_scheduler_that_takes_no_more_says_its_limit_and_when_to_come_again(error, kind):
    answer = app_that_raises(error("no more", limit=3, retry_after=10)).get("/")
    said = answer.json()
    assert (said["type"], said["detail"], said["limit"]) == (f"urn:x-landmark-onnx:{kind}", "no more", 3)
    assert 10 <= said["retry_after"] == int(answer.headers["retry-after"]) <= 12


@pytest.mark.parametrize(
    "error",
    [
        ValueError("/secret/path"),
        MemoryError("/secret"),
        SessionError("/secret/model.onnx"),
        LandmarkError("/secret"),
        HTTPException(500, "/secret"),
        ValidationError.from_exception_data("secret", []),
    ],
)
def test_of_an_error_of_ours_the_answer_has_the_id_alone_and_the_log_the_rest(error, caplog):
    caplog.set_level(logging.ERROR)
    answer = app_that_raises(error).get("/")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["type"] == "urn:x-landmark-onnx:internal"
    assert any(record.exc_info and record.exc_info[1] is error for record in caplog.records)


def test_values_that_the_framework_refuses_are_pointed_at_and_not_repeated():
    client = app_that_raises(ValueError())
    for answer, place in (
        (client.get("/?top=secret"), "#/query/top"),
        (client.get("/?top=10"), "#/query/top"),
        (client.post("/options", json={"top": "secret"}), "#/body/top"),
        (client.post("/options", json={"secret_key": 1}), "#/body/secret_key"),
        (client.post("/options", content=b"{"), "#/body"),
    ):
        assert answer.status_code == 422
        assert [each["pointer"] for each in answer.json()["errors"]] == [place]
        assert "secret" not in answer.json()["errors"][0]["detail"]


def test_a_model_of_pydantic_says_where_its_values_stand():
    with pytest.raises(ValidationError) as error:
        Options.model_validate({"top": "x", "a/b": 1})
    problem = invalid(error.value, "options")
    assert [each["pointer"] for each in problem.errors] == ["#/options/top", "#/options/a~1b"]
    assert problem.detail == "2 values: #/options/top, #/options/a~1b"


def test_a_key_that_somebody_sent_is_cut():
    assert pointer("a" * 1_000_000) == "#/" + "a" * 100


def test_methods_that_are_not_there():
    answer = app_that_raises(ValueError()).delete("/")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "POST"}
    assert json.loads(answer.text)["type"] == "urn:x-landmark-onnx:method-not-allowed"


def test_a_problem_is_told_as_it_is():
    problem = ProblemError("timeout", "a")
    assert problem_of(problem) is problem
