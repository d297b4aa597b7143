import base64
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from landmark_onnx.cards.catalogue import CARDS_VARIABLE
from landmark_onnx.doctor import diagnose as doctor
from landmark_onnx.doctor import environment as installation
from landmark_onnx.doctor import provider_trial as trials
from landmark_onnx.doctor.diagnose import examine
from landmark_onnx.doctor.environment import TENSORRT_LIBRARIES, cuda_libraries
from landmark_onnx.extras import versions
from landmark_onnx.runtime.providers import CPU, CUDA, OPENVINO_PACKAGE, TENSORRT, install_hint

FAKE_RUNTIME = '''
"""An onnxruntime whose providers do what how.json says, and whose CPU always works."""
import json, os, pathlib, signal, sys, time

__version__, cuda_version = "1.31.1", "13.0"
HOW = json.loads(pathlib.Path(__file__).with_name("how.json").read_text())


def get_available_providers():
    return list(HOW)


def preload_dlls():
    print("Failed to load libcudnn.so.9")


class SessionOptions:
    def add_session_config_entry(self, key, value):
        pass


class InferenceSession:
    def __init__(self, model, options, providers, enable_fallback=True):
        assert not enable_fallback
        self.asked = providers[0][0]
        self.how = HOW[self.asked]
        self.providers = [name for name, _ in providers]
        if self.how == "replaced":
            lost = "libcublasLt.so.13: cannot open shared object file: No such file or directory"
            print(f"[E:onnxruntime] Failed to load library /x/lib{self.asked}.so with error: {lost}", file=sys.stderr)
            self.providers = self.providers[1:]
        if self.how == "refused":
            raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version\\nstack")
        if self.how == "crashed":
            print("about to die", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "hung":
            time.sleep(600)

    def get_providers(self):
        return self.providers

    def run(self, names, feeds):
        x = feeds["image"].sum(axis=1, keepdims=True)
        sums = x[..., :-1, :-1] + x[..., 1:, :-1] + x[..., :-1, 1:] + x[..., 1:, 1:]
        return [sums + (7 if self.how == "wrong" else 0)]

    def get_provider_graph_assignment_info(self):
        taker = "CPUExecutionProvider" if self.how == "elsewhere" else self.providers[0]
        return [type("Subgraph", (), {"ep_name": taker})]
'''


