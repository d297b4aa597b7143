"""What a service says of itself, and its page."""

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

import fakes
import hosted
from hosted import JPEG, PNG, Client, png
from landmark_onnx.modelfile.metadata import read_seal
from landmark_onnx.serving.page_files import PAGE_HEADERS, page_files
from landmark_onnx.serving.settings import Limits

PHOTO = fakes.photo(90, 120)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return hosted.models_in(tmp_path_factory.mktemp("models"))


@pytest.fixture
def service(models):
    with hosted.service_of(models) as service:
        yield service


def test_health_is_about_the_process_and_readiness_about_requests(service):
    client = Client(service)
    for path, wanted in (
        ("/healthz", {"status": "ok"}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (200, wanted)


@pytest.mark.parametrize("state", [{"ready": False}, {"draining": True}])
def test_who_is_not_ready_says_so_and_lives(state, service):
    for name, value in state.items():
        setattr(service.lifecycle, name, value)
    answer = Client(service).get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"live": True, "ready": False})
    assert Client(service).get("/healthz").status_code == 200


def test_what_is_served_is_said_without_a_path(models, tmp_path):
    with hosted.service_of(models, limits=Limits(timeout=7), key_required=True) as service:
        answer = Client(service).get("/v1/info")
    info = answer.json()
    [retriever, *_] = info["models"]
    assert retriever == {
        "name": fakes.RETRIEVAL,
        "sha256": read_seal(models[0].session.path).sha256,
        "task": "retrieval",
        "precision": "fp32",
        "provider": "CPUExecutionProvider",
    }
    assert [each["task"] for each in info["models"]] == ["retrieval", "cls", "det"]
    assert info["limits"] == Limits(timeout=7).to_json()
    assert info["queue"] == {"images": 0, "seconds": 0}
    assert info["key_required"] is True
    assert str(models[0].session.path.parent) not in answer.text


def test_the_description_is_not_made_on_the_loop(service):
    client, threads = Client(service), []
    client.app.openapi = lambda: threads.append(threading.current_thread()) or {}
    assert client.get("/openapi.json").json() == {}
    assert threads != [threading.main_thread()]


def test_what_was_answered_is_counted(models):
    with hosted.counted_service_of(models) as service:
        client = Client(service)
        client.post("/v1/embed", content=png(PHOTO), headers=PNG)
        client.post("/v1/embed", content=b"\xff\xd8\xff", headers=JPEG)
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, sample.labels.get("model"), sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    name = fakes.RETRIEVAL
    assert samples["landmark_onnx_images_total", name, "ok"] == 1
    assert samples["landmark_onnx_images_total", name, "failed"] == 1
    assert samples["landmark_onnx_inference_seconds_count", name, None] == 1
    assert samples["landmark_onnx_preprocess_seconds_count", name, None] == 1
    assert samples["landmark_onnx_postprocess_seconds_count", name, None] == 1
    assert samples["landmark_onnx_decode_seconds_count", None, None] == 2


@pytest.mark.parametrize("path", sorted(page_files()))
def test_a_file_of_the_page_is_sent_once_to_who_keeps_it(path, service):
    client = Client(service, page=True)
    answer, file = client.get(path), page_files()[path]
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (200, file.data, file.etag)
    assert answer.headers["content-type"] == file.media_type
    assert answer.headers["cache-control"] == "no-cache"
    assert PAGE_HEADERS.items() <= {name.title(): value for name, value in answer.headers.items()}.items()
    for known in (file.etag, f'"other", W/{file.etag}', "*"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", file.etag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    head = client("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")


def test_there_are_no_other_files(service):
    client = Client(service, page=True)
    for path in ("/assets/", "/assets/index.html", "/assets/../service.py", "/assets/%2e%2e/service.py", "/index.html"):
        assert client.get(path).status_code == 404


def test_without_the_page_there_is_none(service):
    assert [Client(service).get(path).status_code for path in page_files()] == [404] * len(page_files())


def test_nobody_is_sent_to_another_address(service):
    """It would be one without the TLS of a proxy."""
    client = Client(service, page=True)
    for path in ("/v1/indexes/", "/v1/embed/", "/healthz/"):
        answer = client.post(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_the_pages_of_the_framework_are_not_there(service):
    client = Client(service, page=True)
    assert [client.get(path).status_code for path in ("/docs", "/redoc", "/docs/oauth2-redirect")] == [404] * 3
