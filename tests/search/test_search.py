"""`landmark-onnx index` and `landmark-onnx search`, from photos to answers and contact sheet."""

import base64
import csv
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import fakes
import indexed
from landmark_onnx.embedding.feature_folder import write_features
from landmark_onnx.images import decode
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.search.index import Index
from landmark_onnx.search.thumbnails import locate, thumbnail
from landmark_onnx.store.catalogue import exported_path

pytest.importorskip("faiss")
pytest.importorskip("pyarrow")

A, B = "res152_arcmargin", "res200_arcmargin"
PHOTOS = 24


def start(*arguments: str) -> subprocess.Popen:
    """The installed program."""
    program = Path(sysconfig.get_path("scripts"), "landmark-onnx")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([str(program), *arguments], **pipes)


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


def test_an_image_is_decoded_once_for_all_models(embedded, run, monkeypatch):
    run("index", "build", "f", "-o", "i", "-q")
    read = []
    monkeypatch.setattr(decode, "_encoded", lambda *a, real=decode._encoded: read.append(a[1]) or real(*a))
    Path("p/00.png").write_bytes(b"no image")
    done = run("search", "p", "--index", "i", "--top", "1")
    assert done.code == 1
    assert done.err.count("p/00.png: not an image") == 1
    assert sorted(read) == [f"p/{number:02d}.png" for number in range(PHOTOS)]


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
    done = run("index", "add", "i", "f", "--replace")
    assert "i: 48 rows" in done.err
    assert "24 of 24 images took the place of those of their ids" in done.err
    run("embed", "p", "-m", A, "-m", B, "-o", "alone", "-q")
    run("index", "build", "alone", "-o", "j", "-q")
    done = run("index", "add", "j", "named", "--replace")
    assert (
        "0 of 24 images took the place of those of their ids; an id of the new ones is '00', and one that was"
        in done.err
    )
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


@pytest.mark.parametrize("form", ["ndjson", "csv", "table"])
@pytest.mark.parametrize(
    "command", [["search"], ["search", "--step", "alpha-qe:k=3"], ["search", "--html", "h.html"], ["recognize"]]
)
def test_each_query_on_standard_input_is_answered_as_it_comes(command, form, embedded, run):
    run("index", "build", "f", "-o", "i", "-q")
    with start(*command, "-", "-i", "i", "-q", "--format", form) as process:
        impatience = threading.Timer(60, process.kill)
        impatience.start()
        for count in (1, 3, 2):
            process.stdin.write(b"".join(b"p/%02d.png\n" % number for number in range(count)))
            process.stdin.flush()
            for number in range(count):
                wanted = b"p/%02d.png" % number
                while wanted not in (line := process.stdout.readline()):
                    assert line, process.stderr.read()
        impatience.cancel()
        process.stdin.close()
        assert process.wait() == 0


def test_ids_to_remove_on_standard_input(embedded, run, monkeypatch):
    run("index", "build", "f", "-o", "i", "-q")
    Path("list").write_bytes(b"\xef\xbb\xbf01.png\r\n02.png\r\n")
    with Path("list").open(encoding="utf-8") as lines:
        monkeypatch.setattr("sys.stdin", lines)
        assert "i: 22 rows" in run("index", "remove", "i", "-").err
    run("embed", "p", "-m", A, "-m", B, "-o", "stems", "--ids", "stem", "-q")
    run("index", "build", "stems", "-o", "j", "-q")
    done = run("index", "remove", "j", "p/01.png", "p/02.png")
    assert "2 of 2 ids are not in the index, such as p/01.png" in done.err
    assert "--ids stem" in done.err
    assert "j: 22 rows" in run("index", "remove", "j", "p/01.png", "p/02.png", "--ids", "stem").err


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
    assert f"i: has no embeddings of {B}; it has {A}" in run("search", "p/00.png", "--index", "i", "-m", B).err


