import dataclasses
import json
import shutil
import time

import pytest

import fakes
from landmark_onnx.doctor.diagnose import Diagnosis
from landmark_onnx.doctor.environment import Finding
from landmark_onnx.errors import SessionError
from landmark_onnx.files.child_process import Ended
from landmark_onnx.precision import precision_file
from landmark_onnx.runtime.providers import CUDA
from landmark_onnx_bench.gpu import made_up, run
from landmark_onnx_bench.gpu.__main__ import main
from landmark_onnx_bench.gpu.device import MIB, MemoryWatch, card_facts
from landmark_onnx_bench.gpu.forms import FP16, GRAPH, STEPS, TENSORRT16, UNBOUND, step_batches
from landmark_onnx_bench.resolve import entry
from landmark_onnx_bench.sample_photos import write_photos
from landmark_onnx_bench.worker import Worker

QUICK = ("--threads", "1", "--windows", "1", "--seconds", "0.01", "--batch-sizes", "2")
CARD = {"name": "NVIDIA Test 9", "driver": "580.1", "compute_capability": "9.0", "memory_bytes": 80 * 10**9}


@pytest.fixture(autouse=True)
def few_photos(monkeypatch):
    """The photos are drawn for each run."""
    monkeypatch.setattr(run, "PHOTOS", 4)


