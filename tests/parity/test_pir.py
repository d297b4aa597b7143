"""Models that Paddle 3 saves itself (PIR), exported in an environment with the extra `export-pir`."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("paddle")

import paddle3
from landmark_onnx.cards.catalogue import CARDS_VARIABLE, card
from landmark_onnx.modelfile.metadata import read_metadata
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.runtime.session import Session
from landmark_onnx.tasks import OUTPUTS
from landmark_onnx_export.graphs.io import DIMS
from landmark_onnx_export.paddle.runtime import inference_config, paddle_module, predict
from landmark_onnx_export.paddle.variables import stream_head
from landmark_onnx_export.programs import opened, runnable
from landmark_onnx_export.releases.source import open_source
from landmark_onnx_export.synthetic.release import write_release

pytestmark = pytest.mark.paddle

ENVIRONMENT = os.environ.get("PIR_ENVIRONMENT", "")
"""The folder of a virtual environment with landmark-onnx[cpu,export-pir], as .ci/run makes one."""
needs_environment = pytest.mark.skipif(
    not ENVIRONMENT, reason="PIR_ENVIRONMENT names no environment with landmark-onnx[cpu,export-pir]"
)
CARD = """
name = "{name}"
task = "{task}"
summary = "saved by Paddle 3"
[preprocess]
resize = "exact"
size = 224
interpolation = "linear"
"""


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    """A folder with each network as Paddle 3 saves it, and Paddle's answers."""
    folder = tmp_path_factory.mktemp("paddle3")
    environment = os.environ | {"FLAGS_enable_pir_api": "1", "GLOG_minloglevel": "2"}
    subprocess.run([sys.executable, "-W", "ignore", paddle3.__file__, folder], env=environment, check=True)
    return folder


@pytest.fixture(autouse=True)
def own_cards(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cards"
    folder.mkdir()
    for name in paddle3.NETWORKS:
        task = "cls" if name == "classifier" else "retrieval"
        (folder / f"{name}.toml").write_text(CARD.format(name=name, task=task))
    monkeypatch.setenv(CARDS_VARIABLE, str(folder))
    return folder


def landmark_onnx(*arguments, fails: bool = False) -> str:
    """The command line of the environment that takes PIR; what it prints, or its error."""
    command = [Path(ENVIRONMENT).absolute() / "bin" / "landmark-onnx", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if fails else 0), done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def packed(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        tar.add(folder, folder.name)
    return path


def check_answers(model: Path, name: str, saved: Path, atol: float = 1e-5) -> None:
    """The file answers as the network did in Paddle before it was saved, in every size and batch."""
    session = Session(model, ProviderRequest(name="cpu"))
    session.bind(card(name), own=True)
    answers = np.load(saved / f"{name}.npz")
    [output] = OUTPUTS[card(name).task]
    for number in range(len(paddle3.QUESTIONS)):
        got = session.run({"image": answers[f"question{number}"]})[output]
        wanted = answers[f"answer{number}"]
        assert np.ptp(wanted) > 1e-2
        np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("name", paddle3.NETWORKS)
def test_paddle_answers_for_the_program_in_every_size_as_it_did_before(name, saved, tmp_path):
    with open_source(saved / name) as source:
        assert (source.kind, source.name) == ("pir", name)
        program = opened(card(name), runnable(card(name), source, tmp_path), tmp_path)
        assert program.parameters() == sorted(source.variables)
        names = program.tensors(card(name))
        config = inference_config(*map(str, program.write(tmp_path)), threads=1)
    predictor = paddle_module().inference.create_predictor(config)
    answers = np.load(saved / f"{name}.npz")
    for number in range(len(paddle3.QUESTIONS)):
        [got] = predict(predictor, {names.inputs[0]: answers[f"question{number}"]}, names.outputs)
        np.testing.assert_allclose(got, answers[f"answer{number}"], rtol=0, atol=1e-5)


@needs_environment
@pytest.mark.parametrize("name", paddle3.NETWORKS)
def test_a_folder_exports_and_answers_as_paddle_does(name, saved, tmp_path):
    made = tmp_path / "made.onnx"
    assert "parity with Paddle: cosine 1.0" in landmark_onnx("export", name, "--from", saved / name, "-o", made)
    graph = onnx.load(made).graph
    [image] = graph.input
    assert [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim] == list(DIMS["image"])
    assert [value.name for value in graph.output] == list(OUTPUTS[card(name).task])
    metadata = read_metadata(made)
    assert (metadata["source"]["kind"], metadata["card"]["name"]) == ("pir", name)
    check_answers(made, name, saved)


@needs_environment
def test_a_tar_is_added_and_pulled(saved, store, tmp_path):
    path = packed(saved / "classifier", tmp_path / "download.bin")
    landmark_onnx("models", "add", path, "--name", "classifier")
    landmark_onnx("models", "pull", "classifier")
    assert landmark_onnx("verify", "classifier")
    check_answers(store / "models" / "classifier.onnx", "classifier", saved)


@needs_environment
def test_float16_throughout_is_computed_in_float32(saved, tmp_path):
    """As a GPU saves it; a CPU has no kernels for it, neither has Paddle an answer here."""
    folder = tmp_path / "half"
    folder.mkdir()
    text = (saved / "classifier" / "inference.json").read_text()
    (folder / "inference.json").write_text(text.replace("0.t_f32", "0.t_f16").replace('"float32"', '"float16"'))
    with open_source(saved / "classifier") as source, (folder / "inference.pdiparams").open("wb") as out:
        for name in sorted(source.variables):
            half = source.variables[name].read().astype("<f2")
            out.write(stream_head(half.shape, half.dtype) + half.tobytes())
    made = tmp_path / "made.onnx"
    landmark_onnx("export", "classifier", "--from", folder, "-o", made)
    check_answers(made, "classifier", saved, atol=1e-3)


@needs_environment
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fixed", "Paddle cannot run the program: InvalidArgumentError: In operator matmul"),
        ("unknown", "unsupported operators.*; the program's ops are add, digamma, matmul, mean"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_a_reason(name, words, saved, tmp_path):
    made = tmp_path / "made.onnx"
    error = landmark_onnx("export", "half", "--from", saved / name, "-o", made, fails=True)
    assert re.search(words, error)
    assert len(error.splitlines()) == 1
    assert not made.exists()


@needs_environment
def test_that_environment_refuses_older_formats_and_names_the_other_extra(tmp_path):
    release = write_release(card("res152_softmax_v1"), tmp_path)
    error = landmark_onnx("export", "res152_softmax_v1", "--from", release, fails=True)
    assert re.search(r"variables without a program, which paddle2onnx 2.* cannot.*'landmark-onnx\[cpu,export\]'", error)


def test_without_the_extra_it_is_named(saved, run):
    done = run("export", "classifier", "--from", saved / "classifier")
    assert done.code == 1
    assert re.search(
        r"a program of Paddle 3 \(PIR\), which paddle2onnx 1.* cannot convert; export it in an environment of its own: "
        r"python3 -m venv DIR, then DIR/bin/pip install 'landmark-onnx\[cpu,export-pir\]'",
        done.err,
    )
