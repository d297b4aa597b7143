"""recognize and evaluate from the command line, on an index of tiny made-up models."""

import contextlib
import csv
import io
import json
import pickle
import re
import tarfile

import numpy as np
import PIL.Image
import pytest

import fakes
from landmark_onnx.cli import votes
from landmark_onnx.images import decode
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.images.decode import read_image
from landmark_onnx.model import Classifier, Retriever
from landmark_onnx.recognition import landmark_labels
from landmark_onnx.recognition.recognizer import Recognizer, Voter
from landmark_onnx.recognition.votes import NEIGHBOURS
from landmark_onnx.results import Failure
from landmark_onnx.search.open import open_index
from landmark_onnx.store.catalogue import exported_path

PLACES = ("arch", "dome", "gate")


@pytest.fixture
def run(run):
    """The command line in this process: its output and errors."""

    def call(*arguments, wanted=0):
        done = run(*arguments)
        assert done.code == wanted, done.err
        return done.out, done.err

    return call


@pytest.fixture
def place(tmp_path, monkeypatch, run):
    """Three places of one colour each, two photos in an index and one to ask about; the store's three models."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("faiss")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number, name in enumerate(PLACES):
        for shot in ("one", "two", "query"):
            pixels = np.full((64, 80, 3), 20, np.int64) + rng.integers(0, 20, (64, 80, 3))
            pixels[..., number] += 200
            folder = tmp_path / ("queries" if shot == "query" else "index")
            folder.mkdir(exist_ok=True)
            write_image(folder / f"{name}-{shot}.png", pixels.astype(np.uint8))
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    fakes.make_cls(exported_path(fakes.CLS), classes=3, labels=dict(enumerate(PLACES)))
    fakes.make_det(exported_path(fakes.DET), labels={1: "Person", 2: "Tower"})
    run("embed", "index", "-m", fakes.RETRIEVAL, "-o", "features", "--ids", "stem", "-q")
    run("index", "build", "features", "-o", "places", "-q")
    labels = "".join(f"{name}-{shot},{name}\n" for name in PLACES for shot in ("one", "two"))
    (tmp_path / "labels.csv").write_text("id,label\n" + labels)
    return tmp_path


def records(out):
    return [json.loads(line) for line in out.splitlines()]


def unboxed(err):
    """A usage error, without the frame and the folds around it."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", err).split())


def test_the_nearest_say_what_it_is_and_are_named(place, run):
    out, _ = run("recognize", "queries", "-i", "places", "--labels", "labels.csv", "--neighbours", 2)
    answers = records(out)
    assert [answer["landmark"] for answer in answers] == list(PLACES)
    for answer in answers:
        assert {vote["id"] for vote in answer["neighbours"]} == {f"{answer['landmark']}-{n}" for n in ("one", "two")}
        votes = [vote["vote"] for vote in answer["neighbours"]]
        assert votes == pytest.approx([2 * vote["cosine"] - 1 for vote in answer["neighbours"]])
        assert answer["score"] == pytest.approx(sum(votes))
        assert answer["classes"] == answer["no_landmark"] == []


def test_labels_of_other_names_are_told(place, run):
    command = ("recognize", "queries", "-i", "places", "--neighbours", 2, "--labels")
    text = (place / "labels.csv").read_text()
    write(place / "paths.csv", re.sub(r"(?m)^(\w+-\w+),", r"index/\1.png,", text))
    _, err = run(*command, "paths.csv", wanted=1)
    assert "6 of 6 ids of places are not among the 6 of paths.csv, such as" in err
    assert "--ids stem" in err
    stems = run(*command, "paths.csv", "--ids", "stem")
    assert stems[0].replace("paths.csv", "labels.csv") == run(*command, "labels.csv")[0]
    assert "not among" not in stems[1]
    write(place / "some.csv", text.replace("arch-one", "arch_one"))
    out, err = run(*command, "some.csv")
    assert [answer["landmark"] for answer in records(out)] == list(PLACES)
    assert "1 of 6 ids of places are not among the 6 of some.csv, such as 'arch-one' (one there: 'arch_one')" in err


