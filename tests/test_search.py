"""`landmark-onnx index` and `landmark-onnx search`, from photos to answers and contact sheet."""

import base64
import csv
import html.parser
import io
import json
import re
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import fakes
import indexed
from landmark_onnx.draw import write_image
from landmark_onnx.embedding.folder import write_features
from landmark_onnx.search.index import Index
from landmark_onnx.store import exported_path

pytest.importorskip("faiss")
pytest.importorskip("pyarrow")

A, B = "res152_arcmargin", "res200_arcmargin"
PHOTOS = 24


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with photos of which each differs, and two models in the store."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        colour = rng.integers(0, 256, 3)
        write_image(Path(f"p/{number:02d}.png"), np.full((70, 90, 3), colour, np.uint8))
    for seed, name in enumerate((A, B)):
        fakes.make_retrieval(exported_path(name), model_card=fakes.small_card(name), dim=32, seed=seed)
    return tmp_path


@pytest.fixture
def embedded(photos, run) -> Path:
    assert run("embed", "p", "-m", A, "-m", B, "-o", "f", "-q").code == 0
    return photos


def test_a_photo_is_its_own_nearest_neighbour(embedded, run):
    built = run("index", "build", "f", "-o", "i")
    assert (built.code, built.out) == (0, "")
    assert f"i: 24 rows of 64 values: {A} + {B}" in built.err
    done = run("search", "p/03.png", "p/17.png", "--index", "i", "--top", "5")
    assert done.code == 0
    assert [record["image"] for record in done.lines] == ["p/03.png", "p/17.png"]
    for record, own in zip(done.lines, ("03.png", "17.png"), strict=True):
        first = record["neighbours"][0]
        assert (first["rank"], first["id"], first["source"]) == (1, own, f"p/{own}")
        assert first["score"] == pytest.approx(1, abs=1e-5)
        assert [each["rank"] for each in record["neighbours"]] == [1, 2, 3, 4, 5]
        assert [-each["score"] for each in record["neighbours"]] == sorted(-e["score"] for e in record["neighbours"])


def test_features_give_the_same_as_their_photos(embedded, run):
    run("index", "build", "f", "-o", "i", "-m", B, "-w", "2", "--pca", "6", "-q")
    photos = run("search", "p", "--index", "i", "--top", "4")
    features = run("search", "--features", "f", "--index", "i", "--top", "4")
    assert [each["neighbours"] for each in photos.lines] == [each["neighbours"] for each in features.lines]
    assert [each["image"] for each in features.lines] == [f"{number:02d}.png" for number in range(PHOTOS)]
    index = Index.open("i")
    assert index.ensemble.dim == 6
    assert [member.weight for member in index.ensemble.members] == [2.0]


