"""What a response is made of, and by whom."""

import asyncio
import json
import threading

import numpy as np
import pytest
from starlette.requests import Request

from landmark_onnx.errors import SessionError
from landmark_onnx.inference.requests import ImageOutcome
from landmark_onnx.results import Embedding, Failure, Timing
from landmark_onnx.serving.answering import AnsweredImage, respond, took
from landmark_onnx.serving.payload import Upload
from landmark_onnx.serving.problems import ProblemError


def answered(position, *answers, queue=0.0):
    return AnsweredImage(position, Upload(f"{position}.jpg"), ImageOutcome(answers, (4, 3), queue))


def embedding(*times, size=2):
    return Embedding(vector=np.ones(size, np.float32), time=Timing(*times) if times else None)


def responded(images, tell=lambda image: {"values": image.only().vector.size}):
    request = Request({"type": "http", "state": {"request_id": "r"}})
    return asyncio.run(respond(request, images, {"model": "m"}, tell))


def test_seconds_are_those_of_all_images_and_one_decoding_for_all_models():
    one = answered(0, embedding(0.5, 1, 2, 4), embedding(0.5, 8, 16, 32), queue=0.25)
    other = answered(1, embedding(0.125, 1, 1, 1), queue=1)
    refused = AnsweredImage(2, Upload(""), ProblemError("bad-image", "no"))
    wanted = {"queue": 1.25, "decode": 0.625, "preprocess": 10, "inference": 19, "postprocess": 37}
    assert took([one, other, refused]) == wanted


@pytest.mark.parametrize(("count", "in_thread"), [(1, False), (40, True)])
def test_a_large_answer_is_written_in_a_thread(count, in_thread):
    writers = set()

    def tell(image):
        writers.add(threading.current_thread())
        return image.only().to_json()

    responded([answered(at, embedding(size=512)) for at in range(count)], tell)
    assert (writers != {threading.main_thread()}) == in_thread


def test_a_fault_of_the_server_is_logged_and_not_told_as_one_of_the_images(caplog):
    failures = [answered(at, Failure(image="", error="/secret/model.onnx: no", kind=SessionError)) for at in range(2)]
    with pytest.raises(ProblemError) as raised:
        responded(failures)
    assert raised.value.status == 500
    assert "secret" not in raised.value.detail
    assert "/secret/model.onnx: no" in caplog.text
    response = responded([answered(0, embedding()), *failures[1:]])
    assert response.headers["failed-images"] == "1"
    good, bad = json.loads(response.body)["results"]
    assert good == {"position": 0, "image": "0.jpg", "size": [4, 3], "values": 2}
    assert (bad["problem"]["status"], bad["problem"]["instance"]) == (500, "r")
    assert "secret" not in json.dumps(bad)