@pytest.fixture
def sorted_photos(place, run):
    """An index of photos that lie in folders called after what they show; one lies beside these."""
    for path in (place / "index").iterdir():
        name = path.stem.partition("-")[0]
        (place / "photos/old town" / name).mkdir(parents=True, exist_ok=True)
        path.rename(place / "photos/old town" / name / path.name)
    (place / "photos/old town/gate/gate-two.png").rename(place / "photos/two.png")
    return place


def make_index(run, *photos, ids="auto"):
    run("embed", *photos, "-m", fakes.RETRIEVAL, "-o", "f", "--ids", ids, "-q", "--restart")
    run("index", "build", "f", "-o", "i", "-q", "--replace")


ROOTLESS = "1 of 6 ids of i have no folder, such as 'two.png': they have no landmark"


def test_folders_are_landmarks(sorted_photos, run):
    make_index(run, "photos")
    out, err = run("recognize", "queries", "-i", "i", "--labels", "folders", "--neighbours", 2)
    answers = records(out)
    assert [(answer["landmark"], answer["labels"]) for answer in answers] == [(name, "folders") for name in PLACES]
    votes = {vote["id"]: vote["landmark"] for answer in answers for vote in answer["neighbours"]}
    assert votes == {
        "two.png": None,
        **{f"old town/{name}/{name}-one.png": name for name in PLACES},
        **{f"old town/{name}/{name}-two.png": name for name in PLACES[:2]},
    }
    assert err.count(ROOTLESS) == 1
    table, _ = run("recognize", "queries", "-i", "i", "--labels", "folders", "--format", "table", "-q")
    assert table.splitlines()[0].split() == ["image", "landmark", "score", "labels", "why"]
    assert table.count(" folders ") == 3


def test_folders_in_a_tar_are_landmarks(sorted_photos, run):
    with tarfile.open("photos.tar", "w") as tar:
        tar.add("photos", ".")
    make_index(run, "photos.tar")
    out, err = run("recognize", "queries", "-i", "i", "--labels", "folders", "--neighbours", 2)
    assert [answer["landmark"] for answer in records(out)] == list(PLACES)
    assert "1 of 6 ids of i have no folder" in err


@pytest.mark.parametrize(
    ("photos", "ids", "count", "example"),
    [("photos", "stem", 6, "two"), ("photos/old town/arch", "auto", 2, "arch-one.png")],
)
def test_an_index_without_folders_has_no_landmarks_of_theirs(photos, ids, count, example, sorted_photos, run):
    make_index(run, photos, ids=ids)
    for command in ("recognize", "search"):
        out, err = run(command, "queries", "-i", "i", "--labels", "folders", wanted=1)
        assert out == ""
        (line,) = err.splitlines()
        assert f"{count} of {count} ids of i have no folder, such as {example!r}" in line
        assert "embed --ids path PHOTOS keeps folders" in line


def test_a_file_called_folders_is_given_with_its_folder(place, run):
    (place / "labels.csv").rename(place / "folders")
    out, _ = run("recognize", "queries", "-i", "places", "--labels", "./folders")
    assert {(answer["landmark"], answer["labels"]) for answer in records(out)} == {
        (name, "./folders") for name in PLACES
    }
    told = unboxed(run("recognize", "queries", "-i", "places", "--labels", "folder", wanted=2)[1])
    assert "file 'folder' does not exist: wanted a CSV, or the word folders" in told
    told = unboxed(run("recognize", "queries", "-i", "places", "--labels", "./index", wanted=2)[1])
    assert "'./index' is a folder: wanted a CSV, or the word folders" in told


def test_neighbours_of_a_search_have_landmarks(sorted_photos, run):
    (sorted_photos / "photos/old town/gate").rename(sorted_photos / "photos/g&<te>")
    make_index(run, "photos")
    command = ("search", "queries/gate-query.png", "-i", "i", "--top", 2)
    (plain,) = records(run(*command)[0])
    out, err = run(*command, "--labels", "folders", "--html", "sheet.html")
    (answer,) = records(out)
    assert answer.pop("labels") == "folders"
    assert {hit["id"]: hit.pop("landmark") for hit in answer["neighbours"]} == {
        "g&<te>/gate-one.png": "g&<te>",
        "two.png": None,
    }
    assert answer == plain
    assert err.count(ROOTLESS) == 1
    page = (sorted_photos / "sheet.html").read_text()
    assert "<h1>Neighbours in i; landmarks: folders</h1>" in page
    assert page.count("<i>") == page.count("<i>g&amp;&lt;te&gt;</i> g&amp;&lt;te&gt;/gate-one.png") == 1
    head, first, *_ = run(*command, "--labels", "folders", "--format", "csv")[0].splitlines()
    assert head == "image,rank,score,landmark,id,source,labels,error"
    assert first.startswith("queries/gate-query.png,1,")
    assert first.endswith(",folders,")