def test_sources_are_found_from_any_folder(embedded, run, monkeypatch):
    """Each is below the folder that its own features were made in; old features do not say which."""
    other, elsewhere = embedded / "other", embedded / "elsewhere"
    for folder in (other, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(other)
    Path("q").mkdir()
    Path("q/x.png").write_bytes((embedded / "p" / "05.png").read_bytes())
    run("embed", "q", embedded / "p" / "06.png", "-m", A, "-m", B, "-o", "g", "-q", "--ids", "path")
    manifest = Path("g/features.json")
    old = json.loads(manifest.read_text())
    monkeypatch.chdir(embedded)
    run("index", "build", "f", "other/g", "-o", "i", "-q")
    places = dict(zip(Index.open("i").ids, Index.open("i").sources, strict=True))
    assert all(Path(source).is_absolute() and Path(source).is_file() for source in places.values())
    assert places["x.png"] == str(other / "q" / "x.png")

    def sources():
        return [
            hit["source"] for hit in run("search", embedded / "p/05.png", "-i", embedded / "i").lines[0]["neighbours"]
        ]

    assert {"p/05.png", "other/q/x.png"} == set(sources()[:2])
    monkeypatch.chdir(elsewhere)
    assert {str(embedded / "p/05.png"), str(other / "q/x.png")} == set(sources()[:2])
    del old["base"]
    manifest = other / "g" / "features.json"
    manifest.write_text(json.dumps(old))
    run("index", "build", other / "g", "-o", "old", "-q")
    assert list(Index.open("old").sources) == ["q/x.png", str(embedded / "p" / "06.png")]


def test_table_csv_and_json(embedded, run):
    run("index", "build", "f", "-o", "i", "-q")
    search = ("search", "p/03.png", "missing.png", "--index", "i", "--top", "2", "--format")
    table = run(*search, "table")
    assert table.code == 1
    assert re.match(r"image +rank +score +id +source\np/03.png +1 +1.000000 +03.png +p/03.png\n +2 ", table.out)
    assert "missing.png" in table.err
    first, second, failed = csv.DictReader(io.StringIO(run(*search, "csv").out))
    assert (first["image"], first["rank"], first["id"], second["rank"]) == ("p/03.png", "1", "03.png", "2")
    assert "missing.png" in failed["error"]
    answer, failure = json.loads(run(*search, "json").out)
    assert len(answer["neighbours"]) == 2
    assert failure["image"] == "missing.png"


def test_add_remove_info(embedded, run):
    run("embed", "p", "-m", A, "-m", B, "-o", "named", "--ids", "stem", "-q")
    run("index", "build", "f", "-o", "i", "--approximate", "--links", "8", "-q")
    done = run("index", "add", "i", "f")
    assert done.code == 1
    assert "24 ids are in the index already, such as 00.png; --replace" in done.err
    assert "i: 48 rows" in run("index", "add", "i", "named").err
    assert "i: 48 rows" in run("index", "add", "i", "f", "--replace").err
    assert run("index", "remove", "i", "00", "00.png", "-q").code == 0
    assert "2 of 2 ids are not in the index" in run("index", "remove", "i", "00", "00.png").err
    done = run("index", "info", "i")
    (facts,) = done.lines
    assert (facts["index"], facts["rows"], facts["dim"]) == ("i", 46, 64)
    assert [re.match(r"\w+", model)[0] for model in facts["models"]] == [A, B]
    assert re.search(r"recall@46 [01]\.\d{4} over 46 rows", facts["approximate"])
    assert re.search(r"^rows +46$", run("index", "info", "i", "--format", "table").out, re.M)
    found = run("search", "p/05.png", "--index", "i", "--approximate", "--top", "2").lines[0]["neighbours"]
    assert {each["id"] for each in found} == {"05", "05.png"}


def test_info_verifies(embedded, run):
    run("index", "build", "f", "-o", "i", "--approximate", "-q")
    done = run("index", "info", "i", "--verify")
    assert (done.code, len(done.lines)) == (0, 1)
    assert "i: every byte is as it was written" in done.err
    vectors = Path("i/vectors-1.f32")
    np.roll(np.fromfile(vectors, "<f4"), 64).tofile(vectors)
    assert run("index", "info", "i").code == 0
    done = run("index", "info", "i", "--verify")
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
    assert re.search(r"error: i/vectors-1.f32: bytes 0 to 6,144 are not .*rebuild it with: .* -o i --replace", done.err)


def test_ids_to_remove_on_standard_input(embedded, run, monkeypatch):
    run("index", "build", "f", "-o", "i", "-q")
    Path("list").write_bytes(b"\xef\xbb\xbf01.png\r\n02.png\r\n")
    with Path("list").open(encoding="utf-8") as lines:
        monkeypatch.setattr("sys.stdin", lines)
        assert "i: 22 rows" in run("index", "remove", "i", "-").err


def test_info_describes_features_and_verifies_them(embedded, run):
    (facts,) = run("index", "info", "f").lines
    assert (facts["rows"], facts["failed"], facts["files"], facts["dtype"]) == (PHOTOS, 0, 1, "float32")
    assert [re.match(r"\w+", model)[0] for model in facts["models"]] == [A, B]
    done = run("index", "info", "f", "--verify", "--format", "json")
    assert done.json == [facts]
    assert "f: every byte is as it was written" in done.err
    path = Path("f/part-00000.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    done = run("index", "info", "f", "--verify")
    assert (done.code, done.out) == (1, "")
    assert "part-00000.parquet: damaged" in done.err


def test_an_ensemble_is_taken_from_another_index(embedded, run):
    run("index", "build", "f", "-o", "i", "--pca", "5", "-q")
    run("embed", "p/00.png", "p/01.png", "-m", A, "-m", B, "-o", "two", "-q")
    assert run("index", "build", "two", "-o", "j", "--ensemble", "i", "-q").code == 0
    np.testing.assert_array_equal(Index.open("i").vectors[:2], Index.open("j").vectors)
    done = run("index", "build", "two", "-o", "k", "--pca", "5")
    assert "PCA to 5 dimensions: 2 rows of 64 values allow 1 to 1" in done.err
    assert run("index", "build", "two", "-o", "k", "--pca", "5", "--pca-from", "f", "-q").code == 0
    np.testing.assert_array_equal(Index.open("k").vectors, Index.open("j").vectors)


def test_another_model_of_the_same_name_is_refused(embedded, run):
    run("index", "build", "f", "-o", "i", "-m", A, "-q")
    other = fakes.make_retrieval(Path("other.onnx"), model_card=fakes.small_card(A), dim=32, seed=7)
    done = run("search", "p/00.png", "--index", "i", "-m", other)
    assert (done.code, done.out) == (1, "")
    assert re.search(
        rf"{A}: i has model file \w{{12}}, the query's model has \w{{12}}: their embeddings do not", done.err
    )
    larger = fakes.small_card(A, size=96)
    fakes.make_retrieval(exported_path(A), model_card=larger, dim=32, seed=0)
    assert f"error: {A}: i has" in run("search", "p/00.png", "--index", "i").err
    run("embed", "p/00.png", "-m", A, "-o", "g", "-q")
    for command in (("search", "--features", "g", "--index", "i"), ("index", "add", "i", "g")):
        assert f"error: {A}: i has model file" in run(*command).err
    assert f"no embeddings of {A}, which i has; there: {B}" in run("search", "p/00.png", "--index", "i", "-m", B).err


def test_steps_change_the_order(embedded, run):
    run("index", "build", "f", "-o", "i", "-q")
    search = ("search", "p", "--index", "i", "--top", "6")
    done = run(*search, "--step", "dba:k=3", "--step", "alpha-qe:k=4")
    assert done.code == 0
    assert len(done.lines) == PHOTOS
    assert done.lines != run(*search).lines
    assert "no step 'nonsense'" in run(*search, "--step", "nonsense").err
    assert run(*search, "--step", "dba", "--approximate").code == 2


def test_a_row_that_is_not_finite_is_left_out(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batches = list(indexed.batches(["a", "b", "c"]))
    batches[0].vectors["a"][1, 3] = np.inf
    write_features(tmp_path / "f", [indexed.identity()], batches)
    done = run("index", "build", "f", "-o", "i", "--pca", "1")
    assert done.code == 1
    assert done.err.count("error: b: left out: its embedding by a has a value that is not finite") == 1
    assert list(Index.open("i").ids) == ["a", "c"]
    assert [record["image"] for record in run("search", "--features", "f", "--index", "i").lines] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("search", "--index", "i"), "wanted images, or --features"),
        (("search", "p", "--features", "f", "--index", "i"), "not both"),
        (("index", "build", "f", "-o", "j", "--pca-from", "f"), "says what --pca"),
        (("index", "build", "f", "-o", "j", "--ensemble", "i", "--pca", "3"), "has models, weights"),
        (("index", "build", "f", "-o", "j", "--qdrant", "http://x", "--approximate"), "makes a graph by itself"),
    ],
)
def test_wrong_usage(run, arguments, told):
    done = run(*arguments)
    assert done.code == 2
    assert told in re.sub(r"[^\w-]+", " ", done.err).replace("  ", " ") or told in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("index", "build", "none", "-o", "j"), "none: no features.json"),
        (("index", "build", "f", "-o", "j", "-m", "x"), f"f: no embeddings of x; there: {A}, {B}"),
        (("index", "build", "f", "-o", "j", "-m", A, "-w", "1", "-w", "2"), f"a weight for each of {A}, got 2"),
        (("index", "build", "f", "-o", "j", "-w", "0", "-w", "1"), f"{A}: wanted a weight over 0"),
        (("index", "build", "f", "-o", "j", "--pca", "65"), "24 rows of 64 values allow 1 to 23"),
        (("index", "info", "j"), "j: no index; make one"),
        (("search", "p", "--index", "j"), "j: no index; make one"),
        (("index", "build", "f", "-o", "p"), "p: holds"),
    ],
)
def test_what_cannot_be_is_one_line(embedded, run, arguments, told):
    done = run(*arguments)
    assert (done.code, done.out) == (1, "")
    assert told in done.err
    assert len(done.err.splitlines()) == 1