class Site:
    """A copy of this environment's site-packages, made of links, to take packages out of and put others in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "site-packages"
        self.folder.mkdir()
        real = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        for entry in (entry for place in real for entry in Path(place).iterdir()):
            if not (self.folder / entry.name).exists():
                (self.folder / entry.name).symlink_to(entry)
        self.boot = folder / "boot"
        self.boot.mkdir()
        code = f"import sys\nsys.path[:] = [{str(self.folder)!r} if path in {real!r} else path for path in sys.path]\n"
        (self.boot / "sitecustomize.py").write_text(code)

    def remove(self, *patterns: str) -> None:
        for entry in {entry for pattern in patterns for entry in self.folder.glob(pattern)}:
            entry.unlink()

    def add_distribution(self, name: str, version: str, file: str) -> None:
        folder = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "RECORD").write_text(f"{file},,\n{folder.name}/METADATA,,\n")

    def add_package(self, name: str, code: str, **files: str) -> None:
        (self.folder / name).mkdir()
        for file, text in {"__init__.py": code, **files}.items():
            (self.folder / name / file).write_text(text)

    def fake_runtime(self, how: dict[str, str]) -> None:
        self.remove("onnxruntime*")
        self.add_package("onnxruntime", FAKE_RUNTIME, **{"how.json": json.dumps(how)})
        self.add_distribution("onnxruntime-gpu", "1.31.1", "onnxruntime/__init__.py")

    def doctor(self, *arguments: str, **environment: str):
        """Run the command in a process that has this site alone; its exit code and what it printed as JSON."""
        code = "from landmark_onnx.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, "doctor", "--json", *arguments],
            env={**os.environ, "PYTHONPATH": str(self.boot), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout.startswith("{"), done.stderr
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def finding(diagnosis, name):
    (found,) = [found for found in diagnosis["findings"] if found["name"] == name]
    return found


def texts(diagnosis):
    return {found["name"]: f"{found['level']} | {found['text']} | {found['remedy']}" for found in diagnosis["findings"]}


# This very installation.


def test_this_installation_as_json(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from landmark_onnx.cli import main; main()", "doctor", "--json"],
        capture_output=True,
        check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    diagnosis = json.loads(done.stdout)
    assert set(diagnosis) == {"runs", "asked", "provider", "findings", "trials"}
    assert (diagnosis["runs"], diagnosis["asked"], diagnosis["provider"]) == (True, "auto", CPU)
    for found in diagnosis["findings"]:
        assert set(found) == {"part", "name", "level", "text", "remedy"}
        assert found["level"] in ("ok", "warning", "error")
        assert bool(found["remedy"]) == (found["level"] != "ok"), found
    for trial in diagnosis["trials"]:
        assert set(trial) == {"provider", "state", "got", "reason", "seconds"}
    (cpu,) = [trial for trial in diagnosis["trials"] if trial["provider"] == CPU]
    assert (cpu["state"], cpu["got"]) == ("runs", [CPU])
    assert not (tmp_path / "Microsoft").exists(), "ONNX Runtime was imported before its telemetry was off"


def test_this_installation_as_a_table(capsys):
    from landmark_onnx.cli import main

    with pytest.raises(SystemExit) as left:
        main(["doctor", "--provider", "cpu"])
    output = capsys.readouterr().out
    assert left.value.code == 0
    assert output.splitlines()[-1] == "--provider cpu: models run on CPUExecutionProvider"
    assert re.search(r"^ok +CPUExecutionProvider +runs; a session gets CPUExecutionProvider", output, re.MULTILINE)


def test_the_table_shows_remedies_and_the_verdict(capsys, monkeypatch):
    from landmark_onnx.cli import main

    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version(name if name != "openvino" else "none"))
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--provider", "openvino"])
    output = capsys.readouterr().out
    assert left.value.code == 1
    assert re.search(r"^error +openvino +the openvino package is not installed", output, re.MULTILINE)
    assert "-> in a fresh environment install landmark-onnx with extra openvino" in output
    assert output.splitlines()[-1] == "--provider openvino: models cannot run"


def test_openvino_needs_no_onnx_runtime(monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr(doctor, "_imported", lambda name, timeout: {"error": "no such module", "version": "0"})
    monkeypatch.setattr(doctor, "PACKAGES", {"onnxruntime": "onnxruntime", "numpy": "numpy", "cv2": "opencv"})
    diagnosis = examine("openvino")
    (trial,) = diagnosis.trials
    assert (trial.provider, trial.state, trial.got) == (OPENVINO_PACKAGE, "runs", (OPENVINO_PACKAGE,))
    assert not diagnosis.runs, "numpy is broken as well"
    answers = {"onnxruntime": {"error": "no such module"}}
    monkeypatch.setattr(doctor, "_imported", lambda name, timeout: answers.get(name, {"version": "1"}))
    diagnosis = examine("openvino")
    assert diagnosis.provider == OPENVINO_PACKAGE
    assert [finding.level for finding in diagnosis.findings if finding.name == "flavours"] == ["warning"]


def test_a_provider_that_takes_no_node_is_told_apart():
    """Azure's is compiled into every CPU build, starts anywhere, and leaves all nodes of ours to the CPU."""
    azure = "AzureExecutionProvider"
    trial = trials.try_provider(azure, timeout=60)
    assert (trial.state, trial.got) == ("elsewhere", (azure, CPU))
    diagnosis = examine(azure)
    assert not diagnosis.runs


# Flavours.


def test_both_flavours_of_onnx_runtime(site):
    site.add_distribution("onnxruntime-gpu", "1.31.1", "onnxruntime/__init__.py")
    site.add_distribution("onnxruntime-extensions", "0.15", "onnxruntime_extensions/__init__.py")
    code, diagnosis = site.doctor("--provider", "cpu")
    flavours = finding(diagnosis, "flavours")
    assert flavours["level"] == "error"
    assert "onnxruntime-gpu " in flavours["text"]
    assert flavours["remedy"].startswith("pip uninstall -y onnxruntime onnxruntime-gpu, then pip install")
    assert code == 0, "what was asked for runs all the same"