def test_neighbours_of_a_search_have_landmarks_of_a_csv(place, run):
    command = ("search", "queries/gate-query.png", "-i", "places", "--top", 2)
    (answer,) = records(run(*command, "--labels", "labels.csv", "--ids", "stem")[0])
    assert answer["labels"] == "labels.csv"
    assert [hit["landmark"] for hit in answer["neighbours"]] == ["gate", "gate"]
    for labels in ((), ("--labels", "folders")):
        assert "is of a CSV of --labels" in unboxed(run(*command, *labels, "--ids", "stem", wanted=2)[1])


def test_a_submission_has_the_ids_of_features(place, run):
    (place / "queries/arch-query.png").rename(place / "queries/arch_3.5m.png")
    run("embed", "queries", "-m", fakes.RETRIEVAL, "-o", "asked", "--ids", "stem", "-q")
    run("search", "--features", "asked", "-i", "places", "-o", "found.ndjson", "-q")
    run("evaluate", "submission", "found.ndjson", "-o", "s.csv")
    run("recognize", "queries", "-i", "places", "--labels", "labels.csv", "--kaggle", "k.csv", "-q")
    wanted = {"arch_3.5m", "dome-query", "gate-query"}
    for name in ("s.csv", "k.csv"):
        assert {line.partition(",")[0] for line in (place / name).read_text().splitlines()[1:]} == wanted


def test_without_labels_each_image_is_a_landmark_of_its_own(place, run):
    out, _ = run("recognize", "index/dome-one.png", "-i", "places")
    (answer,) = records(out)
    assert answer["landmark"] == "dome-one"
    assert answer["labels"] is None
    assert answer["neighbours"][0]["cosine"] == pytest.approx(1, abs=1e-5)


def test_classifiers_vote_with_their_weights(place, run):
    asked = ("recognize", "queries/arch-query.png", "-i", "places", "--labels", "labels.csv", "--cls", fakes.CLS)
    (plain,) = records(run(*asked)[0])
    (heavy,) = records(run(*asked, "--cls-weight", 100, "--neighbour-weight", 0.5)[0])
    said = {vote["landmark"]: vote["vote"] for vote in plain["classes"]}
    assert set(said) == set(PLACES)
    assert sum(said.values()) == pytest.approx(1, abs=1e-5)
    for one, other in zip(
        sorted(plain["candidates"], key=lambda each: each["landmark"]),
        sorted(heavy["candidates"], key=lambda each: each["landmark"]),
        strict=True,
    ):
        assert other["classifiers"] == pytest.approx(100 * one["classifiers"])
        assert other["neighbours"] == pytest.approx(0.5 * one["neighbours"])
    assert heavy["landmark"] == max(said, key=said.get)


def test_a_classifier_without_landmarks_needs_a_file(place, run):
    fakes.make_cls(place / "bare.onnx", classes=3)
    asked = ("recognize", "queries", "-i", "places", "--labels", "labels.csv", "--cls", "bare.onnx")
    assert "bare.onnx: does not say which landmarks its classes are: give --cls-labels" in run(*asked, wanted=1)[1]
    (place / "classes.txt").write_text("0 arch\n1 dome\n2 gate\n")
    answers = records(run(*asked, "--cls-labels", "classes.txt")[0])
    assert {vote["landmark"] for vote in answers[0]["classes"]} == set(PLACES)
    told = run(*asked, "--cls-labels", "classes.txt", "--cls-labels", "classes.txt", wanted=2)[1]
    assert "wanted one, or one for each" in unboxed(told)


RULES = '[[rule]]\nname = "crowd"\nclasses = ["PERSON", 2, 3, 4]\nscore = 0.01\narea = {area}\n'