# --- The contact sheet ---


class Page(html.parser.HTMLParser):
    """What a page shows, and where it would fetch from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for key, value in attributes:
            if tag == "img" and key == "src":
                self.images.append(value)
            elif key in ("src", "href", "action", "srcset"):
                self.addresses.append(value)

    def handle_data(self, data):
        self.text += data


def test_the_contact_sheet_has_thumbnails_of_files_and_tar_members(photos, run):
    with tarfile.open("images_000.tar", "w") as tar:
        for path in sorted(Path("p").iterdir())[:10]:
            tar.add(path, f"0/0/{path.name}")
    run("embed", "images_000.tar", "p/20.png", "p/21.png", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", "i", "-q")
    Path("p/21.png").rename("p/gone.png")
    done = run("search", "p/03.png", "--index", "i", "--html", "report.html")
    assert "the contact sheet is report.html" in done.err
    text = Path("report.html").read_text()
    page = Page(text)
    assert len(page.images) == 1 + 11
    assert page.text.count("missing") - text.split("</style>")[0].count("missing") == 1
    assert page.addresses == []
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"base64,[^\"]*", "", text))
    for uri in page.images:
        head, _, data = uri.partition(",")
        assert head == "data:image/jpeg;base64"
        small = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert max(small.shape) <= 180
    colours = [image_colour(uri) for uri in page.images]
    np.testing.assert_allclose(colours[0], colours[1], atol=3)
    for hit in done.lines[0]["neighbours"]:
        assert f"{hit['score']:.4f}" in page.text
        assert hit["id"] in page.text


def image_colour(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.partition(",")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).mean(axis=(0, 1))


def test_names_on_the_contact_sheet_are_text(photos, run):
    evil = '<script>alert(1)</script>&"quoted".png'.replace("/", "_")
    Path("p/00.png").rename(Path("p", evil))
    run("embed", "p", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", "i", "-q")
    run("search", f"p/{evil}", "--index", "i", "--html", "report.html", "-q")
    page = Page(Path("report.html").read_text())
    assert "script" not in page.tags
    assert page.text.count(evil) == 2


def test_the_sheet_says_how_many_it_does_not_show(photos, run, monkeypatch):
    monkeypatch.setattr("landmark_onnx.search.report.SHOWN", 3)
    run("embed", "p", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", "i", "-q")
    run("search", "p/00.png", "--index", "i", "--html", "report.html", "-q")
    page = Page(Path("report.html").read_text())
    assert "21 more are not shown" in page.text
    assert len(page.images) == 4