@pytest.fixture
def model(store):
    return fakes.make_retrieval(store / "models" / "res152_arcmargin.onnx", dim=16)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU, as far as the doctor and nvidia-smi tell, without TensorRT."""
    finding = Finding(part="providers", name=CUDA, level="ok", text="runs")
    found = Diagnosis(asked="cuda", provider=CUDA, findings=(finding,), trials=())
    monkeypatch.setattr(run, "examine", lambda asked, timeout: found)
    monkeypatch.setattr(run, "card_facts", lambda: CARD)


class Children:
    """What stands in for the child processes: how each step ends, and which were asked for."""

    def __init__(self, **ends):
        self.ends, self.asked = ends, []

    def __call__(self, module, step, *, given, timeout):
        self.asked.append((step, given["batch_size"]))
        assert module == "landmark_onnx_bench.gpu.work"
        return self.ends.get(step, Ended({"rows": [], "dropouts": [], "facts": {}}, 0, ""))


def measured(capsys, *arguments):
    """Exit code and what was said."""
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().err


def test_the_whole_flow_on_the_cpu(model, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(run, "step_batches", lambda *asked: step_batches(*asked)[-1:])  # one size is as good as two
    code, err = measured(capsys, "--provider", "cpu", *QUICK, "-o", out)
    assert code == 0, err
    document = json.loads((out / "gpu.json").read_text())
    records = document["records"]
    assert document["environment"]["identity"]["rehearsal"]
    assert list(dict.fromkeys(record["step"] for record in records)) == list(STEPS)
    for record in records:
        forms = STEPS[record["step"]].forms
        labels = {row["contestant"] for row in record["rows"]}
        assert labels == {f"cpu {form.name}" for form in forms if form.precision == "fp32"}
        assert {row["providers"][0] for row in record["rows"]} == {"CPUExecutionProvider"}
        assert len(record["dropouts"]) == sum(form.precision == "fp16" for form in forms), "there is no fp16 file"
    (parity,) = [record for record in records if record["step"] == "parity"]
    assert [row["likeness"] and row["likeness"]["value"] for row in parity["rows"]] == [None, 1.0, 1.0]
    (feed,) = [record for record in records if record["step"] == "feed"]
    assert {row["target"] for row in feed["rows"]} == {"model", "file"}
    takes = next(row["images_per_second"] for row in feed["rows"] if row["target"] == "model")
    (cores,) = feed["facts"]["cores_that_feed"].values()
    exact = takes / feed["facts"]["host_images_per_second_of_a_core"]
    assert -1e-3 * cores <= cores - exact <= 1 + 1e-3 * cores
    text = (out / "gpu.md").read_text()
    assert text.startswith("# no GPU: a rehearsal\n")
    assert "| res152_arcmargin | cpu fp32 without TF32 | cosine 1.00000 |" in text
    assert text.count(".fp16.onnx: no such file") == 2, "once for each form that wants it"
    monkeypatch.setattr(run, "ask_child", Children(parity=None))
    assert measured(capsys, "--provider", "cpu", *QUICK, "-o", out)[0] == 0, "everything is there already"


def test_a_detector_takes_one_image_at_a_time(gpu, store, tmp_path, capsys, monkeypatch):
    fakes.make_det(store / "models" / "res50_oid_v4_detector.onnx")
    children = Children()
    monkeypatch.setattr(run, "ask_child", children)
    assert measured(capsys, "--provider", "cpu", *QUICK, "-o", tmp_path / "out")[0] == 0
    assert set(children.asked) == {(step, 1) for step in STEPS if step != "first"}


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (Ended(None, -11, "loading\nout of memory\n"), "its process died (SIGSEGV): out of memory"),
        (Ended(None, None, ""), "not done within 300 s"),
        (Ended({"error": "no such shape"}, 0, ""), "no such shape"),
    ],
)
def test_a_step_that_fails_stops_no_other_and_is_tried_again(gpu, model, tmp_path, capsys, monkeypatch, end, reason):
    children = Children(parity=end)
    monkeypatch.setattr(run, "ask_child", children)
    code, err = measured(capsys, *QUICK, "-o", tmp_path)
    assert code == 1
    assert f"  failed: {reason}" in err
    assert f"- res152_arcmargin: {reason} (parity, batch 1)" in (tmp_path / "gpu.md").read_text()
    assert {step for step, _ in children.asked} == STEPS.keys() - {"tensorrt"}
    again = Children()
    monkeypatch.setattr(run, "ask_child", again)
    assert measured(capsys, *QUICK, "-o", tmp_path)[0] == 0
    assert again.asked == [("parity", 1)]


def test_the_table_is_there_after_each_step(gpu, model, tmp_path, capsys, monkeypatch):
    def stopped(module, step, **_):
        if step == "memory":
            raise KeyboardInterrupt
        return Ended({"rows": []}, 0, "")

    monkeypatch.setattr(run, "ask_child", stopped)
    code, err = measured(capsys, *QUICK, "-o", tmp_path)
    assert (code, err.splitlines()[-1]) == (130, "interrupted; the same command goes on from here")
    assert [record["step"] for record in json.loads((tmp_path / "gpu.json").read_text())["records"]] == [
        "parity",
        "first",
    ]
    assert (tmp_path / "gpu.md").read_text().startswith("# NVIDIA Test 9\n")


def test_what_changed_is_measured_again(gpu, model, tmp_path, capsys, monkeypatch):
    children = Children()
    monkeypatch.setattr(run, "ask_child", children)
    only = (*QUICK, "--only", "parity", "first", "-o", tmp_path)
    for changed in (False, True):
        assert measured(capsys, *only)[0] == 0
        assert len(children.asked) == 2 + 2 * changed
        fakes.make_retrieval(model, dim=16, seed=5)
    fakes.make_retrieval(precision_file(model, "fp16"), dim=16, seed=5)
    assert measured(capsys, *only)[0] == 0
    assert len(children.asked) == 6, "fp16 could run now"


def test_a_folder_is_of_one_card(gpu, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "ask_child", Children())
    assert measured(capsys, *QUICK)[0] == 0
    folder = tmp_path / "out" / "gpu" / "nvidia-test-9"
    assert TENSORRT_ABSENT in (folder / "gpu.md").read_text()
    monkeypatch.setattr(run, "card_facts", lambda: {**CARD, "name": "another"})
    code, err = measured(capsys, *QUICK, "-o", folder)
    assert code == 1
    assert err.splitlines()[-1].endswith("gpu.json: another card; choose another folder with -o")


TENSORRT_ABSENT = "TensorrtExecutionProvider is not part of the installed ONNX Runtime (TensorRT, batch 1; TensorRT"


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 1, "environment": {}, "records": []}'])
def test_a_damaged_file_is_not_overwritten(gpu, model, tmp_path, capsys, text):
    (tmp_path / "gpu.json").write_text(text)
    code, err = measured(capsys, *QUICK, "-o", tmp_path)
    assert code == 1
    assert "gpu.json: no records of this command" in err
    assert (tmp_path / "gpu.json").read_text() == text


def test_without_a_gpu_one_line_says_what_to_do(model, tmp_path, capsys, monkeypatch):
    remedy = "install landmark-onnx with extra gpu"
    findings = [Finding(part="providers", name="cuda", level="error", text="absent", remedy=remedy)]
    found = Diagnosis(asked="cuda", provider=None, findings=tuple(findings), trials=())
    monkeypatch.setattr(run, "examine", lambda asked, timeout: found)
    code, err = measured(capsys, "-o", tmp_path / "out")
    assert code == 1
    assert err.splitlines()[1:] == [f"landmark_onnx_bench.gpu: error: no GPU to measure: cuda: absent; {remedy}"]
    assert not (tmp_path / "out").exists()


def test_without_a_model_one_line_says_what_brings_one(gpu, tmp_path, capsys):
    code, err = measured(capsys, "-o", tmp_path / "out")
    assert code == 1
    assert "no model in the store: pull one (landmark-onnx models pull NAME)" in err.splitlines()[-1]


def test_two_files_of_one_model_are_refused(gpu, model, tmp_path, capsys):
    other = fakes.make_retrieval(tmp_path / "other.onnx", dim=16, seed=3)
    code, err = measured(capsys, "--models", "res152_arcmargin", other, "-o", tmp_path / "out")
    assert code == 1
    assert "two files of one model: res152_arcmargin;" in err


def test_forms_are_what_their_names_say(model):
    entrant = entry(model)
    made = {form.name: form.contestant(entrant, 8, 1, rehearsal=False) for form in (UNBOUND, GRAPH, FP16, TENSORRT16)}
    options = {name: each.options["provider_options"] for name, each in made.items()}
    unbound = made[UNBOUND.name]
    assert (unbound.runtime, unbound.provider) == ("onnxruntime", CUDA)
    assert options[UNBOUND.name] == {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "1",
    }
    assert options[GRAPH.name]["enable_cuda_graph"] == "1"
    assert [(made[name].provider, made[name].precision) for name in ("fp16", "TensorRT fp16")] == [
        ("cuda", "fp16"),
        ("tensorrt", "fp16"),
    ]


def test_options_reach_the_provider(model, tmp_path):
    photos = [str(path) for path in write_photos(tmp_path / "photos", 1, 60, 80)]
    ours = GRAPH.contestant(entry(model), 1, 1, rehearsal=True)
    given = dataclasses.replace(ours, options={"provider_options": {"use_tf32": "1"}})
    with pytest.raises(SessionError, match="takes no provider options, got: use_tf32"):
        Worker(given, photos)


def test_onnx_runtime_that_takes_another_provider_is_no_contestant(model, tmp_path):
    photos = [str(path) for path in write_photos(tmp_path / "photos", 1, 60, 80)]
    with pytest.warns(UserWarning, match="CUDA"), pytest.raises(SessionError, match="got CPUExecutionProvider"):
        Worker(UNBOUND.contestant(entry(model), 1, 1, rehearsal=False), photos)


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """An nvidia-smi that says what the test has it say."""

    def install(script):
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")

    return install


def test_the_card_as_nvidia_smi_tells_it(smi, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    smi('[ "$1 $2" = "-i 3" ] && echo "NVIDIA H100 80GB HBM3, 580.65.06, 9.0, 81559"')
    assert card_facts() == {
        "name": "NVIDIA H100 80GB HBM3",
        "driver": "580.65.06",
        "compute_capability": "9.0",
        "memory_bytes": 81559 * MIB,
    }


@pytest.mark.parametrize("script", ["exit 9", "echo no devices were found", None])
def test_a_card_that_nvidia_smi_does_not_tell(smi, script, monkeypatch, tmp_path):
    if script:
        smi(script)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    assert card_facts() == {}
    with MemoryWatch() as watch:
        pass
    assert watch.peak_bytes is None


def test_the_most_of_the_memory_beyond_what_was_in_use(smi, tmp_path):
    said = tmp_path / "said"
    smi(f"echo 100; echo 350; echo 200; touch {said}; exec sleep 60")
    deadline = time.monotonic() + 30
    with MemoryWatch() as watch:
        while not said.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert watch.peak_bytes == 250 * MIB


@pytest.mark.paddle
@pytest.mark.slow
def test_networks_are_made_up(tmp_path, monkeypatch):
    monkeypatch.setattr(made_up, "WIDTH", 1 / 16)
    said = []
    (path,) = made_up.made_up_models(["res152_softmax_v1"], tmp_path, said.append)
    assert precision_file(path, "fp16").is_file(), said
    assert entry(path).card.name == "res152_softmax_v1"
    shutil.rmtree(tmp_path / "releases")
    assert made_up.made_up_models(["res152_softmax_v1"], tmp_path, said.append) == [path]
    assert len(said) == 1, "it is not made twice"