def test_an_image_is_decoded_once_for_all_models(place, run, monkeypatch):
    read = []
    monkeypatch.setattr(decode, "_encoded", lambda *a, real=decode._encoded: read.append(a[1]) or real(*a))
    (place / "rules.toml").write_text(RULES.format(area=1))
    (place / "queries" / "broken.jpg").write_bytes(b"no image")
    out, _ = run(
        "recognize",
        "queries",
        "-i",
        "places",
        "--cls",
        fakes.CLS,
        "--det",
        fakes.DET,
        "--rules",
        "rules.toml",
        wanted=1,
    )
    assert len(records(out)) == len(read) == len(set(read)) == 4


def test_the_detector_says_what_is_no_landmark(place, run):
    (place / "rules.toml").write_text(RULES.format(area=0.001))
    asked = ("recognize", "queries", "-i", "places", "--labels", "labels.csv", "--det", fakes.DET)
    answers = records(run(*asked, "--rules", "rules.toml")[0])
    for answer in answers:
        assert answer["landmark"] is None
        assert answer["score"] is None
        assert answer["candidates"]
        (hit,) = answer["no_landmark"]
        assert hit["rule"] == "crowd"
        assert 0.001 <= hit["area"] <= 1
        assert {box["name"] for box in hit["boxes"]} <= {"Person", "Tower", "class 3", "class 4"}
    (place / "rules.toml").write_text(RULES.format(area=1))
    answers = records(run(*asked, "--rules", "rules.toml")[0])
    assert [answer["landmark"] for answer in answers] == list(PLACES)
    table, _ = run(*asked, "--rules", "rules.toml", "--format", "table")
    assert "dome-one 1.000" in table or "dome-two 1.000" in table


def test_rules_that_do_not_fit_are_told_at_once(place, run):
    asked = ("recognize", "queries", "-i", "places")
    assert "give --det too" in unboxed(run(*asked, "--rules", "labels.csv", wanted=2)[1])
    told = run(*asked, "--det", fakes.DET, wanted=1)[1]
    assert "rule animals: the detector has none of its classes" in told


def test_a_bad_image_stops_nothing(place, run):
    (place / "queries" / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    out, err = run("recognize", "queries", "-i", "places", "--kaggle", "s.csv", "--labels", "labels.csv", wanted=1)
    answers = records(out)
    assert [answer.get("landmark") for answer in answers] == ["arch", None, "dome", "gate"]
    assert "broken.jpg" in err
    rows = list(csv.DictReader(io.StringIO((place / "s.csv").read_text())))
    assert {row["id"]: row["landmarks"].split(" ")[0] for row in rows} == {
        "arch-query": "arch",
        "broken": "",
        "dome-query": "dome",
        "gate-query": "gate",
    }


def test_an_index_of_another_model_is_refused(place, run):
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL), seed=5)
    told = run("recognize", "queries", "-i", "places", wanted=1)[1]
    assert "model file" in told
    fakes.make_retrieval(place / "other.onnx", model_card=fakes.small_card("res200_arcmargin"))
    told = run("recognize", "queries", "-i", "places", "-m", "other.onnx", wanted=1)[1]
    assert "places: has no embeddings of res200_arcmargin; it has res152_arcmargin" in told


# --- evaluate ---


def write(path, text):
    path.write_text(text)
    return path


def test_evaluate_retrieval(tmp_path, run):
    solution = write(tmp_path / "solution.csv", "id,images,Usage\nq1,a b,Public\nq2,c,Private\nq3,None,Ignored\n")
    answers = write(tmp_path / "s.csv", "id,images\nq1,x a b\nq3,a\n")
    out, err = run("evaluate", "retrieval", answers, solution, "--per-query", tmp_path / "each.csv")
    rows = {row["usage"]: row for row in records(out)}
    ap = (1 / 2 + 2 / 3) / 2
    assert {usage: row["map@100"] for usage, row in rows.items()} == pytest.approx(
        {"Public": ap, "Private": 0, "all": ap / 2}
    )
    assert rows["Public"]["p@5"] == 2 / 5
    assert "1 of 2 queries have no answer: they score 0" in err
    each = list(csv.DictReader(io.StringIO((tmp_path / "each.csv").read_text())))
    assert [(row["id"], float(row["ap"])) for row in each] == [("q1", pytest.approx(ap)), ("q2", 0)]
    assert records(run("evaluate", "retrieval", answers, solution, "--top", 1)[0])[0]["map@1"] == 0
    table, _ = run("evaluate", "retrieval", answers, solution, "--format", "table", "-q")
    assert table.splitlines()[0].split() == ["usage", "queries", "map@100", "p@1", "p@5", "p@10", "p@100"]


