"""The description of the service: the one in the repository, and what keeps to it under attack."""

import json
import os
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

import fakes
import hosted
from hosted import Client
from serving_client import running

SNAPSHOT = Path(__file__).with_name("openapi.json")
REFRESH = "REFRESH_OPENAPI"
ATTACKS = [
    pytest.param(path, method, mode, id=f"{method} {path} {mode.value}")
    for path, methods in json.loads(SNAPSHOT.read_text())["paths"].items()
    for method, operation in methods.items()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    # What takes nothing cannot be given what is wrong.
    if mode is GenerationMode.POSITIVE or "requestBody" in operation or len(operation.get("parameters", ())) > 1
]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Of each kind of model one, and an index of some photos."""
    folder = tmp_path_factory.mktemp("service")
    retriever, *others = hosted.models_in(folder)
    live = hosted.index_of(folder / "places", retriever, [fakes.photo(40, 50, seed=seed) for seed in range(5)])
    with hosted.service_of([retriever, *others], indexes={"places": live}) as service:
        yield service


@pytest.fixture(scope="module")
def app(service):
    return Client(service).app


def described(app):
    """The description, without the version of this project."""
    found = json.loads(json.dumps(app.openapi()))
    found["info"].pop("version")
    return found


def test_the_description_is_the_one_in_the_repository(app):
    found = described(app)
    if os.environ.get(REFRESH):
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    remedy = f"{REFRESH}=1 python -m pytest tests/serving/test_openapi.py"
    assert found == json.loads(SNAPSHOT.read_text()), f"the API has changed; if that is meant, refresh it: {remedy}"


def test_every_answer_that_is_no_success_is_a_problem(app):
    for path, methods in described(app)["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and path != "/v2/health/ready":
                    assert list(answer["content"]) == ["application/problem+json"], (path, method, status)
    assert "HTTPValidationError" not in described(app)["components"]["schemas"]


@pytest.fixture(scope="module")
def attacked(service):
    """The description as a server tells it, by which requests to it are made."""
    with running(Client(service).app) as served:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{served.port}/openapi.json")


def attack(attacked, path, method, mode, examples):
    """Whatever is asked: no fault of the server, and no answer that the description has not."""
    operation = attacked[path][method.upper()]

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        # Random bytes are no image, and who gives too little time is told so by 503 or 504.
        response = case.call_and_validate(excluded_checks=[positive_data_acceptance, not_a_server_error])
        assert response.status_code != 500

    ask()


@pytest.mark.parametrize(("path", "method", "mode"), ATTACKS)
def test_what_the_description_allows_and_forbids_is_answered_as_it_says(path, method, mode, attacked):
    attack(attacked, path, method, mode, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method", "mode"), ATTACKS)
def test_under_a_long_attack_too(path, method, mode, attacked):
    attack(attacked, path, method, mode, 300)
