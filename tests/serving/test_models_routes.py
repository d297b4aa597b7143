"""embed, classify, detect and compare over HTTP: the library's own answers, whichever way they are asked for."""

import base64
import json

import numpy as np
import pytest

import fakes
import hosted
from encoded import encode
from hosted import JPEG, PNG, Client, png
from landmark_onnx.images.crop import crop
from landmark_onnx.inference.postprocess import cosine
from landmark_onnx.model import Classifier, Retriever
from landmark_onnx.modelfile.metadata import read_seal
from landmark_onnx.serving.settings import Limits

PHOTO, OTHER = fakes.photo(90, 120), fakes.photo(70, 100, seed=5)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return hosted.models_in(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def client(models):
    with hosted.service_of(models) as service:
        yield Client(service)


def uri(image):
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def ok(response):
    assert response.status_code == 200, response.text
    return response.json()


def problem(response, status, kind):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    said = response.json()
    assert said["type"] == f"urn:x-landmark-onnx:{kind}"
    return said["detail"]


# --- Answers ---


def test_an_embedding_is_the_retrievers_to_the_bit(client, models):
    answer = ok(client.post("/v1/embed", content=png(PHOTO), headers=PNG))
    [result] = answer["results"]
    np.testing.assert_array_equal(np.array(result.pop("embedding"), np.float32), models[0](PHOTO).vector)
    assert result == {"position": 0, "image": "", "size": [120, 90]}
    assert answer["model"] == {"name": fakes.RETRIEVAL, "sha256": read_seal(models[0].session.path).sha256}
    took = answer["took"]
    assert set(took) == {"queue", "decode", "preprocess", "inference", "postprocess"}
    assert min(took.values()) >= 0 < took["decode"]


def test_classes_and_boxes_are_those_of_the_models(client, models):
    [classified] = ok(client.post("/v1/classify", content=png(PHOTO), headers=PNG))["results"]
    assert classified["labels"] == models[1](PHOTO).to_json()["labels"]
    assert {label["index"]: label["name"] for label in classified["labels"]}[2] == "dome"
    [detected] = ok(client.post("/v1/detect", content=png(PHOTO), headers=PNG))["results"]
    assert detected["detections"] == models[2](PHOTO).to_json()["detections"]
    assert detected["detections"]


def test_the_first_image_is_compared_with_the_others(client, models):
    files = [("image", (f"{name}.png", png(image))) for name, image in (("a", PHOTO), ("b", OTHER), ("c", PHOTO))]
    first, second = ok(client.post("/v1/compare", files=files))["results"]
    wanted = cosine(models[0](PHOTO).vector, models[0](OTHER).vector)
    assert first == {"position": 1, "image": "b.png", "size": [100, 70], "query": "a.png", "cosine": wanted}
    assert (second["position"], second["cosine"]) == (2, pytest.approx(1))


def test_raw_bytes_a_form_and_json_have_one_answer(client):
    options = {"top": 3, "crop": [5, 6, 50, 40]}
    raw = client.post("/v1/classify?top=3&crop=5,6,50,40", content=png(PHOTO), headers=PNG)
    form = client.post("/v1/classify", files={"image": ("", png(PHOTO)), "options": (None, json.dumps(options))})
    asked = {"images": [{"data": uri(PHOTO)}], "options": options}
    answers = [ok(response)["results"] for response in (raw, form, client.post("/v1/classify", json=asked))]
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0][0]["labels"]) == 3


def test_images_of_a_request_are_answered_in_its_order(client, models):
    images = [fakes.photo(60 + 9 * at, 80, seed=at) for at in range(7)]
    asked = {"images": [{"data": uri(image), "name": f"{at}.png"} for at, image in enumerate(images)]}
    results = ok(client.post("/v1/embed", json=asked))["results"]
    assert [result["position"] for result in results] == list(range(7))
    for at, (result, image) in enumerate(zip(results, images, strict=True)):
        assert (result["image"], result["size"]) == (f"{at}.png", [80, 60 + 9 * at])
        np.testing.assert_array_equal(np.array(result["embedding"], np.float32), models[0](image).vector)