def test_a_search_without_steps_loads_no_re_ranker(embedded, run):
    run("index", "build", "f", "-o", "i", "-q")
    program = (
        "import sys; from landmark_onnx.cli import main\n"
        "try: main()\n"
        "finally: sys.stderr.write(' '.join(name for name in sys.modules if '.search.rerank.' in name))"
    )
    for steps, loaded in (((), False), (("--step", "dba:k=3"), True)):
        arguments = ["search", "p/00.png", "--index", "i", "-q", *steps]
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
        assert ("landmark_onnx.search.rerank" in done.stderr) is loaded, done.stderr


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
        (("search", "p", "-i", "i", "--approximate"), "no approximate index; build one"),
        (("search", "p", "-i", "i", "--step", "nonsense"), "no step 'nonsense'"),
        (("search", "p", "-i", "i", "-o", "p"), "p"),
        (("search", "p", "-i", "i", "-o", "f/features.json/x.csv"), "f/features.json"),
        (("search", "p", "-i", "i", "--html", "f/features.json/x.html"), "f/features.json"),
        (("recognize", "p", "-i", "i", "--labels", "f/features.json"), "features.json"),
        (("recognize", "p", "-i", "i", "--cls", "c.onnx", "--cls-labels", "f/features.json"), "features.json"),
        (("recognize", "p", "-i", "i", "--kaggle", "f/features.json/x.csv"), "f/features.json"),
        (("index", "build", "f", "-o", "i"), "has an index of 24 rows"),
        (("index", "build", "f", "-o", "p", "--pca", "2"), "p: holds"),
        (("index", "build", "f", "-o", "j", "--pca", "24"), "24 rows of 64 values allow 1 to 23"),
        (("retrieval", "p", "-m", A, "-o", "f/features.json/x.csv"), "f/features.json"),
        (("retrieval", "p", "-m", A, "--save", "f/features.json/x.npz"), "f/features.json"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(embedded, run, monkeypatch, arguments, told):
    run("index", "build", "f", "-o", "i", "-q")

    def work(*_, **__):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("landmark_onnx.runtime.session.Session.__init__", work)
    monkeypatch.setattr("landmark_onnx.embedding.feature_folder.Features.batches", work)
    done = run(*arguments)
    assert (done.code in (1, 2), done.out) == (True, "")
    assert told in done.err
    assert "the work has begun" not in done.err


def test_what_needs_faiss_says_so_before_the_work(embedded, run, monkeypatch):
    run("index", "build", "f", "-o", "i", "-q")
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("landmark_onnx.runtime.session.Session.__init__", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("landmark_onnx.embedding.feature_folder.Features.batches", lambda *_: 1 / 0)
    for command in (
        ("search", "p", "-i", "i"),
        ("recognize", "p", "-i", "i"),
        ("index", "build", "f", "-o", "j", "--approximate"),
    ):
        assert "pip install 'landmark-onnx[search]'" in run(*command).err
    assert not Path("j").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("search", "--index", "i"), "wanted images, or --features"),
        (("search", "--features", "f", "--index", "i", "-m", "x"), "embedded already"),
        (("index", "build", "f", "-o", "j", "--effort", "9"), "give --approximate too"),
        (("index", "build", "f", "-o", "j", "--collection", "c"), "give --qdrant URL too"),
        (("embed", "p", "-m", "x", "-o", "g", "--workers", "2"), "are for --ray"),
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
    """What a page shows, and where it would fetch from. pictures: of each figure its thumbnail, None if it has none."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[bytes | None] = []
        self.titles: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.rules = dict(re.findall(r"\.(p\d+){background-image:url\(data:image/jpeg;base64,([^)]*)\)}", text))
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self._style = tag == "style"
        self.addresses += [value for key, value in attributes if key in ("src", "href", "action", "srcset", "style")]
        if tag == "figure":
            self.titles.append(values["title"])
        elif tag == "div" and len(self.pictures) < len(self.titles):
            rule = self.rules.get(values["class"])
            self.pictures.append(rule and base64.b64decode(rule))

    def handle_data(self, data):
        self.text += "" if self._style else data


def read(path="report.html") -> Page:
    return Page(Path(path).read_text())


def decoded(picture: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)


def test_the_contact_sheet_has_thumbnails_of_files_and_tar_members(photos, run):
    with tarfile.open("images_000.tar", "w") as tar:
        for path in sorted(Path("p").iterdir())[:10]:
            tar.add(path, f"0/0/{path.name}")
    run("embed", "images_000.tar", "p/20.png", "p/21.png", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", "i", "-q")
    Path("p/21.png").rename("p/gone.png")
    Path("p/20.png").write_bytes(b"no image")
    done = run("search", "p/03.png", "--index", "i", "--html", "report.html")
    assert done.code == 0
    notes = done.err.splitlines()[-3:]
    assert notes[0] == "landmark-onnx: the contact sheet is report.html"
    assert f"1 of its 13 pictures are missing, such as {photos / 'p/21.png'}; if their folder is elsewhere" in notes[1]
    assert f"1 of its pictures cannot be read, such as {photos / 'p/20.png'}: not an image" in notes[2]
    page = read()
    assert len(page.pictures) == 1 + 12
    assert page.pictures.count(None) == page.text.count("missing") + page.text.count("unreadable") == 2
    assert page.addresses == []
    bare = re.sub(r"url\(data:image/jpeg;base64,[^)]*\)", "", Path("report.html").read_text())
    assert not re.search(r"https?:|//|@import|url\(|<script", bare)
    small = [decoded(picture) for picture in page.pictures if picture]
    assert max(max(picture.shape) for picture in small) <= 180
    np.testing.assert_allclose(small[0].mean(axis=(0, 1)), small[1].mean(axis=(0, 1)), atol=3)
    for hit in done.lines[0]["neighbours"]:
        assert f"{hit['score']:.4f}" in page.text
        assert hit["id"] in page.text


def test_the_contact_sheet_holds_each_picture_once(photos, run):
    run("embed", "p", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", "i", "-q")
    for queries in ("p",), ("--features", "f"):
        run("search", *queries, "--index", "i", "--html", "report.html", "-q")
        page = read()
        assert len(page.pictures) == PHOTOS * (1 + PHOTOS)
        assert None not in page.pictures
        # A path as it was given is another source than the index's.
        assert len(page.rules) == PHOTOS * (2 if queries == ("p",) else 1)


def test_the_contact_sheet_finds_pictures_from_another_folder_and_where_they_were_moved(photos, run, monkeypatch):
    run("embed", "p", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", "i", "-q")
    (photos / "elsewhere").mkdir()
    monkeypatch.chdir(photos / "elsewhere")
    query = ("search", photos / "p" / "03.png", "-i", photos / "i", "--html", "report.html")
    assert "missing" not in run(*query).err
    assert None not in read().pictures
    monkeypatch.chdir(photos)
    Path("p").rename("a=b")
    monkeypatch.chdir("elsewhere")
    query = ("search", photos / "a=b" / "03.png", *query[2:])
    assert "24 of its 25 pictures are missing" in run(*query).err
    done = run(*query, "--moved", f"{photos / 'p'}={photos / 'a=b'}")
    assert "missing" not in done.err
    assert None not in read().pictures


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--moved", "p=q", "--html", "r.html"), "NEW a folder"),
        (("--moved", "p", "--html", "r.html"), "NEW a folder"),
        (("--moved", "p=p"), "is of --html"),
    ],
)
def test_where_pictures_are_now_is_checked_before_the_search(options, told, photos, run):
    done = run("search", "p/00.png", "-i", "nowhere", *options)
    assert done.code == 2
    assert told in " ".join(done.err.replace("│", " ").split())


@pytest.mark.parametrize(
    "source", ["no\0where.png", "a" * 5000, "a.tar:", "p", "p/00.png/x", "p/00.png:x", ".tar:x", ""]
)
def test_sources_that_lead_nowhere_are_missing(source, photos):
    assert locate(source) is None


def test_tars_are_found_whatever_their_names(photos):
    for name in ("A.TAR", "a.tar:b.tar"):
        with tarfile.open(name, "w") as tar:
            tar.add("p/00.png", "x.tar:y//z.png")
        assert locate(f"{name}:x.tar:y//z.png") == (name, "x.tar:y//z.png")
        np.testing.assert_allclose(
            decoded(thumbnail(name, "x.tar:y//z.png")).mean(axis=(0, 1)),
            cv2.imread("p/00.png").mean(axis=(0, 1)),
            atol=3,
        )


def test_queries_without_an_answer_are_on_the_contact_sheet_with_the_reason(photos, run):
    run("embed", "p", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", "i", "-q")
    Path("broken<b>.jpg").write_bytes(b"\xff\xd8\xff no more")
    done = run("search", "p/00.png", "broken<b>.jpg", "nowhere.jpg", "--index", "i", "--html", "report.html")
    assert done.code == 1
    page = read()
    assert page.tags.count("section") == 3
    assert page.text.count("no answer") == 2
    for failed in done.lines[1:]:
        assert failed["error"] in page.text
    assert "missing" not in page.text + done.err


def test_a_contact_sheet_that_grows_too_large_says_what_is_left_out(photos, run, monkeypatch):
    monkeypatch.setattr("landmark_onnx.search.html_report.MAX_BYTES", 30_000)
    run("embed", "p", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", "i", "-q")
    done = run("search", "p", "--index", "i", "--html", "report.html")
    shown = read().tags.count("section")
    assert 0 < shown < PHOTOS
    assert f"{PHOTOS - shown} more queries are not shown" in read().text
    assert f"{PHOTOS - shown} queries are not on it: it would be larger than" in done.err
    assert len(done.lines) == PHOTOS


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_folders_whose_names_are_no_text(photos, run, monkeypatch):
    odd = photos / os.fsdecode(b"odd\xff")
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system takes Unicode alone")
    Path("p").rename(odd / "p")
    monkeypatch.chdir(odd)
    Path("p/00.png").rename(os.fsdecode(b"p/\xfe.png"))
    with tarfile.open(os.fsdecode(b"t\xff.tar"), "w") as tar:
        tar.add("p/01.png", os.fsdecode(b"\xfd.png"))
    run("embed", "p", Path(os.fsdecode(b"t\xff.tar")), "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", os.fsdecode(b"i\xff"), "-q")
    monkeypatch.chdir(photos)
    done = run("search", odd / "p", "--index", odd / os.fsdecode(b"i\xff"), "--html", "report.html")
    assert done.code == 0
    assert "missing" not in done.err
    assert None not in read().pictures


@pytest.fixture
def chromium() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    return found or pytest.skip("no Chromium")


@pytest.mark.parametrize("width", [390, 320, 1200])
def test_the_contact_sheet_is_as_wide_as_a_phone(width, chromium, photos, run):
    """A window is never narrower than 500 pixels: the page is in a frame."""
    long = "a" * 120
    Path("p/00.png").rename(f"p/{long}.png")
    run("embed", "p", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", f"i{long}", "-q")
    run("search", f"p/{long}.png", f"{long}.jpg", "--index", f"i{long}", "--html", "report.html", "-q")
    script = """f.onload = () => {
        const d = f.contentDocument, e = d.documentElement
        const plate = d.querySelector(".hits > figure > div"), look = getComputedStyle(plate)
        const sizes = [e.clientWidth, e.scrollWidth, plate.clientWidth]
        o.textContent = [...sizes, look.height, look.backgroundImage.slice(0, 15)]
    }"""
    frame = f'<iframe id=f src=report.html style="width: {width}px; border: 0"></iframe><pre id=o></pre>'
    Path("frame.html").write_text(f"<!DOCTYPE html>{frame}<script>{script}</script>")
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--window-size=1300,900",
    )
    command = [
        chromium,
        *options,
        f"--user-data-dir={photos / 'profile'}",
        "--dump-dom",
        photos.as_uri() + "/frame.html",
    ]
    found = subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()
    inner, needed, picture, *plate = re.search(r"<pre[^>]*>(.*?)</pre>", found)[1].split(",")
    assert width - 20 <= int(inner) <= width
    assert int(needed) == int(inner)
    assert int(picture) >= 100
    assert plate == ["130px", 'url("data:image']


def test_names_on_the_contact_sheet_are_text(photos, run):
    evil = '<script>alert(1)</script>&"quoted".png'.replace("/", "_")
    Path("p/00.png").rename(Path("p", evil))
    run("embed", "p", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", "i", "-q")
    run("search", f"p/{evil}", "--index", "i", "--html", "report.html", "-q")
    page = read()
    assert "script" not in page.tags
    assert page.text.count(evil) == 2


def test_the_sheet_says_how_many_it_does_not_show(photos, run, monkeypatch):
    monkeypatch.setattr("landmark_onnx.search.html_report.SHOWN", 3)
    run("embed", "p", "-m", A, "-o", "f", "-q")
    run("index", "build", "f", "-o", "i", "-q")
    run("search", "p/00.png", "--index", "i", "--html", "report.html", "-q")
    page = read()
    assert "21 more are not shown" in page.text
    assert len(page.pictures) == 4
