"""Numbers for Prometheus: names, units and labels, as its own parser reads them."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from landmark_onnx.results import Timing
from landmark_onnx.serving.lifecycle import Lifecycle
from landmark_onnx.serving.metrics import MEDIA_TYPE, Metrics

NAMES = {
    "http_requests": ("counter", {"method", "route", "status"}),
    "http_request_duration_seconds": ("histogram", {"route"}),
    "http_request_body_bytes": ("histogram", set()),
    "http_connections": ("gauge", set()),
    "images": ("counter", {"model", "outcome"}),
    "queue_images": ("gauge", set()),
    "queue_bytes": ("gauge", set()),
    "queue_wait_seconds": ("histogram", {"model"}),
    "decode_seconds": ("histogram", set()),
    "preprocess_seconds": ("histogram", {"model"}),
    "inference_seconds": ("histogram", {"model"}),
    "postprocess_seconds": ("histogram", {"model"}),
    "batch_images": ("histogram", {"model"}),
    "rejected": ("counter", {"reason"}),
    "disconnects": ("counter", {"stage"}),
    "search_seconds": ("histogram", {"index", "steps"}),
    "search_queries": ("histogram", set()),
    "index_rows": ("gauge", {"index"}),
    "index_generation": ("gauge", {"index"}),
    "index_reloads": ("counter", {"index", "outcome"}),
    "model_loaded": ("gauge", {"model"}),
    "model_load_seconds": ("gauge", {"model"}),
    "draining": ("gauge", set()),
    "build_info": ("gauge", {"version", "runtime", "provider"}),
}


@pytest.fixture
def lifecycle():
    return Lifecycle()


@pytest.fixture
def metrics(lifecycle):
    return Metrics(lifecycle, ["net"])


def samples(metrics):
    """Name -> {labels: value} without the begin that all share."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name.removeprefix("landmark_onnx_"), {})[labels] = sample.value
    return found


def of(found, name, **labels):
    return found.get(name, {}).get(tuple(sorted(labels.items())))


def filled(metrics):
    metrics.answered("GET", "/a", 200, 0.1, 5)
    metrics.rejected("not-found")
    metrics.decoded(0.1)
    metrics.ran("net", 4, 0.2)
    metrics.ran("search", 9, 0.2)
    metrics.ended(["net"], "cancelled", "batch", 0.3)
    metrics.refused(["net"], 3)
    metrics.timed("net", Timing(0.1, 0.2, 0.3, 0.4))
    metrics.watch_queue(lambda: 7, lambda: 8)
    metrics.model_loaded("net", 1.5)
    metrics.searched("places", "alpha-qe", 0.1)
    metrics.index_opened("places", 10, 2)
    metrics.index_reloaded("places", "refused")
    metrics.build("1.0", "onnxruntime 1", "CPU")
    return samples(metrics)


def test_each_has_its_name_its_kind_and_its_labels(metrics):
    filled(metrics)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    own = {name.removeprefix("landmark_onnx_"): each for name, each in families.items() if name.startswith("landmark")}
    assert {
        name: (each.type, {label for sample in each.samples for label in sample.labels} - {"le"})
        for name, each in own.items()
    } == NAMES
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} <= families.keys()
    assert all(each.documentation for each in own.values())


def test_the_text_is_of_the_type_that_is_said():
    assert MEDIA_TYPE.startswith("text/plain; version=0.0.4")


def test_what_is_told_is_counted(metrics):
    found = filled(metrics)
    assert of(found, "http_requests_total", method="GET", route="/a", status="200") == 1
    assert of(found, "http_request_duration_seconds_sum", route="/a") == pytest.approx(0.1)
    assert of(found, "http_request_body_bytes_sum") == 5
    assert of(found, "images_total", model="net", outcome="cancelled") == 1
    assert of(found, "images_total", model="net", outcome="refused") == 3
    assert of(found, "disconnects_total", stage="batch") == 1
    assert of(found, "queue_wait_seconds_sum", model="net") == pytest.approx(0.3)
    assert of(found, "batch_images_sum", model="net") == 4
    assert of(found, "inference_seconds_sum", model="net") == pytest.approx(0.2)
    assert of(found, "preprocess_seconds_sum", model="net") == pytest.approx(0.2)
    assert of(found, "postprocess_seconds_sum", model="net") == pytest.approx(0.4)
    assert (of(found, "queue_images"), of(found, "queue_bytes"), of(found, "search_queries_sum")) == (7, 8, 9)
    assert (of(found, "index_rows", index="places"), of(found, "index_generation", index="places")) == (10, 2)


def test_labels_are_those_of_the_configuration(metrics):
    metrics.ran("other", 1, 0.1)
    metrics.ended(["other"], "ok", "answer", 0.1)
    metrics.refused(["other"], 1)
    metrics.timed("other", Timing(1, 1, 1, 1))
    metrics.answered("BREW", None, 404, 0.1, 0)
    text = metrics.render().decode()
    assert "other" not in text.replace('method="other"', "")
    assert of(samples(metrics), "http_requests_total", method="other", route="none", status="404") == 1
    assert of(samples(metrics), "http_request_body_bytes_count") == 0


def test_what_the_service_is_doing(metrics, lifecycle):
    assert (of(samples(metrics), "http_connections"), of(samples(metrics), "draining")) == (0, 0)
    lifecycle.connections, lifecycle.draining = 3, True
    assert (of(samples(metrics), "http_connections"), of(samples(metrics), "draining")) == (3, 1)


def test_two_services_of_one_process_have_numbers_of_their_own(metrics):
    metrics.rejected("timeout")
    assert "timeout" not in Metrics(Lifecycle()).render().decode()
