"""What an index answers over HTTP is what the command line answers."""

import base64
import dataclasses
import io
import json
import sys
import tarfile
import threading
from urllib.parse import quote

import numpy as np
import PIL.Image
import pytest

import fakes
import hosted
from encoded import encode, jpeg_with_exif
from hosted import Client
from landmark_onnx.embedding.feature_folder import Batch
from landmark_onnx.embedding.identity import identify
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.inference.admission import QueueLimits
from landmark_onnx.inference.scheduler import Scheduler
from landmark_onnx.model import Classifier, Retriever
from landmark_onnx.recognition.recognizer import FramingDetector, Recognizer, Voter
from landmark_onnx.recognition.rules import Rule
from landmark_onnx.search import qdrant, writer
from landmark_onnx.search.ensemble import Ensemble, Member
from landmark_onnx.search.hnsw import GraphOptions
from landmark_onnx.search.qdrant_place import Place
from landmark_onnx.search.queries import Queries, embedded
from landmark_onnx.search.rerank.chain import parse_steps
from landmark_onnx.serving.indexed import indexed_image
from landmark_onnx.serving.live_index import LabelSource, LiveIndex
from landmark_onnx.serving.schema_info import Information
from landmark_onnx.serving.service import RecognitionRules

pytest.importorskip("faiss")

