import types

import pytest

from landmark_onnx.errors import AdmissionError, ClientQueueFullError, LandmarkError, QueueFullError, TooLateError
from landmark_onnx.inference import admission as module
from landmark_onnx.inference.admission import UNKNOWN_COST, Admission, Costs, QueueLimits
from landmark_onnx.inference.fair_queue import FairQueue
from landmark_onnx.inference.requests import InferenceRequest


def stage(name="model"):
    return types.SimpleNamespace(name=name)


def request(client="a", *, timeout=float("inf"), stages=None):
    return InferenceRequest(stages or [stage()], client, timeout, None, "a.jpg", ready=True, place="batch")


@pytest.fixture
def admission():
    return Admission(QueueLimits(images=6, client_share=0.5), FairQueue(4))


def test_costs_are_moving_means_of_the_device_or_of_all_decoders(monkeypatch):
    monkeypatch.setattr(module, "decoders", lambda: 2)
    costs = Costs()
    both = [stage("one"), stage("two")]
    assert costs.of(both) == 0
    costs.ran("one", 1.0)
    assert costs.of(both) == 1
    costs.ran("two", 2.0)
    costs.ran("one", 2.0)
    assert costs.of(both) == pytest.approx(3.2)
    costs.decoded(8.0)
    assert costs.of(both) == 4
    assert costs.of(both, decoded=False) == pytest.approx(3.2)
    for _ in range(100):
        costs.ran("one", 0.5)
    assert costs.of([stage("one")], decoded=False) == pytest.approx(0.5)


def test_the_system_is_asked_for_its_cores_once_and_not_by_each_admission(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "decoders", lambda: asked.append(1) or 2)
    admission = Admission(QueueLimits(images=6, client_share=1), FairQueue(4))
    admission.costs.decoded(0.5)
    for _ in range(4):
        admission.admit(InferenceRequest([stage()], "a", 60.0, None, "a.jpg"))
    assert admission.retry_after() == 1
    assert len(asked) == 1


def test_one_client_gets_its_share_and_all_get_the_whole(admission):
    admission.costs.ran("model", 2.0)
    mine = [request() for _ in range(3)]
    for each in mine:
        admission.admit(each)
    with pytest.raises(ClientQueueFullError, match="3 images of this client are queued already") as found:
        admission.admit(request())
    assert (found.value.limit, found.value.retry_after) == (3, 6.0)
    for client in "bcd":
        admission.admit(request(client))
    with pytest.raises(QueueFullError, match="6 images are queued already; try again later") as full:
        admission.admit(request("e"))
    assert (full.value.limit, full.value.retry_after) == (6, 12.0)
    assert isinstance(full.value, AdmissionError)
    assert isinstance(full.value, LandmarkError)
    assert admission.end(mine[0])
    assert not admission.end(mine[0])
    admission.admit(request("e"))
    assert len(admission) == 6


def test_a_deadline_that_cannot_be_held_is_refused_by_what_goes_before(admission):
    admission.admit(request(timeout=0.001))
    assert admission.retry_after() == 0, "while nothing is known, nothing is refused"
    admission.costs.ran("model", 2.0)
    for _ in range(2):
        admission.admit(request(timeout=100))
    with pytest.raises(TooLateError, match=r"about 4 s, longer than the 3 s that it is given") as late:
        admission.admit(request("b", timeout=3))
    assert (late.value.limit, late.value.retry_after) == (3, 6.0)
    admission.admit(request("b", timeout=5))


def test_the_share_of_few_is_one():
    assert QueueLimits(images=1).client_images == 1
    assert QueueLimits().client_images == 128


def test_numbers_are_charged_by_cost(admission):
    first, second = request(), request()
    admission.admit(first)
    assert first.number == UNKNOWN_COST
    admission.costs.ran("model", 2.0)
    admission.admit(second)
    assert second.number == pytest.approx(UNKNOWN_COST + 2)