@pytest.mark.parametrize("record", [True, False])
def test_the_empty_folder_that_uninstalling_one_of_two_leaves(site, record):
    site.remove("onnxruntime", *([] if record else ["onnxruntime*"]))
    (site.folder / "onnxruntime" / "capi").mkdir(parents=True)
    code, diagnosis = site.doctor()
    flavours = finding(diagnosis, "flavours")
    assert code == 1
    assert flavours["level"] == "error"
    assert "an empty folder is left of it" in flavours["text"]
    wanted = "onnxruntime" if record else "'landmark-onnx[cpu]'"
    assert flavours["remedy"] == f"pip install --force-reinstall {wanted}"


def test_no_onnx_runtime_and_two_opencvs(site):
    site.remove("onnxruntime*", "openvino*")
    site.add_distribution("opencv-python", "4.12.0.88", "cv2/__init__.py")
    code, diagnosis = site.doctor()
    assert code == 1
    assert texts(diagnosis)["flavours"].startswith("error | not installed | pip install 'landmark-onnx[cpu]'")
    opencv = finding(diagnosis, "opencv flavours")
    assert opencv["level"] == "error"
    assert opencv["remedy"] == (
        "pip uninstall -y opencv-python opencv-python-headless, then pip install opencv-python-headless"
    )
    assert diagnosis["trials"] == []


def test_an_opencv_that_cannot_be_imported(site):
    site.remove("cv2")
    site.add_package("cv2", "raise ImportError('libGL.so.1: cannot open shared object file')")
    code, diagnosis = site.doctor("--provider", "cpu")
    opencv = finding(diagnosis, "opencv-python-headless")
    assert (code, opencv["level"]) == (1, "error"), "no image can be read without it"
    assert "libGL.so.1" in opencv["text"]
    assert opencv["remedy"].startswith("pip uninstall -y opencv-python")


def test_a_package_whose_import_kills_the_process(site):
    site.remove("numpy")
    site.add_package("numpy", "import os; os._exit(3)")
    code, diagnosis = site.doctor("--provider", "cpu")
    assert code == 1
    assert finding(diagnosis, "numpy")["text"] == "cannot be imported: the process died (exit code 3): without a word"
    assert "packages" in {found["part"] for found in diagnosis["findings"]}, "the rest is told all the same"


# Providers that are compiled in, and what comes of them.


def diagnose(site, monkeypatch, how, asked="auto", timeout=60.0):
    """Examine in this process, with children that see a fake runtime."""
    site.fake_runtime(how)
    monkeypatch.setenv("PYTHONPATH", str(site.boot))
    return examine(asked, timeout=timeout).to_json()


def test_a_cuda_that_silently_falls_back(site):
    site.fake_runtime({CUDA: "replaced", CPU: "runs"})
    code, diagnosis = site.doctor()
    cuda = finding(diagnosis, CUDA)
    assert (code, diagnosis["provider"]) == (0, CPU), "auto goes on without it, as the other commands do"
    assert cuda["level"] == "warning"
    assert "falls back: libcublasLt.so.13: cannot open shared object file" in cuda["text"]
    assert "with extra gpu" in cuda["remedy"]

    code, diagnosis = site.doctor("--provider", "cuda")
    assert (code, diagnosis["provider"]) == (1, None)
    assert finding(diagnosis, CUDA)["level"] == "error"
    assert [trial["provider"] for trial in diagnosis["trials"]] == [CUDA], "the others were not asked for"


OUTCOMES = {
    "runs": "runs; a session gets runsExecutionProvider, CPUExecutionProvider; first answer after",
    "elsewhere": "starts, but it left the Conv to CPUExecutionProvider",
    "refused": "does not start: RuntimeError: CUDA failure 35: CUDA driver version is insufficient",
    "replaced": "does not start, and ONNX Runtime falls back: libcublasLt.so.13: cannot open",
    "wrong": "answers wrongly: a Conv gave",
    "crashed": "crashes: the process died (SIGSEGV): about to die",
}