A, B = "res152_arcmargin", "res200_arcmargin"
PLACES = ("arch", "dome", "gate")
ODD = ("../etc/passwd", "a/b?c=d&e=%41#f+g h", "öß\u200f塔", "\udcff\udcfe.jpg", "..")
"""Ids of the last five images."""
ALL = [f"{place}-{number}" for place in PLACES for number in range(4)] + list(ODD)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos, of which each differs, an index of two models, and labels of some."""
    folder = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for number in range(len(ALL) + 3):
        pixels = rng.integers(0, 20, (70, 90, 3)) + rng.integers(0, 236, 3)
        write_image(folder / "photos" / f"{number:02d}.png", pixels.astype(np.uint8))
    (folder / "photos" / "12.png").write_bytes(
        jpeg_with_exif(encode(".jpg", fakes.photo(1400, 2100)), 6, thumbnail=b"GPS")
    )
    for seed, name in enumerate((A, B)):
        fakes.make_retrieval(folder / f"{name}.onnx", model_card=fakes.small_card(name), dim=32, seed=seed)
    fakes.make_cls(folder / "cls.onnx", classes=9, labels=dict(enumerate((*PLACES, *"uvwxyz"))))
    fakes.make_det(folder / "det.onnx", labels={1: "Person", 2: "Tower"})
    labels = "".join(f"{name},{name.partition('-')[0]}\n" for name in ALL[:10])
    (folder / "labels.csv").write_text("id,label\n" + labels)
    return folder


@pytest.fixture(scope="module")
def models(place):
    """By what the tests call them; the classifier answers more than votes."""
    return {
        "a": Retriever(place / f"{A}.onnx"),
        "b": Retriever(place / f"{B}.onnx"),
        "cls": Classifier(place / "cls.onnx", top=9),
        "det": FramingDetector(place / "det.onnx"),
    }


def photo(place, number):
    return place / "photos" / f"{number:02d}.png"


def build(place, models, name, ids, keys="ab", **how):
    retrievers = {models[key].card.name: models[key] for key in keys}
    photos = [str(photo(place, ALL.index(each))) for each in ids]
    vectors = {key: np.stack([answer.vector for answer in retriever(photos)]) for key, retriever in retrievers.items()}
    ensemble = Ensemble(tuple(Member(identify(each)) for each in retrievers.values()))
    writer.build(place / name, ensemble, [Batch(list(ids), photos, vectors)], **how)


@pytest.fixture(scope="module")
def indexes(place, models):
    build(place, models, "places", ALL, graph=GraphOptions())
    build(place, models, "bare", ALL[:5])
    build(place, models, "other", ALL[:5], keys="a")
    found = {
        "places": LiveIndex("places", place / "places", labels=LabelSource(labels=str(place / "labels.csv"))),
        "bare": LiveIndex("bare", place / "bare"),
        "other": LiveIndex("other", place / "other"),
    }
    for live in found.values():
        live.serve_with([identify(models[key]) for key in "ab"])
    return found


RULES = (Rule(name="people", classes=frozenset({"person"}), score=0.01, area=0.01),)


@pytest.fixture(scope="module")
def service(models, indexes):
    recognition = RecognitionRules(
        voters=(Voter(name=models["cls"].card.name, classifier=models["cls"], weight=0.5, top=5),),
        detector=models["det"],
        rules=RULES,
        neighbours=3,
    )
    with hosted.service_of(models.values(), indexes=indexes, recognition=recognition) as service:
        yield service


@pytest.fixture(scope="module")
def client(service):
    return Client(service)


def posted(client, path, photos, wanted=200, **options):
    """What is answered to photos in a form."""
    files = [("image", (each.name, each.read_bytes())) for each in photos]
    response = client.post(path, files=[*files, ("options", (None, json.dumps(options)))])
    assert response.status_code == wanted, response.text
    return response.json()


def asked(client, body, path="/v1/search", wanted=200):
    response = client.post(path, json=body)
    assert response.status_code == wanted, response.text
    return response.json()


def close(answer):
    """Without the last bits, which differ with the batch that made a vector."""
    return json.loads(json.dumps(answer), parse_float=lambda text: pytest.approx(float(text), abs=2e-6))


def searched(indexes, models, place, photos, top, name="places", **how):
    """What `landmark-onnx search` answers: (id, score) of each."""
    index = indexes[name].current.index
    retrievers = {models[key].card.name: models[key] for key in "ab"}
    found = []
    for part in embedded([str(each) for each in photos], index.ensemble, retrievers):
        if isinstance(part, Queries):
            found += index.answer(part, top, **how)
    return [[(hit.rank, hit.id, pytest.approx(hit.score, abs=2e-6)) for hit in answer.hits] for answer in found]


def told(answer):
    return [[(hit["rank"], hit["id"], hit["score"]) for hit in result["neighbours"]] for result in answer["results"]]


QUERIES = range(len(ALL), len(ALL) + 3)


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({"top": 5}, {}),
        ({"top": 1000}, {}),
        ({"top": 7, "approximate": True}, {"approximate": True}),
        ({"top": 4, "steps": ["alpha-qe:k=3", "k-reciprocal:k1=4,candidates=10"]}, {"steps": True}),
    ],
)
def test_search_answers_as_the_command_line(client, indexes, models, place, options, how):
    photos = [photo(place, number) for number in QUERIES]
    if "steps" in how:
        how = {"steps": parse_steps(options["steps"])}
    got = posted(client, "/v1/search", photos, index="places", **options)
    assert told(got) == searched(indexes, models, place, photos, options["top"], **how)
    assert [result["image"] for result in got["results"]] == [each.name for each in photos]
    assert [result["position"] for result in got["results"]] == [0, 1, 2]
    assert got["results"][0]["size"] == [90, 70]
    assert got["index"] == {"name": "places", "generation": 1, "rows": len(ALL)}
    assert [model["name"] for model in got["models"]] == [A, B]
    assert got["took"]["search"] > 0


def test_an_image_alone_and_its_options_in_the_query(client, indexes, models, place):
    data = photo(place, QUERIES[0]).read_bytes()
    url = "/v1/search?index=places&top=3&steps=alpha-qe:k=2&steps=superglobal:m=5"
    got = client.post(url, content=data, headers={"Content-Type": "image/png"}).json()
    steps = parse_steps(["alpha-qe:k=2", "superglobal:m=5"])
    assert told(got) == searched(indexes, models, place, [photo(place, QUERIES[0])], 3, steps=steps)


def test_landmarks_and_votes_are_those_of_recognize(client, indexes, models, place):
    """Also where fewer neighbours are asked for than vote, and where a step gives other scores."""
    photos = [photo(place, number) for number in QUERIES]
    recognizer = Recognizer(
        index=indexes["places"].current.index,
        retrievers=[models["a"], models["b"]],
        landmark_of=indexes["places"].current.landmark,
    )
    candidates = [
        [(each.landmark, pytest.approx(each.score, abs=1e-5)) for each in answer.candidates]
        for answer in recognizer.stream(list(map(str, photos)))
    ]
    assert all(candidates)
    for top in (1, 10):
        got = posted(client, "/v1/search", photos, index="places", top=top)
        assert [[(each["landmark"], each["score"]) for each in one["votes"]] for one in got["results"]] == candidates
    hits = got["results"][0]["neighbours"]
    assert [hit["landmark"] for hit in hits] == [indexes["places"].current.landmark(hit["id"]) for hit in hits]
    # The step leaves the order as it was, and gives scores that are no cosines.
    got = posted(client, "/v1/search", photos, index="places", steps=["k-reciprocal:k1=1,k2=1,lambda=1"])
    pairs = zip(hits[1:3], got["results"][0]["neighbours"][1:3], strict=True)
    assert all(abs(one["score"] - other["score"]) > 1e-4 for one, other in pairs)
    assert [[(each["landmark"], each["score"]) for each in one["votes"]] for one in got["results"]] == candidates


def test_without_labels_nobody_votes(client, place):
    got = posted(client, "/v1/search", [photo(place, 1)], index="bare", top=2)
    assert "votes" not in got["results"][0]
    assert set(got["results"][0]["neighbours"][0]) == {"rank", "id", "score"}


def test_no_answer_names_a_path(client, place):
    answers = [
        posted(client, "/v1/search", [photo(place, 1)], index="places"),
        posted(client, "/v1/recognize", [photo(place, 1)], index="places"),
        posted(client, "/v1/search", [photo(place, 1)], 422, index="bare", approximate=True),
        client.get("/v1/indexes").json(),
        client.get("/v1/indexes/places").json(),
    ]
    assert str(place) not in json.dumps(answers)
    assert ".png" not in json.dumps(answers[0]["results"][0]["neighbours"])


# --- Vectors and ids ---


def test_vectors_are_searched_for_as_they_are(client, indexes):
    index = indexes["places"].current.index
    got = asked(client, {"vectors": index.vectors[:3].tolist(), "options": {"index": "places", "top": 4}})
    wanted = index.answer(Queries(["", "", ""], ["", "", ""], np.asarray(index.vectors[:3])), 4)
    assert told(got) == [[(hit.rank, hit.id, hit.score) for hit in answer.hits] for answer in wanted]
    assert [result["position"] for result in got["results"]] == [0, 1, 2]


def test_a_queue_that_is_full_refuses_no_search_whose_image_was_looked_at(service, client, place):
    """Under load it always is: of what was embedded, most was thrown away."""
    with Scheduler(limits=QueueLimits(images=0)) as full:
        crowded = Client(dataclasses.replace(service, searches=full))
        posted(crowded, "/v1/search", [photo(place, 1)], index="places")
        posted(crowded, "/v1/recognize", [photo(place, 1)], index="places")
        response = crowded.get("/v1/indexes/places/search?id=arch-0")
        assert (response.status_code, response.json()["type"]) == (503, "urn:x-landmark-onnx:queue-full")


def test_a_vector_that_cannot_be_is_refused(client, indexes):
    dim = indexes["places"].current.ensemble.dim
    one = [1.0] + [0.0] * (dim - 1)
    for vector in (
        [1.0],
        [1e308] * dim,
        [0.5] * dim,
        [0.0] * dim,
        [1.002, *one[1:]],
        ["1", *one[1:]],
        [True, *one[1:]],
        7,
        None,
    ):
        for vectors in ([vector], [one, vector]):
            asked(client, {"vectors": vectors, "options": {"index": "places"}}, wanted=422)
    asked(client, {"vectors": [[1.0009, *one[1:]]], "options": {"index": "places"}})
    for vectors in ([], [one] * 33):
        asked(client, {"vectors": vectors, "options": {"index": "places"}}, wanted=422)
    asked(client, {"vectors": [one], "options": {"index": "places"}}, "/v1/recognize", wanted=422)


def test_an_answer_repeats_little_of_a_long_request(client):
    names = "&".join(f"n{number}" for number in range(2000))
    for url in (f"/v1/indexes/places/search?id=arch-0&{names}", f"/v1/indexes/places/search?id=a&steps={'x' * 14_000}"):
        response = client.get(url)
        assert response.status_code == 422
        assert len(response.content) < 4000
        assert len(response.json()["errors"]) in (1, 20)


@pytest.mark.parametrize("name", ALL)
def test_an_image_of_the_index_is_found_by_its_id_whatever_it_is(client, indexes, name):
    response = client.get("/v1/indexes/places/search?top=3&id=" + quoted(name))
    got = response.json()
    index = indexes["places"].current.index
    row = ALL.index(name)
    (wanted,) = index.answer(Queries([""], [""], np.asarray(index.vectors[row : row + 1])), 3)
    assert told(got) == [[(hit.rank, hit.id, hit.score) for hit in wanted.hits]]
    assert got["results"][0]["id"] == got["results"][0]["neighbours"][0]["id"] == name


def quoted(name):
    return quote(name, safe="", errors="surrogateescape")


def test_ids_and_images_mix_and_one_that_is_not_there_fails_alone(client, place, indexes, models):
    data = base64.b64encode(photo(place, QUERIES[0]).read_bytes()).decode()
    images = [
        {"id": "arch-1"},
        {"data": f"data:image/png;base64,{data}", "name": "new"},
        {"id": "nowhere"},
        {"id": "arch-1", "index": "bare"},
        {"id": "arch-1", "index": "elsewhere"},
    ]
    response = client.post("/v1/search", json={"images": images, "options": {"index": "places", "top": 2}})
    assert response.headers["Failed-Images"] == "2"
    one, new, missing, other, unknown = response.json()["results"]
    assert one["neighbours"] == other["neighbours"]
    assert (one["id"], one["neighbours"][0]["id"]) == ("arch-1", "arch-1")
    assert told({"results": [new]}) == searched(indexes, models, place, [photo(place, QUERIES[0])], 2)
    assert [each["position"] for each in (one, new, missing, other, unknown)] == [0, 1, 2, 3, 4]
    assert missing["problem"]["status"] == unknown["problem"]["status"] == 404
    asked(client, {"images": [{"id": "nowhere"}], "options": {"index": "places"}}, wanted=404)


def test_a_row_is_searched_for_only_among_vectors_that_are_made_as_it_was(client, place):
    """Of an index of one of the two models."""
    body = {"images": [{"id": "arch-1", "index": "other"}], "options": {"index": "places"}}
    assert "other models" in asked(client, body, wanted=422)["detail"]
    body["options"]["index"] = "other"
    assert asked(client, body)["results"][0]["neighbours"][0]["id"] == "arch-1"


def test_an_answer_has_an_etag_until_the_index_or_the_question_is_another(service, client, indexes):
    url = "/v1/indexes/places/search?id=arch-0"
    first = client.get(url)
    tag = first.headers["etag"]
    assert client.get(url).headers["etag"] == tag
    known = client.get(url, headers={"If-None-Match": f'"x", {tag}'})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    others = (url + "&top=3", url + "&approximate=true", url + "&steps=alpha-qe", "/v1/indexes/places/search?id=arch-1")
    assert len({tag, *(client.get(other).headers["etag"] for other in others)}) == 5
    # Who votes is said at the start, and an answer may be kept for longer than a service runs.
    rules = (
        dataclasses.replace(service.recognition, neighbours=2),
        dataclasses.replace(service.recognition, neighbour_weight=2.0),
    )
    for recognition in rules:
        assert Client(dataclasses.replace(service, recognition=recognition)).get(url).headers["etag"] != tag
    live = indexes["places"]
    before = live._current
    try:
        live._current = dataclasses.replace(before, digest="another")
        assert client.get(url, headers={"If-None-Match": tag}).status_code == 200
    finally:
        live._current = before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/indexes/nowhere", 404),
        ("/v1/indexes/nowhere/search?id=arch-0", 404),
        ("/v1/indexes/nowhere/image?id=arch-0", 404),
        ("/v1/indexes/places/search?id=nowhere", 404),
        ("/v1/indexes/places/image?id=nowhere", 404),
        ("/v1/indexes/places/search", 422),
        ("/v1/indexes/places/search?id=arch-0&id=arch-1", 422),
        ("/v1/indexes/places/search?id=arch-0&top=0", 422),
        ("/v1/indexes/places/search?id=arch-0&top=1001", 422),
        ("/v1/indexes/places/search?id=arch-0&color=red", 422),
        ("/v1/indexes/places/search?id=arch-0&steps=dba", 422),
        ("/v1/indexes/places/search?id=arch-0&steps=alpha-qe&approximate=true", 422),
        ("/v1/indexes/bare/search?id=arch-0&approximate=true", 422),
        ("/v1/indexes/places/image?id=arch-0&side=181", 422),
        ("/v1/indexes/places/image?id=arch-0&side=x", 422),
    ],
)
def test_what_cannot_be_answered_is_a_problem(client, path, status):
    response = client.get(path)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 422),  # there are two
        ({"index": "nowhere"}, 404),
        ({"index": "places", "top": 0}, 422),
        ({"index": "places", "top": True}, 422),
        ({"index": "places", "steps": ["dba:k=2"]}, 422),
        ({"index": "places", "steps": ["diffusion:graph=database"]}, 422),
        ({"index": "places", "steps": ["alpha-qe"] * 4}, 422),
        ({"index": "places", "steps": "alpha-qe"}, 422),
        ({"index": "places", "steps": ["alpha-qe"], "approximate": True}, 422),
        ({"index": "places", "colour": "red"}, 422),
    ],
)
def test_options_that_cannot_be_are_refused(client, place, options, status):
    posted(client, "/v1/search", [photo(place, 1)], status, **options)


def test_an_index_alone_needs_no_name(client, service, place):
    alone = dataclasses.replace(service, indexes={"bare": service.indexes["bare"]})
    assert posted(Client(alone), "/v1/search", [photo(place, 1)])["index"]["name"] == "bare"
    none = dataclasses.replace(service, indexes={})
    posted(Client(none), "/v1/search", [photo(place, 1)], 404)


def test_an_index_in_qdrant_answers_too_but_for_steps(client, service, place, models, indexes, tmp_path):
    pytest.importorskip("qdrant_client")
    local = indexes["other"].current
    batch = Batch(ALL[:5], local.index.sources[:], {A: np.asarray(local.index.vectors)})
    at = Place(url=f"file://{tmp_path}/q", collection="c", following=0, ensemble=local.ensemble)
    qdrant.build(tmp_path / "i", at, [batch]).close()
    live = LiveIndex("q", tmp_path / "i")
    there = Client(dataclasses.replace(service, indexes={"q": live, "other": indexes["other"]}))
    for name in ("q", "other"):
        body = {"images": [{"id": "arch-1"}], "options": {"index": name, "top": 3}}
        (found,) = asked(there, body)["results"]
        assert found["neighbours"][0]["id"] == "arch-1"
    (other,) = asked(there, body)["results"]
    by_id = there.get("/v1/indexes/q/search?id=arch-1&top=3")
    assert "etag" not in by_id.headers
    assert by_id.json()["results"][0]["neighbours"] == close(other)["neighbours"]
    assert there.get("/v1/indexes/q/image?id=arch-1").status_code == 200
    refused = there.get("/v1/indexes/q/search?id=arch-1&steps=alpha-qe")
    assert (refused.status_code, "are in Qdrant" in refused.text) == (422, True)
    assert str(tmp_path) not in refused.text + there.get("/v1/indexes").text
    live.close()


# --- Recognize ---


def test_recognize_answers_as_the_command_line(client, indexes, models, place):
    photos = [photo(place, number) for number in (*QUERIES, 0)]
    snapshot = indexes["places"].current
    classifier = Classifier(place / "cls.onnx")  # with as many classes as the command line asks for
    recognizer = Recognizer(
        index=snapshot.index,
        retrievers=[models["a"], models["b"]],
        landmark_of=snapshot.landmark,
        voters=[Voter(name=classifier.card.name, classifier=classifier, weight=0.5)],
        detector=models["det"],
        rules=RULES,
        labels="labels.csv",
    )
    wanted = [answer.to_json() for answer in recognizer.stream(list(map(str, photos)))]
    got = posted(client, "/v1/recognize", photos, index="places")
    members = [{key: result[key] for key in wanted[0] if key != "image"} for result in got["results"]]
    assert close(members) == [{key: each[key] for key in each if key != "image"} for each in wanted]
    assert any(result["no_landmark"] for result in got["results"])
    assert len(got["results"][0]["classes"]) == 5
    assert [model["name"] for model in got["models"]] == [A, B, fakes.CLS, fakes.DET]


def test_an_image_of_the_index_is_recognized_by_its_neighbours_alone(client, indexes):
    body = {"images": [{"id": "dome-1"}], "options": {"index": "places"}}
    (got,) = asked(client, body, "/v1/recognize")["results"]
    (found,) = asked(client, body | {"options": {"index": "places", "top": 3}})["results"]
    assert got["id"] == "dome-1"
    assert got["classes"] == got["no_landmark"] == []
    assert [vote["id"] for vote in got["neighbours"]] == [hit["id"] for hit in found["neighbours"]]
    assert [{"landmark": each["landmark"], "score": each["score"]} for each in got["candidates"]] == found["votes"]
    assert got["landmark"] == found["votes"][0]["landmark"]


def sent(place, number, **more):
    """A photo in a JSON body."""
    data = base64.b64encode(photo(place, number).read_bytes()).decode()
    return {"data": f"data:image/png;base64,{data}", **more}


@pytest.mark.parametrize("path", ["/v1/search", "/v1/recognize"])
def test_a_part_of_an_indexed_image_is_looked_at_as_if_it_were_sent(client, place, path):
    region = [0.1, 0.2, 0.5, 0.7, "relative"]
    (own,) = asked(client, {"images": [{"id": "dome-1", "crop": region}], "options": {"index": "places"}}, path)[
        "results"
    ]
    options = {"index": "places", "crop": region}
    (theirs,) = asked(client, {"images": [sent(place, ALL.index("dome-1"))], "options": options}, path)["results"]
    assert own.pop("id") == "dome-1"
    assert own == close(theirs)
    assert own["size"] == [90, 70]


@pytest.mark.parametrize(("path", "options"), [("embed", {"model": A}), ("classify", {}), ("detect", {})])
def test_an_indexed_image_may_stand_for_one_that_is_sent(client, place, path, options):
    images = [{"id": "dome-1", "index": "places"}, {"id": "gate-0", "index": "bare"}, {"id": "x", "index": "places"}]
    own = asked(client, {"images": [*images, {"id": "arch-0"}], "options": options}, f"/v1/{path}")["results"]
    theirs = [sent(place, ALL.index("dome-1"))]
    (theirs,) = asked(client, {"images": theirs, "options": options}, f"/v1/{path}")["results"]
    assert own[0] == close(theirs) | {"id": "dome-1"}
    assert [each.get("problem", {}).get("status") for each in own] == [None, 404, 404, 422]


def test_a_file_that_is_gone_is_not_found_and_not_named_until_it_is_known_where_it_is(client, place, models, tmp_path):
    build(place, models, "gone", ALL[:2], keys="a")
    live = LiveIndex("gone", place / "gone")
    photo(place, 0).rename(tmp_path / "elsewhere.png")
    try:
        with hosted.service_of([models["a"]], indexes={"gone": live}) as service:
            problem = asked(Client(service), {"images": [{"id": ALL[0]}]}, "/v1/embed", wanted=404)
            asked(Client(service), {"images": [{"id": ALL[1]}]}, "/v1/embed")
        photo(tmp_path, 0).parent.mkdir()
        (tmp_path / "elsewhere.png").rename(photo(tmp_path, 0))
        moved = ((str(place / "photos"), str(tmp_path / "photos")),)
        with hosted.service_of([models["a"]], indexes={"gone": live}, moved=moved) as service:
            asked(Client(service), {"images": [{"id": ALL[0]}]}, "/v1/embed")
    finally:
        photo(tmp_path, 0).rename(photo(place, 0))
    assert problem["detail"] == "the file of this image is not where it was"


def test_a_member_of_a_tar_is_read_when_it_is_decoded(place, models, tmp_path):
    """Of many requests for large ones, what waits is in no memory."""
    tar, data = tmp_path / "t.tar", photo(place, 0).read_bytes()
    with tarfile.open(tar, "w") as opened:
        opened.add(photo(place, 0), "sub/a.png")
    ids, vector = ["there", "gone"], models["a"](fakes.photo()).vector
    sources = [f"{tar}:sub/a.png", f"{tar}:sub/b.png"]
    vectors = {models["a"].card.name: np.stack([vector, vector])}
    writer.build(place / "tars", Ensemble((Member(identify(models["a"])),)), [Batch(ids, sources, vectors)])
    live = LiveIndex("tars", place / "tars")
    with hosted.service_of([models["a"]], indexes={"tars": live}) as service:
        source = indexed_image(service, "there", None)
        assert (source.read(), sys.getsizeof(source) < len(data)) == (data, True)
        found = asked(Client(service), {"images": [{"id": name} for name in ids]}, "/v1/embed")["results"]
    assert found[0]["size"] == [90, 70]
    problem = found[1]["problem"]
    assert (problem["status"], problem["detail"]) == (422, "the image: cannot be read: its file is not what it was")
    assert str(tmp_path) not in json.dumps(found)


# --- Facts and pictures ---


def test_the_information_tells_what_a_page_needs_to_search(client):
    info = Information.model_validate(client.get("/v1/info").json())
    assert [index.name for index in info.indexes] == ["places", "bare", "other"]
    assert (info.recognize, info.detector, info.rules) == (True, fakes.DET, ["people"])
    assert {step.name for step in info.steps} == {"alpha-qe", "k-reciprocal", "superglobal", "diffusion"}


def test_all_is_described(client):
    paths = client.get("/openapi.json").json()["paths"]
    by_id = paths["/v1/indexes/{name}/search"]["get"]
    assert {each["name"] for each in by_id["parameters"]} == {"name", "id", "top", "approximate", "steps", "timeout"}
    assert "vectors" in json.dumps(paths["/v1/search"]["post"]["requestBody"])
    assert {"/v1/recognize", "/v1/indexes", "/v1/indexes/{name}", "/v1/indexes/{name}/image"} <= set(paths)


def test_facts_of_indexes(client, indexes):
    listed = client.get("/v1/indexes").json()["indexes"]
    assert [each["name"] for each in listed] == ["places", "bare", "other"]
    places = client.get("/v1/indexes/places").json()
    assert places == listed[0]
    assert places == {
        "name": "places",
        "rows": len(ALL),
        "generation": 1,
        "dim": 64,
        "models": [A, B],
        "pca_from": None,
        "pca_explained": None,
        "approximate": indexes["places"].current.index.manifest.graph.describe(),
        "labels": "labels.csv",
    }


def test_a_picture_is_made_here_and_upright(client):
    for side in (180, 2048):
        response = client.get(f"/v1/indexes/places/image?id={quoted(ALL[12])}&side={side}")
        assert response.headers["content-type"] == "image/jpeg"
        with PIL.Image.open(io.BytesIO(response.content)) as image:
            assert not image.getexif()
            assert max(image.size) == side
            assert image.size[0] < image.size[1]
        assert b"GPS" not in response.content


@pytest.mark.parametrize("name", ALL[11:])
def test_pictures_of_odd_ids(client, name):
    assert client.get("/v1/indexes/places/image?id=" + quoted(name)).status_code == 200


def test_a_picture_that_is_gone_is_not_found(client, place):
    file = photo(place, 11)
    data = file.read_bytes()
    file.unlink()
    response = client.get(f"/v1/indexes/places/image?id={ALL[11]}&side=2048")
    file.write_bytes(data[:40])
    broken = client.get(f"/v1/indexes/places/image?id={ALL[11]}&side=2048")
    file.write_bytes(data)
    assert response.status_code == broken.status_code == 404
    assert str(place) not in response.text + broken.text


def test_searches_at_once_are_done_together_and_each_is_right(client, indexes):
    """Of sixteen threads, with different numbers of neighbours."""
    wrong = []

    def search(number):
        top = 1 + number % 7
        got = client.get(f"/v1/indexes/places/search?id={ALL[number % 12]}&top={top}").json()
        if len(got["results"][0]["neighbours"]) != top or got["results"][0]["neighbours"][0]["id"] != ALL[number % 12]:
            wrong.append(got)

    threads = [threading.Thread(target=search, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