def test_evaluate_recognition(tmp_path, run):
    solution = write(tmp_path / "solution.csv", "id,landmarks,Usage\na,7,Public\nb,,Public\nc,8 9,Private\n")
    answers = write(tmp_path / "s.csv", "id,landmarks\na,7 0.9\nb,7 0.95\nc,9 0.1\n")
    out, _ = run("evaluate", "recognition", answers, solution, "--per-query", tmp_path / "each.ndjson")
    rows = {row["usage"]: row for row in records(out)}
    assert rows["Public"]["gap"] == 1 / 2
    assert rows["Private"]["gap"] == 1
    assert rows["all"]["gap"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert rows["all"]["landmarks"] == 2
    assert rows["all"]["accuracy"] == 1
    each = records((tmp_path / "each.ndjson").read_text())
    assert [(row["id"], row["correct"], row["place"]) for row in each] == [
        ("b", False, 1),
        ("a", True, 2),
        ("c", True, 3),
    ]


def test_evaluate_revisited(tmp_path, run):
    row = {"bbx": [0.0, 0.0, 9.0, 9.0], "easy": [0], "hard": [1], "junk": [2]}
    truth = tmp_path / "gnd.pkl"
    truth.write_bytes(pickle.dumps({"imlist": ["i0", "i1", "i2", "i3"], "qimlist": ["q"], "gnd": [row]}, 2))
    answers = write(tmp_path / "s.csv", "id,images\nq,i1 i2 i3 i0\n")
    out, err = run("evaluate", "revisited", answers, truth, "--per-query", tmp_path / "each.json")
    rows = {row["protocol"]: row for row in records(out)}
    assert {name: row["map"] for name, row in rows.items()} == pytest.approx(
        {"Easy": 1 / 4, "Medium": (1 + (1 / 2 + 2 / 3) / 2) / 2, "Hard": 1}
    )
    assert "what is left out" not in err
    assert len(json.loads((tmp_path / "each.json").read_text())) == 3
    _, err = run("evaluate", "revisited", write(tmp_path / "s.csv", "id,images\nq,i1\n"), truth)
    assert "a query has 1 answers of 4" in err


def test_crops_are_the_queries_boxes(tmp_path, run):
    box = {"easy": [0], "hard": [], "junk": []}
    rows = [
        box | {"bbx": [10.4, 5.5, 30.5, 25.0]},
        box | {"bbx": [-3.0, 0.0, 5.0, 900.0]},
        box | {"bbx": [900, 0, 990, 9]},
    ]
    truth = tmp_path / "gnd.pkl"
    truth.write_bytes(pickle.dumps({"imlist": ["i"], "qimlist": ["a", "b", "c"], "gnd": rows}, 2))
    for name in "abc":
        write_image(tmp_path / f"{name}.jpg", fakes.photo(60, 80))
    _, err = run("evaluate", "crops", truth, tmp_path, "-o", tmp_path / "crops", wanted=1)
    assert "c.jpg: the box" in err
    whole = read_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "crops" / "a.png"), whole[6:25, 10:30])
    np.testing.assert_array_equal(read_image(tmp_path / "crops" / "b.png"), whole[:, :5])
    assert sorted(path.name for path in (tmp_path / "crops").iterdir()) == ["a.png", "b.png"]


