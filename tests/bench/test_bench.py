import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

import fakes
from landmark_onnx.errors import LandmarkError, MissingExtraError, ModelFileError, SessionError
from landmark_onnx_bench.accuracy import likeness, likeness_json, stored_likeness
from landmark_onnx_bench.batches import batches
from landmark_onnx_bench.interleaved import Contest, ContestRules
from landmark_onnx_bench.loadgen import MODULE
from landmark_onnx_bench.plots import write_plots
from landmark_onnx_bench.report import KEY, SCHEMA, read_report
from landmark_onnx_bench.resolve import entry, own, peer
from landmark_onnx_bench.sample_photos import scene, write_photos
from landmark_onnx_bench.targets import PEERS, Contestant, Scenario, Workload
from landmark_onnx_bench.worker import Worker
from landmark_onnx_bench.worker_process import Child

QUICK = ("--duration", "0.05", "--windows", "2", "--size", "60x80", "--threads", "1")
RULES = ContestRules(work=Workload(queries=2), max_windows=2, pause=0.0)

ROW = {
    *("model", "task", "contestant", "runtime", "precision", "threads", "target", "scenario", "target_qps"),
    *(
        "providers",
        "batch_size",
        "input",
        "harness",
        "note",
        "session_seconds",
        "first_run_seconds",
        "loaded_bytes",
        "first_run_bytes",
    ),
    *("peak_bytes", "stable", "images_per_second", "cost_ms", "p50_ms", "p90_ms", "p99_ms"),
    *("ratio", "likeness", "windows"),
}
WINDOW = {"images", "queries", "seconds", "images_per_second", "cost_ms", "p50_ms", "p90_ms", "p99_ms"}


@pytest.fixture
def run(run):
    """`landmark-onnx bench` in this process -> exit code, standard output, standard error."""
    return lambda *arguments: dataclasses.astuple(run("bench", *arguments))


@pytest.fixture
def models(tmp_path):
    makers = {"retrieval": fakes.make_retrieval, "cls": fakes.make_cls, "det": fakes.make_det}
    return {task: make(tmp_path / f"{task}.onnx") for task, make in makers.items()}


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 4, 60, 80)


def contestants(path, **changes):
    (ours,) = own(entry(path), ["cpu"], ["fp32"], threads=1, batch_size=changes.get("batch_size", 1))
    return dataclasses.replace(ours, **changes)