@pytest.mark.parametrize(
    ("asked", "box"),
    [
        ([10, 6, 50, 40], (10, 6, 60, 46)),
        ([10.5, 11.5, 40, 30.9], (10.5, 11.5, 50.5, 42.4)),
        ([-5, 30, 1000, 1000], (-5, 30, 995, 1030)),
        ([0.25, 0.1, 0.5, 0.3, "relative"], (0.25 * 120, 0.1 * 90, 0.25 * 120 + 0.5 * 120, 0.1 * 90 + 0.3 * 90)),
    ],
)
def test_a_region_is_the_crop_asked_by_itself(asked, box, client, models):
    image = {"data": uri(PHOTO), "crop": asked}
    [result] = ok(client.post("/v1/embed", json={"images": [image]}))["results"]
    wanted = models[0](np.ascontiguousarray(crop(PHOTO, box, "")))
    np.testing.assert_array_equal(np.array(result["embedding"], np.float32), wanted.vector)
    assert (result["crop"], result["size"]) == (asked, [120, 90])


def test_each_image_has_a_region_of_its_own(client, models):
    images = [
        {"data": uri(PHOTO), "crop": [0, 0, 60, 60]},
        {"data": uri(PHOTO)},
        {"data": uri(OTHER), "crop": [9, 9, 40, 40]},
    ]
    results = ok(client.post("/v1/embed", json={"images": images}))["results"]
    for result, pixels in zip(results, (PHOTO[:60, :60], PHOTO, OTHER[9:49, 9:49]), strict=True):
        wanted = models[0](np.ascontiguousarray(pixels)).vector
        np.testing.assert_array_equal(np.array(result["embedding"], np.float32), wanted)


# --- Options ---


def test_base64_is_the_same_vector(client, models):
    [result] = ok(client.post("/v1/embed?encoding=base64", content=png(PHOTO), headers=PNG))["results"]
    assert result["encoding"] == "base64"
    vector = np.frombuffer(base64.b64decode(result["embedding"], validate=True), "<f4")
    np.testing.assert_array_equal(vector, models[0](PHOTO).vector)


@pytest.mark.parametrize(("top", "count"), [(1, 1), (6, 6), (7, 7), (1000, 7)])
def test_as_many_classes_as_are_asked_for(top, count, client, models, tmp_path):
    [result] = ok(client.post(f"/v1/classify?top={top}", content=png(PHOTO), headers=PNG))["results"]
    own = Classifier(models[1].session.path, top=count, provider="cpu")
    assert result["labels"] == own(PHOTO).to_json()["labels"]
    assert len(result["labels"]) == count


def test_boxes_of_less_than_a_score_are_left_out(client, models):
    every = models[2](PHOTO).to_json()["detections"]
    least = sorted(box["score"] for box in every)[len(every) // 2]
    asked = {"images": [{"data": uri(PHOTO)}], "options": {"min_score": least}}
    [result] = ok(client.post("/v1/detect", json=asked))["results"]
    assert result["detections"] == [box for box in every if box["score"] >= least]
    assert 0 < len(result["detections"]) < len(every)
    [nothing] = ok(client.post("/v1/detect?min_score=1", content=png(PHOTO), headers=PNG))["results"]
    assert nothing["detections"] == []


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("classify", {"top": 0}),
        ("classify", {"top": 1001}),
        ("classify", {"top": "5"}),
        ("classify", {"top": 2.5}),
        ("classify", {"top": True}),
        ("embed", {"encoding": "hex"}),
        ("embed", {"top": 5}),
        ("embed", {"url": "http://127.0.0.1/a.jpg"}),
        ("embed", {"timeout": 0}),
        ("embed", {"timeout": -1}),
        ("embed", {"timeout": 61}),
        ("embed", {"model": 5}),
        ("embed", {"model": "m" * 256}),
        ("detect", {"min_score": -0.1}),
        ("detect", {"min_score": 1.1}),
        ("embed", {"crop": [0, 0, 0, 5]}),
        ("embed", {"crop": [0, 0, 5]}),
        ("embed", {"crop": "all"}),
    ],
)
def test_an_option_that_is_not_allowed_is_refused_by_its_place(path, options, client):
    response = client.post(f"/v1/{path}", json={"images": [{"data": uri(PHOTO)}], "options": options})
    [key] = options
    assert key in problem(response, 422, "invalid")
    if key != "timeout" or options[key] <= 0:
        assert response.json()["errors"][0]["pointer"] == f"#/options/{key}"