@pytest.fixture
def one_query(tmp_path):
    """A ground truth with one query of a given name, its photo in folder `jpg`, and somebody's files."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "a.png").write_bytes(b"precious")
    for path in (tmp_path / "victim" / "a.jpg", tmp_path / "jpg" / "a.jpg", tmp_path / "jpg" / "sub" / "a.jpg"):
        write_image(path, fakes.photo(60, 80))

    def make(name):
        gnd = [{"easy": [0], "hard": [], "junk": [], "bbx": [0, 0, 9, 9]}]
        truth = tmp_path / "gnd.pkl"
        truth.write_bytes(pickle.dumps({"imlist": ["i"], "qimlist": [name], "gnd": gnd}, 2))
        return truth

    yield make
    assert (tmp_path / "victim" / "a.png").read_bytes() == b"precious"
    assert sorted(path.name for path in (tmp_path / "victim").iterdir()) == ["a.jpg", "a.png"]


@pytest.mark.parametrize(
    "name",
    ["../victim/a", "..", "sub/../../victim/a", "/victim/a", "{tmp}/victim/a", "..\\victim\\a", "C:a", "", "a\0b"],
)
def test_crops_of_names_that_lead_out_of_the_folder_are_refused(name, one_query, tmp_path, run):
    name = name.replace("{tmp}", str(tmp_path))
    _, err = run("evaluate", "crops", one_query(name), tmp_path / "jpg", "-o", tmp_path / "out", wanted=1)
    (line,) = err.splitlines()
    assert f"query {name!r}: cannot be the name of a file" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("link", "to"), [("sub", "victim"), ("sub/a.png", "victim/a.png"), ("sub", "nowhere")])
def test_crops_do_not_leave_the_folder_by_a_link(link, to, one_query, tmp_path, run):
    place = tmp_path / "out" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / to)
    _, err = run("evaluate", "crops", one_query("sub/a"), tmp_path / "jpg", "-o", tmp_path / "out", wanted=1)
    assert "query 'sub/a': " in err
    assert "which is not below" in err


def test_crops_may_have_folders(one_query, tmp_path, run):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    run("evaluate", "crops", one_query("sub/a"), tmp_path / "jpg", "-o", tmp_path / "out")
    assert read_image(tmp_path / "real" / "sub" / "a.png").shape == (9, 9, 3)


def test_ids_that_do_not_match_are_refused_with_counts(tmp_path, run):
    solution = write(tmp_path / "solution.csv", "id,images,Usage\nq1,a b,Public\n")
    answers = write(tmp_path / "s.csv", "id,images\nq7,x\nq8,x\n")
    out, err = run("evaluate", "retrieval", answers, solution, wanted=1)
    assert out == ""
    assert "2 of 2 ids are not among the 1 of" in err
    assert len(err.strip().splitlines()) == 1


def test_what_help_need_not_import_is_said_twice_alike():
    assert votes.FOLDERS == landmark_labels.FOLDERS
    assert votes.NEIGHBOURS == NEIGHBOURS


def test_answers_of_a_search_are_scored(place, run):
    run("search", "queries", "-i", "places", "--top", 3, "-o", "found.ndjson", "-q")
    run("evaluate", "submission", "found.ndjson", "-o", "s.csv")
    rows = "".join(f"{name}-query,{name}-one {name}-two,Public\n" for name in PLACES)
    write(place / "solution.csv", "id,images,Usage\n" + rows)
    (public, _) = records(run("evaluate", "retrieval", "s.csv", "solution.csv")[0])
    assert public["map@100"] == 1


def test_open_files_and_pil_images_are_read_once_for_all_models(place):
    """Each model decodes for itself, and a file can be read only once."""
    source = place / "queries" / "dome-query.png"
    retriever, classifier = Retriever(exported_path(fakes.RETRIEVAL)), Classifier(exported_path(fakes.CLS))
    with contextlib.closing(open_index(place / "places")) as index:
        recognizer = Recognizer(
            index=index, retrievers=[retriever], landmark_of=str, voters=[Voter(name="cls", classifier=classifier)]
        )
        (wanted,) = recognizer.stream([source])
        with source.open("rb") as file, PIL.Image.open(source) as image:
            answers = list(recognizer.stream([file, io.BytesIO(source.read_bytes()), image, io.StringIO("x")]))
    assert [type(answer) for answer in answers] == [type(wanted)] * 3 + [Failure]
    assert {answer.landmark for answer in answers[:3]} == {wanted.landmark}
    assert {answer.score for answer in answers[:3]} == {wanted.score}