def test_a_report_and_its_plots(run, models, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    asked = [option for task in ("retrieval", "det") for option in ("-m", models[task])]
    sizes = ("--batch-size", 1, "--batch-size", 2)
    code, _, err = run(*asked, *QUICK, *sizes, "--peer", "onnxruntime-raw", "-o", out)
    assert code == 0, err
    report = json.loads((out / "bench.json").read_text())
    assert set(report) == {"schema", "command", "begun", "machine", "rows", "dropouts"}
    assert report["schema"] == SCHEMA == 1
    assert report["dropouts"] == []
    assert {"cpu", "flags", "cores", "usable_cores", "memory", "system", "python", "versions"} == set(report["machine"])
    assert {"onnxruntime", "numpy"} <= set(report["machine"]["versions"])
    rows = report["rows"]
    assert all(set(row) == ROW for row in rows)
    assert all(set(window) == WINDOW for row in rows for window in row["windows"])
    made = {(row["task"], row["batch_size"], row["target"], row["contestant"]) for row in rows}
    assert len(made) == len(rows) == (2 + 1) * 2 * 2, "a detector takes one image at a time"
    assert {row["providers"][0] for row in rows} == {"CPUExecutionProvider"}
    assert [row["ratio"] is None for row in rows] == [row["runtime"] == "landmark-onnx" for row in rows]
    assert {row["likeness"]["value"] for row in rows if row["likeness"]} == {1.0}
    assert all(row["peak_bytes"] >= row["loaded_bytes"] > 10e6 for row in rows if row["loaded_bytes"])
    for name in ("latency", "throughput", "accuracy"):
        image = cv2.imread(str(out / f"{name}.png"))
        assert image is not None
        assert image.std() > 5
    text = (out / "bench.md").read_text()
    assert text.count("## res152_arcmargin") == 4
    assert read_report(out / "bench.json") == report


def test_without_a_folder_the_tables_go_to_standard_output(run, models):
    pytest.importorskip(MODULE)
    code, out, _ = run("-m", models["cls"], *QUICK, "--target", "model", "--scenario", "offline")
    assert code == 0
    assert "| contestant | runs on |" in out
    assert "offline (" in out


def test_every_contestant_answers_a_random_load_under_the_slowest_one(run, models, tmp_path):
    pytest.importorskip(MODULE)
    arguments = ("--scenario", "server", "--target", "model", "--peer", "onnxruntime-raw", "-o", tmp_path)
    code, _, err = run("-m", models["cls"], *QUICK, *arguments)
    assert code == 0, err
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    (qps,) = {row["target_qps"] for row in rows}
    assert qps > 0


@pytest.fixture
def no_loadgen(monkeypatch):
    """A machine without the load generator, as this process sees it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == MODULE else find(name, *rest))
    monkeypatch.setitem(sys.modules, MODULE, None)


@pytest.mark.parametrize("scenario", ["offline", "server"])
def test_what_needs_the_load_generator_says_so_before_any_work(run, scenario, no_loadgen, tmp_path):
    code, out, err = run("-m", tmp_path / "missing.onnx", *QUICK, "--scenario", scenario)
    assert (code, out) == (1, "")
    assert err == (
        f"landmark-onnx: error: scenario {scenario} needs mlcommons-loadgen, which is not installed; "
        "run: pip install 'landmark-onnx[bench]'\n"
    )


def test_without_the_load_generator_windows_are_plain(models, photos, no_loadgen):
    worker = Worker(contestants(models["cls"], batch_size=2), [str(path) for path in photos])
    assert worker.facts()["harness"] == "built-in"
    found = worker.window("model", Workload(queries=3).to_json())
    assert (found["images"], len(found["latencies"])) == (6, 3)
    with pytest.raises(MissingExtraError, match=r"landmark-onnx\[bench\]"):
        worker.window("model", Workload(scenario=Scenario.OFFLINE, queries=3).to_json())


def test_photos_of_the_user(run, models, photos, tmp_path):
    cv2.imwrite(str(photos[0].with_name("wide.png")), scene(40, 90, 0))
    code, _, err = run("-m", models["retrieval"], *QUICK[:4], "--images", photos[0].parent, "-o", tmp_path / "out")
    assert code == 0, err
    (shape,) = {tuple(row["input"]) for row in json.loads((tmp_path / "out/bench.json").read_text())["rows"]}
    assert shape == (1, 3, 64, 64), "the commonest shape"


def test_a_damaged_photo_is_told_of_and_left_out(run, models, photos, tmp_path):
    photos[1].write_bytes(photos[1].read_bytes()[:200])
    code, out, err = run("-m", models["cls"], *QUICK[:4], "--images", photos[0].parent, "--target", "model")
    assert code == 1
    assert str(photos[1]) in err
    assert "| landmark-onnx cpu fp32 | CPUExecutionProvider |" in out
    code, _, err = run("-m", models["cls"], "--images", photos[1])
    assert code == 1
    assert "none of the photos can be read" in err


def test_a_contestant_that_cannot_take_part_stops_nobody_else(run, models, tmp_path):
    arguments = ("--provider", "cpu", "--provider", "cuda", "--peer", "paddle-onednn", "--target", "model")
    code, out, err = run("-m", models["cls"], *QUICK, *arguments)
    assert code == 1
    assert "paddle-onednn runs the release: say where it is with --release" in err
    assert "landmark-onnx cuda fp32: " in err
    assert "| landmark-onnx cpu fp32 | CPUExecutionProvider |" in out
    assert out.count("| landmark-onnx cuda fp32 |") == 0
    assert "## Not finished" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a model with --model"),
        (("-m", "x.onnx", "--size", "60"), "wanted HEIGHTxWIDTH"),
        (("-m", "x.onnx", "--precision", "fp8"), "fp8"),
        (("-m", "x.onnx", "--images", ".", "--size", "60x80"), "leave it or --images out"),
        (("-m", "x.onnx", "--fail-above", "1.1"), "--fail-above is of --compare"),
        (("-m", "x.onnx", "--peer", "tensorflow"), "tensorflow"),
    ],
)
def test_wrong_usage(run, models, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    models["cls"].rename("x.onnx")
    code, _, err = run(*arguments)
    assert code == 2
    assert words in err


@pytest.mark.parametrize("target", ["model", "file"])
def test_no_photo_to_read_is_one_line(run, models, tmp_path, target):
    (tmp_path / "empty").mkdir()
    code, _, err = run("-m", models["cls"], "--images", tmp_path / "empty", "--target", target)
    assert code == 1
    assert err.count("\n") == 1
    assert "empty" in err


def report_of(costs, *, contestant="landmark-onnx cpu fp32", batch_size=1):
    key = {"model": "m", "contestant": contestant, "target": "model", "scenario": "single-stream"}
    windows = [{"cost_ms": cost} for cost in costs]
    middle = sorted(costs)[len(costs) // 2]
    row = {
        **key,
        "batch_size": batch_size,
        "input": [1, 3, 8, 8],
        "stable": False,
        "cost_ms": middle,
        "windows": windows,
    }
    assert set(KEY) <= set(row)
    return {"schema": SCHEMA, "rows": [row]}


@pytest.mark.parametrize(
    ("after", "limit", "code", "word"),
    [
        ([10, 11, 12], "1.0", 0, ""),
        ([11, 14, 15], "1.1", 0, ""),
        ([14, 14, 15], "1.1", 1, "slower"),
        ([14, 14, 15], "1.5", 0, "slower"),
        ([5, 6, 7], "1.0", 0, "faster"),
    ],
)
def test_comparing_two_reports(run, tmp_path, after, limit, code, word):
    for name, costs in (("a", [10, 11, 12]), ("b", after)):
        (tmp_path / f"{name}.json").write_text(json.dumps(report_of(costs)))
    got, out, err = run("--compare", tmp_path / "a.json", tmp_path / "b.json", "--fail-above", limit)
    assert got == code, err
    assert out.splitlines()[-1].split("|")[-2].strip() == word
    assert out.splitlines()[-1].split("|")[-3].strip() == f"{sorted(after)[1] / 11:.3f}"


def test_comparing_names_what_only_one_has(run, tmp_path):
    both, other = report_of([1, 1, 1]), report_of([2, 2, 2], batch_size=4)
    (tmp_path / "a.json").write_text(json.dumps({**both, "rows": both["rows"] + other["rows"]}))
    (tmp_path / "b.json").write_text(json.dumps(both))
    code, out, err = run("--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert code == 0
    assert "only in" in err
    assert len(out.splitlines()) == 3
    (tmp_path / "c.json").write_text(json.dumps(other))
    code, _, err = run("--compare", tmp_path / "b.json", tmp_path / "c.json", "--quiet")
    assert code == 1
    assert "no measurement in common" in err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2, "rows": []}', '{"schema": 1, "rows": [{}]}', None])
def test_what_is_no_report_is_refused_by_name(run, tmp_path, text):
    (tmp_path / "good.json").write_text(json.dumps(report_of([1])))
    if text is not None:
        (tmp_path / "bad.json").write_text(text)
    code, _, err = run("--compare", tmp_path / "good.json", tmp_path / "bad.json")
    assert code == 1
    assert "bad.json" in err
    assert err.count("\n") == 1


def test_bench_asks_for_matplotlib_before_it_measures(models, run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("landmark_onnx_bench.suite.hold_all", lambda *_, **__: 1 / 0)
    code, _, err = run("-m", models["cls"], *QUICK, "-o", tmp_path / "report")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "pip install 'landmark-onnx[bench]'" in err
    assert not (tmp_path / "report").exists()


def test_plots_need_matplotlib(models, photos, monkeypatch, tmp_path):
    contest = Contest(entry(models["cls"]), [contestants(models["cls"])], RULES, on_stage=lambda text: None)
    rows = [standing.to_json() for standing in contest.hold(photos)]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(LandmarkError, match=r"landmark-onnx\[bench\]"):
        write_plots({"rows": rows}, tmp_path)


def test_the_parent_of_a_contest_loads_no_peer(models):
    code = """
import sys
from landmark_onnx.cli import main
try:
    main(["bench", "-m", sys.argv[1], "--duration", "0.01", "--windows", "1", "--target", "model", "-q"])
except SystemExit as left:
    assert left.code == 0
print(sorted({name.partition('.')[0] for name in sys.modules} & set(sys.argv[2].split())))"""
    peers = "onnxruntime openvino paddle landmark_onnx_export matplotlib mlperf_loadgen torch"
    done = subprocess.run(
        [sys.executable, "-c", code, models["cls"], peers], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_child_that_dies_is_told_of_with_its_last_words(models, photos):
    with Child(contestants(models["cls"]), photos) as child:
        os.kill(child._process.pid, 9)
        with pytest.raises(SessionError, match=r"landmark-onnx cpu fp32: its process died: .*SIGKILL"):
            child.window("model", Workload(queries=1))


def test_what_cannot_be_loaded_is_told_of_by_the_childs_reason(models, photos):
    sound = contestants(models["cls"])
    models["cls"].write_bytes(models["cls"].read_bytes()[:-100])
    with pytest.raises(SessionError, match=r"landmark-onnx cpu fp32: .*cls\.onnx"):
        Child(sound, photos)


def test_a_contestant_that_dies_in_between_leaves_the_others_their_figures(models, photos, monkeypatch):
    ours = contestants(models["retrieval"])
    doomed = dataclasses.replace(ours, label="doomed")
    window = Child.window

    def dying(self, target, work):
        if self.contestant.label == "doomed" and target == "file":
            raise SessionError("doomed: gone")
        return window(self, target, work)

    monkeypatch.setattr(Child, "window", dying)
    contest = Contest(entry(models["retrieval"]), [ours, doomed], RULES, on_stage=lambda text: None)
    standings = contest.hold(photos)
    assert {standing.contestant.label for standing in standings} == {ours.label}
    assert [dropout.error for dropout in contest.dropouts] == ["doomed: gone"]


def test_windows_are_taken_in_turns(models, photos):
    said = []
    ours = contestants(models["cls"])
    pair = [ours, dataclasses.replace(ours, label="other")]
    rules = dataclasses.replace(RULES, targets=("model",), agree=False)
    standings = Contest(entry(models["cls"]), pair, rules, on_stage=said.append).hold(photos)
    turns = [text.split(": ")[1] for text in said if "round" in text]
    assert turns == [ours.label, "other"] * 2
    assert [standing.ratio and standing.ratio.rounds for standing in standings] == [None, 2]


@pytest.mark.parametrize("name", ["onnxruntime-raw", "openvino"])
@pytest.mark.parametrize("task", ["retrieval", "cls", "det"])
def test_peers_answer_as_we_do(models, photos, tmp_path, name, task):
    if name == "openvino":
        pytest.importorskip("openvino")
    model = entry(models[task])
    rival = peer(model, name, tmp_path, threads=1, batch_size=2)
    contest = Contest(model, [contestants(models[task]), rival], RULES, on_stage=lambda text: None)
    standings = contest.hold(photos)
    assert not contest.dropouts
    assert {standing.contestant.label for standing in standings} == {"landmark-onnx cpu fp32", name}
    values = [standing.likeness.value(model.card) for standing in standings if standing.likeness]
    assert values
    assert min(values) > 0.99999


@pytest.mark.paddle
def test_paddle_runs_the_release_of_the_same_network(run, tmp_path):
    from landmark_onnx.cards.catalogue import card
    from landmark_onnx_export.convert import export_model
    from landmark_onnx_export.synthetic.release import write_release

    name = "res152_softmax_v1"
    release = write_release(card(name), tmp_path)
    model = export_model(card(name), release, tmp_path / f"{name}.onnx", check_parity=False).path
    peers = ("--peer", "paddle", "--peer", "paddle-onednn", "--release", tmp_path, "-o", tmp_path / "out")
    code, _, err = run("-m", model, *QUICK, "--target", "model", *peers)
    assert code == 0, err
    rows = json.loads((tmp_path / "out/bench.json").read_text())["rows"]
    assert [row["providers"][0] for row in rows[1:]] == [
        "Paddle Inference plain kernels",
        "Paddle Inference oneDNN",
    ]
    assert all(row["likeness"]["value"] == 1 for row in rows[1:])


def test_releases_and_raw_exports_are_found_by_name(models, tmp_path):
    name = fakes.CLS
    (tmp_path / "releases").mkdir()
    (tmp_path / f"releases/{name}.tar").touch()
    found = entry(models["cls"], releases=[tmp_path / "releases"])
    assert found.release == tmp_path / f"releases/{name}.tar"
    assert found.raw is None
    with pytest.raises(ModelFileError, match=f"{name}: --raw: none of"):
        entry(models["cls"], raws=[tmp_path / "releases"])


def test_every_peer_says_what_it_is():
    assert {name for name, facts in PEERS.items() if facts.wants == "release"} == {
        name for name in PEERS if name.startswith("paddle")
    }
    assert all(facts.precision == ("bf16" if "bf16" in name else "fp32") for name, facts in PEERS.items())


def test_contestants_and_workloads_pass_through_json():
    ours = Contestant(
        label="x", runtime="paddle", path="p", card={}, provider="c", precision="fp32", threads=1, batch_size=2
    )
    assert Contestant.from_json(json.loads(json.dumps(ours.to_json()))) == ours
    work = Workload(queries=3)
    assert Workload.from_json(json.loads(json.dumps(work.to_json()))) == work


def test_batches_hold_each_image_of_the_commonest_shape():
    shapes = [(1, 3, 4, 4), (1, 3, 8, 4), (1, 3, 4, 4), (1, 3, 4, 4)]
    prepared = [{"image": np.full(shape, number, np.float32)} for number, shape in enumerate(shapes)]
    found = batches(prepared, 2)
    assert [batch["image"][:, 0, 0, 0].tolist() for batch in found] == [[0, 2], [3, 0]]


def test_likeness_in_the_measure_of_the_task(models, tmp_path):
    def save(name, **arrays):
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    first = np.array([[1.0, 0.0]], np.float32)
    turned = np.array([[0.6, 0.8]], np.float32)
    card = entry(models["retrieval"]).card
    exact = save("a.npz", **{"0/embedding": first, "1/embedding": first})
    other = save("b.npz", **{"0/embedding": first, "1/embedding": turned})
    assert likeness(card, exact, other).value(card) == pytest.approx(0.8)
    card = entry(models["cls"]).card
    exact = save("a.npz", **{"0/probability": first, "1/probability": first})
    other = save("b.npz", **{"0/probability": first, "1/probability": turned})
    assert likeness(card, exact, other).value(card) == 0.5
    empty = {"0/rois": np.zeros((1, 4)), "0/probability": np.zeros((1, 5)), "0/deltas": np.zeros((1, 20))}
    nothing = save("n.npz", **empty, **{"0/im_info": np.array([[64, 64, 1]], np.float32)})
    assert likeness(entry(models["det"]).card, nothing, nothing) is None


def test_a_reduced_file_says_itself_how_like_fp32_it_is(models):
    model = entry(models["retrieval"])
    (reduced,) = own(model, ["cpu"], ["int8"], threads=1, batch_size=1)
    assert stored_likeness(model, reduced) is None
    path = model.path.with_name("retrieval.int8.onnx")
    path.write_bytes(fakes.make_retrieval(path.with_name("x.onnx")).read_bytes())
    assert stored_likeness(model, reduced) is None
    path.unlink()
    onnx = pytest.importorskip("onnx")
    onnx.save(fakes.unsealed(model.path), path)
    fakes.write_sealed(path, {"agreement": {"cosine": 0.997}})
    found = likeness_json(model.card, stored_likeness(model, reduced))
    assert found == {"measure": "cosine", "value": 0.997, "photos": 0}


def test_made_up_photos_are_the_same_each_time(tmp_path):
    a, b = (write_photos(tmp_path / name, 2, 50, 70) for name in "ab")
    assert [path.read_bytes() for path in a] == [path.read_bytes() for path in b]
    assert a[0].read_bytes() != a[1].read_bytes()
    assert cv2.imread(str(a[0])).shape == (50, 70, 3)