def test_what_comes_of_providers(site, monkeypatch):
    how = {f"{outcome}ExecutionProvider": outcome for outcome in OUTCOMES}
    diagnosis = diagnose(site, monkeypatch, how | {CPU: "runs"})
    assert diagnosis["provider"] == CPU
    for name, outcome in how.items():
        found = finding(diagnosis, name)
        assert found["text"].startswith(OUTCOMES[outcome])
        assert found["level"] == ("ok" if outcome in ("runs", "elsewhere") else "warning")
        assert bool(found["remedy"]) == (found["level"] == "warning")


@pytest.mark.parametrize(
    ("how", "runs", "level"),
    [
        ("runs", CUDA, "ok"),
        ("elsewhere", CPU, "warning"),
        ("refused", CPU, "warning"),
        ("wrong", None, "error"),
        ("crashed", None, "error"),
        ("hung", None, "error"),
    ],
)
def test_auto_takes_what_a_session_would(how, runs, level, monkeypatch):
    """The CPU takes over from what does not start; what dies or lies takes the whole program with it."""
    states = {TENSORRT: "refused", CUDA: how, CPU: "runs"}
    answer = {"version": "1.32.0", "file": "", "providers": list(states), "cuda": "13.0"}
    monkeypatch.setattr(doctor, "ask", lambda *question, timeout: trials.Reply(answer, "answered"))
    monkeypatch.setattr(doctor, "try_provider", lambda name, timeout: trials.Trial(provider=name, state=states[name]))
    diagnosis = examine()
    assert diagnosis.provider == runs
    assert diagnosis.runs == (runs is not None)
    levels = {found.name: found.level for found in diagnosis.findings}
    assert (levels[TENSORRT], levels[CUDA], levels[CPU]) == ("warning", level, "ok")


@pytest.mark.parametrize(
    ("provider", "state", "reason", "remedy"),
    [
        (CUDA, "replaced", "libcuda.so.1: cannot open shared object file", installation.DRIVER_HINT),
        (CUDA, "refused", "CUDA driver version is insufficient", installation.DRIVER_HINT),
        (CUDA, "refused", "no CUDA-capable device is detected", "check CUDA_VISIBLE_DEVICES"),
        (TENSORRT, "crashed", "the process died (SIGSEGV)", "check the GPU with nvidia-smi"),
        (TENSORRT, "refused", "libnvinfer.so.10: cannot open shared object file", install_hint(TENSORRT)),
        (CPU, "crashed", "the process died (SIGILL)", "pip install --force-reinstall onnxruntime"),
    ],
)
def test_each_failure_has_its_remedy(provider, state, reason, remedy):
    trial = trials.Trial(provider=provider, state=state, reason=reason)
    assert doctor._provider("auto", trial, None).remedy.startswith(remedy)


def test_a_provider_that_hangs(site, monkeypatch):
    start = time.monotonic()
    diagnosis = diagnose(site, monkeypatch, {CUDA: "hung", CPU: "runs"}, timeout=4)
    assert time.monotonic() - start < 30
    assert diagnosis["provider"] is None
    assert finding(diagnosis, CUDA)["text"] == "hangs: no answer within 4 s"
    assert finding(diagnosis, CPU)["level"] == "ok", "one that hangs must not keep the others from being tried"


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("tensorrt", "TensorrtExecutionProvider is not part of the installed ONNX Runtime"),
        ("gpu", "no execution provider is called 'gpu'"),
    ],
)
def test_a_provider_that_is_not_there(site, monkeypatch, asked, text):
    diagnosis = diagnose(site, monkeypatch, {CUDA: "runs", CPU: "runs"}, asked)
    absent = finding(diagnosis, asked)
    assert not diagnosis["runs"]
    assert (absent["level"], absent["text"]) == ("error", text)
    assert absent["remedy"]


# Facts.


def test_the_model_of_the_trials_is_what_onnx_makes():
    conv = helper.make_node("Conv", ["image", "ones"], ["sums"])
    ones = helper.make_tensor("ones", TensorProto.FLOAT, [1, 3, 2, 2], [1.0] * 12)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    sums = helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["n", 1, "y", "x"])
    graph = helper.make_graph([conv], "conv", [image], [sums], [ones])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    assert onnx.load_from_string(trials.CONV) == model, base64.b64encode(model.SerializeToString()).decode()


