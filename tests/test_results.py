import dataclasses
import json

import numpy as np
import pytest

from landmark_onnx.results import Classification, Detections, Embedding, Failure, Similarity, Timing, named

TIME = Timing(0.0012345678, 0.5, 0, 2)
RESULTS = [
    (Embedding(vector=np.array([1, 0.5], np.float32)), {"embedding": [1.0, 0.5]}),
    (Similarity(query="q.jpg", cosine=0.25), {"query": "q.jpg", "cosine": 0.25}),
    (
        Classification(indices=np.array([3, 1]), scores=np.array([0.5, 0.25], np.float32), names=("three", None)),
        {"labels": [{"index": 3, "score": 0.5, "name": "three"}, {"index": 1, "score": 0.25, "name": None}]},
    ),
    (
        Detections(
            boxes=np.array([[1, 2, 3.5, 4]], np.float32),
            classes=np.array([9]),
            scores=np.array([0.75], np.float32),
            names=("Car",),
        ),
        {"detections": [{"category_id": 9, "name": "Car", "bbox": [1.0, 2.0, 3.5, 4.0], "score": 0.75}]},
    ),
]


@pytest.mark.parametrize(("result", "wanted"), RESULTS)
def test_json_is_what_was_promised(result, wanted):
    named_result = result.of("a.jpg", TIME)
    assert json.loads(json.dumps(named_result.to_json())) == {"image": "a.jpg"} | wanted
    assert named_result.time is TIME
    assert result.image == ""
    assert result.time is None


@pytest.mark.parametrize(("result", "_"), RESULTS)
def test_results_are_frozen(result, _):
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.image = "b.jpg"


def test_the_keys_of_a_similarity_come_in_the_order_of_the_question():
    assert list(Similarity(query="q", cosine=1.0).to_json()) == ["query", "image", "cosine"]


def test_failure():
    assert Failure(image="a.jpg", error="gone").to_json() == {"image": "a.jpg", "error": "gone"}


def test_timing_is_in_milliseconds():
    assert TIME.to_json() == {"decode_ms": 1.235, "preprocess_ms": 500.0, "inference_ms": 0, "postprocess_ms": 2000.0}


def test_named():
    assert named({1: "one"}, np.array([2, 1])) == (None, "one")
    assert named({}, np.array([], np.int64)) == ()
