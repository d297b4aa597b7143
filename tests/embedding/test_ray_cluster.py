"""`landmark-onnx embed --ray`: a local cluster of two workers makes the same bytes, also when one of them is killed."""

import builtins
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

import fakes
from encoded import encode
from landmark_onnx.embedding.feature_folder import open_features
from landmark_onnx.embedding.identity import identify
from landmark_onnx.embedding.job import FinishedShard, Job, embed
from landmark_onnx.embedding.listing import list_items
from landmark_onnx.embedding.manifest import FeatureManifest, ModelIdentity
from landmark_onnx.embedding.ray_cluster import ShardMaker, WorkerModel, on_ray
from landmark_onnx.embedding.request import FeatureRequest
from landmark_onnx.errors import MissingExtraError
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.images.decode import ReadOptions
from landmark_onnx.runtime.providers import ProviderRequest

pytest.importorskip("pyarrow")

PROGRAM = str(Path(sysconfig.get_path("scripts"), "landmark-onnx"))


def test_ray_is_imported_for_it_alone(tmp_path, monkeypatch):
    def refuse(name, *arguments, real=builtins.__import__, **options):
        if name.partition(".")[0] == "ray":
            raise ImportError(name="ray")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    manifest = FeatureManifest(
        models=(ModelIdentity("a", "", 1, "", "fp32"),), dtype="float32", shard_size=1, inputs="", rows=1
    )
    work = on_ray("local", [])
    job = Job(tmp_path, tmp_path / "plan", manifest)
    assert list(work(job, [], lambda rows: None)) == []
    with pytest.raises(MissingExtraError, match=r"landmark-onnx\[ray\]"):
        list(work(job, [0], lambda rows: None))


@pytest.fixture
def command(tmp_path) -> list[str]:
    """400 rows of 8 images, 20 to a shard, each of which takes some time; two of the rows are bad."""
    pytest.importorskip("ray")
    for number in range(8):
        write_image(tmp_path / f"{number}.jpg", fakes.photo(900, 1200 if number % 2 else 900, seed=number))
    names = [f"{number % 8}.jpg" for number in range(400)]
    names[33] = names[333] = "missing.jpg"
    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in names))
    model = str(fakes.make_retrieval(tmp_path / "model.onnx", dim=16))
    return ["embed", "list.txt", "-m", model, "--shard-size", "20", "--threads", "1", "-q", "-o"]


def start(command: list[str], folder: Path, *options: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [PROGRAM, *command, folder.name, *options],
        cwd=folder.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    """What it said of the two bad rows."""
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1, err
    assert err.count("missing.jpg: cannot be read: No such file or directory") == 2
    return err


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def workers(parent: int) -> list[int]:
    """The processes of Ray's that hold models: offspring of the session that `parent` started."""
    psutil = pytest.importorskip("psutil")
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if process.name().startswith("ray::") and "MapWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Ray names its processes here")
def test_a_worker_that_is_killed_loses_and_doubles_nothing(command, tmp_path):
    finish(start(command, tmp_path / "alone"))
    whole = contents(tmp_path / "alone")
    folder = tmp_path / "cluster"
    process = start(command, folder, "--ray", "local", "--workers", "2")
    victims = set()
    while process.poll() is None and len(victims) < 2:
        done = len(list(folder.glob("part-*.parquet")))
        alive = set(workers(process.pid)) - victims
        if done > 2 + 6 * len(victims) and alive:
            victims.add(min(alive))
            os.kill(min(alive), signal.SIGKILL)
        time.sleep(0.02)
    err = finish(process)
    assert len(victims) == 2, err
    assert "Traceback" not in err
    assert contents(folder) == whole
    features = open_features(folder)
    assert features.count == 398


@pytest.mark.slow
def test_one_machine_goes_on_where_a_cluster_was_killed(command, tmp_path):
    finish(start(command, tmp_path / "alone"))
    folder = tmp_path / "cluster"
    process = start(command, folder, "--ray", "local")
    while not list(folder.glob("part-*.parquet")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    finish(start(command, folder))
    assert contents(folder) == contents(tmp_path / "alone")


@pytest.mark.slow
def test_an_error_on_the_cluster_is_one_line(command, tmp_path):
    folder = tmp_path / "cluster"
    finish(start(command, folder))
    (folder / "part-00003.parquet").unlink()
    (folder / "part-00003.parquet").mkdir()
    process = start(command, folder, "--ray", "local")
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert re.search(
        r"error: the work failed on the cluster: .*part-00003.parquet: Is a directory; put that right", err
    )


def test_no_cluster_at_an_address(tmp_path, command):
    process = start(command, tmp_path / "cluster", "--ray", "127.0.0.1:1")
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "--ray 127.0.0.1:1: no Ray cluster answers there" in err


def test_a_worker_hands_its_warnings_on(tmp_path):
    """What it says of images itself is seen by nobody."""
    whole = encode(".jpg", fakes.photo())
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 3 // 4] + b"\xff\xd9")
    model = fakes.make_retrieval(tmp_path / "model.onnx", dim=16)
    reading = ReadOptions(damaged="accept")
    recipe = WorkerModel(
        path=model, provider=ProviderRequest(name="cpu"), threads=1, batch_size=1, reading=reading, card=None
    )
    answers = []

    def work(job, numbers, on_done):
        for number in numbers:
            answer = {key: values[0] for key, values in ShardMaker(job, [recipe])({"number": [number]}).items()}
            answers.append(answer)
            yield FinishedShard(answer["number"], answer["failed"], answer["sha256"])

    items = list_items([str(tmp_path / "cut.jpg"), "none.jpg"])
    request = FeatureRequest(models=[identify(recipe.load())], damaged="accept")
    features = embed(items, request, tmp_path / "features", work)
    assert (features.count, features.manifest.damaged) == (1, "accept")
    (answer,) = answers
    assert answer["error"] == ""
    assert json.loads(answer["warnings"]) == [
        f"{tmp_path}/cut.jpg: damaged: premature end of data segment: taken as it is"
    ]


@pytest.mark.slow
def test_warnings_of_images_come_from_a_cluster(command, tmp_path):
    whole = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "0.jpg").write_bytes(whole[: len(whole) * 3 // 4] + b"\xff\xd9")
    err = finish(start(command, tmp_path / "cluster", "--ray", "local", "--damaged", "accept"))
    warning = "landmark-onnx: warning: 0.jpg: damaged: premature end of data segment: taken as it is\n"
    assert err.count(warning) == 1, "however many workers and images say the same"