def test_a_child_that_does_not_know_the_question():
    reply = trials.ask("nonsense", timeout=60)
    assert (reply.answer, reply.end) == (None, "crashed")
    assert reply.reason == "the process died (exit code 1): KeyError: 'nonsense'"


def test_a_child_that_is_late_is_ended(site, monkeypatch):
    site.remove("numpy")
    pid = site.folder / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"
    site.add_package("numpy", code)
    monkeypatch.setenv("PYTHONPATH", str(site.boot))
    reply = trials.ask("package", "numpy", timeout=2)
    assert reply.end == "hung"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_what_lies_in_the_current_folder_is_not_the_installation(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise ImportError('not this one')")
    monkeypatch.chdir(tmp_path)
    assert "version" in trials.ask("package", "numpy", timeout=60).answer


def test_libraries_are_found_by_their_own_name():
    reply = trials.ask("libraries", "libc.so.6", "libnothing.so.1", timeout=60)
    assert reply.answer["libnothing.so.1"] is None
    assert Path(reply.answer["libc.so.6"]).is_file()


@pytest.mark.parametrize(
    ("answer", "cuda", "level", "text", "remedy"),
    [
        ({}, "", "ok", "none (libcuda.so.1 not found)", ""),
        ({}, "13.0", "warning", "none", "install or update NVIDIA's driver"),
        ({"libcuda.so.1": "/lib/c", "driver": "13.0"}, "13.0", "ok", "/lib/c, for CUDA 13.0", ""),
        ({"libcuda.so.1": "/lib/c", "driver": "13.2"}, "12.8", "ok", "/lib/c, for CUDA 13.2", ""),
        ({"libcuda.so.1": "/lib/c", "driver": "12.8"}, "13.0", "warning", "wants CUDA 13.0", "[gpu-cu12]"),
        ({"libcuda.so.1": "/lib/c", "driver": "12.8"}, "", "warning", "makes no use of it", "landmark-onnx[gpu]"),
    ],
)
def test_the_driver(answer, cuda, level, text, remedy):
    found = installation.driver(answer, "libcuda.so.1", cuda)
    assert found.level == level
    assert text in found.text
    assert remedy in found.remedy
    assert bool(found.remedy) == (level != "ok")


def test_libraries_that_are_missing_are_named():
    wanted = cuda_libraries("12.8")
    assert wanted[:3] == ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12")
    there = dict.fromkeys(wanted, "/usr/lib/libx.so")
    assert installation.libraries(CUDA, there, wanted, "hint").level == "ok"
    found = installation.libraries(TENSORRT, there, TENSORRT_LIBRARIES, "hint")
    assert (found.level, found.remedy) == ("warning", "hint")
    assert found.text == "not found: libnvinfer.so.10, libnvonnxparser.so.10"


def test_a_quota_smaller_than_the_machine(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: Fast CPU\nflags\t\t: fpu sse2 avx2 avx512f\n\nflags\t: fpu\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    found = installation._cpu(info, None)
    assert (found.level, found.text) == ("ok", "Fast CPU, 8 cores, avx2 avx512f")
    found = installation._cpu(info, 2.5)
    assert found.level == "ok"
    assert "this container may use 2.5 of them" in found.text
    assert installation._cpu(tmp_path / "none", None).level == "ok"


def test_the_store(store, monkeypatch):
    assert ": 0 models, 0.00 GB" in installation.store().text
    (store / "models").mkdir(parents=True)
    (store / "models" / "a.onnx").write_bytes(bytes(10_000_000))
    found = installation.store()
    assert (found.level, ": 1 models, 0.01 GB" in found.text) == ("ok", True)
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 30}))
    assert "too little for an export" in installation.store().text
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = installation.store()
    assert (found.level, "read-only" in found.text) == ("warning", True)
    assert "LANDMARK_ONNX_HOME" in found.remedy


def test_a_card_that_stops_every_command(tmp_path, monkeypatch):
    assert installation.model_cards().level == "ok"
    (tmp_path / "mine.toml").write_text("name = 1")
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path))
    found = installation.model_cards()
    assert found.level == "error"
    assert "mine.toml" in found.text


def test_tools_that_are_not_there():
    assert versions("numpy", "no-such-thing").keys() == {"numpy"}