def test_a_model_is_chosen_by_its_name(client, tmp_path, models):
    other = fakes.small_card("res200_arcmargin")
    second = Retriever(
        fakes.make_retrieval(tmp_path / "second.onnx", model_card=other, seed=3), provider="cpu", batch_size=1
    )
    with hosted.service_of([*models, second]) as service:
        both = Client(service)
        answer = ok(both.post("/v1/embed?model=res200_arcmargin", content=png(PHOTO), headers=PNG))
        np.testing.assert_array_equal(np.array(answer["results"][0]["embedding"], np.float32), second(PHOTO).vector)
        assert answer["model"]["name"] == "res200_arcmargin"
        said = problem(both.post("/v1/embed", content=png(PHOTO), headers=PNG), 422, "invalid")
        assert said.endswith(f"{fakes.RETRIEVAL}, res200_arcmargin")
    assert ok(client.post(f"/v1/embed?model={fakes.RETRIEVAL}", content=png(PHOTO), headers=PNG))
    for name in ("nobody", fakes.CLS):
        said = problem(client.post(f"/v1/embed?model={name}", content=png(PHOTO), headers=PNG), 404, "not-found")
        assert name in said
        assert said.endswith(fakes.RETRIEVAL)


def test_a_task_that_no_model_has_is_not_there(models):
    with hosted.service_of(models[:1]) as service:
        said = problem(Client(service).post("/v1/detect", content=png(PHOTO), headers=PNG), 404, "not-found")
    assert "task det" in said


# --- Failures ---


DAMAGED = encode(".jpg", PHOTO)[:-400]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 422, "bad-image"),
        (b"no image", 415, "unsupported-image"),
        (b"GIF89a" + bytes(60), 415, "unsupported-image"),
        (DAMAGED, 422, "bad-image"),
        (png(fakes.photo(2, 300)), 422, "bad-image"),
    ],
)
def test_the_failure_of_a_single_image_is_that_of_the_request(body, status, kind, client):
    for path in ("embed", "classify", "detect"):
        problem(client.post(f"/v1/{path}", content=body, headers=JPEG), status, kind)


def test_some_that_fail_do_not_hurt_the_others(client, models):
    files = [
        ("image", (name, data)) for name, data in (("a.png", png(PHOTO)), ("b.gif", b"GIF89a"), ("c.jpg", DAMAGED))
    ]
    response = client.post("/v1/embed", files=files)
    good, foreign, damaged = ok(response)["results"]
    assert response.headers["failed-images"] == "2"
    np.testing.assert_array_equal(np.array(good["embedding"], np.float32), models[0](PHOTO).vector)
    assert (foreign["position"], foreign["image"], foreign["problem"]["status"]) == (1, "b.gif", 415)
    assert (damaged["position"], damaged["image"], damaged["problem"]["status"]) == (2, "c.jpg", 422)
    assert damaged["problem"]["detail"].startswith("c.jpg: ")
    assert "failed-images" not in client.post("/v1/embed", files=files[:1]).headers


def test_when_all_fail_the_request_does_and_says_why_of_each(client):
    files = [("image", ("a.gif", b"GIF89a")), ("image", ("b.jpg", DAMAGED))]
    response = client.post("/v1/embed", files=files)
    problem(response, 422, "bad-image")
    assert [each["pointer"] for each in response.json()["errors"]] == ["#/images/0", "#/images/1"]


def test_without_the_first_image_nothing_is_compared(client):
    files = [("image", ("a.gif", b"GIF89a")), ("image", ("b.png", png(PHOTO)))]
    assert "a.gif" in problem(client.post("/v1/compare", files=files), 415, "unsupported-image")
    problem(client.post("/v1/compare", content=png(PHOTO), headers=PNG), 422, "invalid")


def test_a_region_outside_of_the_image_is_its_failure(client):
    for region in ("500,0,10,10", "0,0,1,50", "0,0,119,1", "1e308,0,1e308,9", "-1e308,0,1e308,1,relative"):
        problem(client.post(f"/v1/embed?crop={region}", content=png(PHOTO), headers=PNG), 422, "bad-image")


def test_more_pixels_than_allowed_are_refused_before_they_are_decoded(models):
    options = {"provider": "cpu", "max_pixels": 5000}
    small = Retriever(models[0].session.path, **options)
    with hosted.service_of([small], limits=Limits(pixels=5000)) as service:
        said = problem(Client(service).post("/v1/embed", content=png(PHOTO), headers=PNG), 422, "bad-image")
    assert "over the limit of 5,000" in said


def test_vectors_are_no_images_and_without_an_index_nothing_is_indexed(client):
    problem(client.post("/v1/embed", json={"vectors": [[1.0]]}), 422, "invalid")
    problem(client.post("/v1/embed", json={"images": [{"id": "a"}]}), 404, "not-found")
