import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

import fakes
from landmark_onnx import Retriever
from landmark_onnx.cards.catalogue import card, cards, read_card
from landmark_onnx.cards.geometry import fixed_sides, side_bounds
from landmark_onnx.cards.schema import ModelCard, Preprocess
from landmark_onnx.cli import main
from landmark_onnx.deploy import bundle as bundles
from landmark_onnx.deploy import triton
from landmark_onnx.deploy.bundle import bundle, card_toml, check_bundle, licences, requirements
from landmark_onnx.deploy.lockfile import FILE, read_manifest
from landmark_onnx.deploy.triton import CARD_PARAMETER, Serving
from landmark_onnx.errors import CardError, ModelFileError, UnknownModelError
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.runtime.backend import Port
from landmark_onnx.runtime.providers import CPU, ProviderRequest
from landmark_onnx.store.catalogue import exported_path

CARD = fakes.small_card(fakes.RETRIEVAL)
MAKE = {fakes.RETRIEVAL: fakes.make_retrieval, fakes.CLS: fakes.make_cls, fakes.DET: fakes.make_det}
LABELS = {0: "background", 1: "a tower", 3: 'a "bridge"\nof two lines'}


@pytest.fixture
def models(tmp_path):
    """A model of each task, outside the store."""
    return [make(tmp_path / "made" / f"{name}.onnx") for name, make in MAKE.items()]


@pytest.fixture
def made(models, tmp_path):
    """A bundle of them."""
    bundle(models, tmp_path / "bundle")
    return tmp_path / "bundle"


def files(folder):
    """What is in a folder: name -> bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*arguments):
    """Run the command line in this process; its exit code."""
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments)])
    return left.value.code


# What is in a bundle.


def test_a_bundle_has_models_cards_and_a_lock(models, made):
    lock = read_manifest(made)
    assert set(lock.files) == {
        "LICENCES.txt",
        "requirements.txt",
        *(f"models/{name}.onnx" for name in MAKE),
        *(f"cards/{name}.toml" for name in MAKE),
    }
    found = files(made)
    assert set(found) == {*lock.files, FILE}
    for name, wanted in lock.files.items():
        assert (wanted.sha256, wanted.size) == (hashlib.sha256(found[name]).hexdigest(), len(found[name]))
    for path, name in zip(models, MAKE, strict=True):
        assert found[f"models/{name}.onnx"] == path.read_bytes()
        assert read_card(made / "cards" / f"{name}.toml") == fakes.small_card(name)
    assert [(model.name, model.task, model.provider) for model in lock.models] == [
        (name, card(name).task, CPU) for name in MAKE
    ]
    assert all(model.agreement["cosine"] > 0.99999 for model in lock.models)
    assert lock.layout == "store"
    for package in ("landmark-onnx", "onnxruntime", "numpy", "opencv-python-headless"):
        assert lock.ran_on[package] == importlib.metadata.version(package)
    assert read_manifest(made) == lock


def test_licences_and_notices_come_along(tmp_path):
    shipped = CARD
    mine = dataclasses.replace(shipped, licence="MIT", licence_url="https://example.org/mit", notice="\nCopyright me\n")
    path = fakes.make_retrieval(tmp_path / "a.onnx", model_card=mine)
    bundle([path], tmp_path / "bundle")
    text = (tmp_path / "bundle" / "LICENCES.txt").read_text()
    assert text == f"{mine.name}: {mine.summary}\nlicence: MIT\nits text: https://example.org/mit\n\nCopyright me\n"
    apache = dataclasses.replace(mine, name="other", licence="Apache-2.0")
    found = licences([mine, apache, mine])
    assert found.count("Copyright me") == 2
    own = importlib.metadata.distribution("landmark-onnx").read_text("licenses/LICENSE")
    assert own is None or found.endswith(f"\n\n{own}\n")


def test_the_same_models_give_the_same_bundle(models, made, tmp_path):
    bundle(models, tmp_path / "again")
    assert files(tmp_path / "again") == files(made)


def test_a_bundle_is_a_store_where_there_is_no_export_code(made, tmp_path):
    write_image(tmp_path / "a.png", fakes.photo())
    code = """
import sys
sys.modules.update(dict.fromkeys(("paddle", "onnx", "landmark_onnx_export")))
from landmark_onnx.cli import main
main()"""
    for name, command, key in (
        (fakes.RETRIEVAL, ["retrieval", "a.png"], "cosine"),
        (fakes.CLS, ["cls"], "labels"),
        (fakes.DET, ["det"], "detections"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "a.png", "-m", name, "--format", "json"],
            cwd=tmp_path,
            env=os.environ | {"LANDMARK_ONNX_HOME": str(made), "LANDMARK_ONNX_OFFLINE": "1"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)[0][key]


def test_using_a_bundle_does_not_change_it(made, monkeypatch):
    before = files(made)
    monkeypatch.setenv("LANDMARK_ONNX_HOME", str(made))
    assert run("verify", *MAKE, "--provider", "cpu") == 0
    assert {name: data for name, data in files(made).items() if name in before} == before
    assert check_bundle(made)[1] == ()
    bundles.check_replaceable(made)


def test_requirements_are_pins_without_an_address():
    lines = requirements().splitlines()
    assert lines[0].startswith("#")
    pins = dict(line.split("==") for line in lines[1:])
    assert {"landmark-onnx", "numpy", "opencv-python-headless", "typer", "onnxruntime"} <= set(pins)
    assert pins == {name: importlib.metadata.version(name) for name in pins}
    assert not {"paddlepaddle", "onnx", "pytest"} & set(pins)
    assert not re.search(r"://|--|index|@", "\n".join(lines))


def test_requirements_of_a_gpu_build_name_both_extras(monkeypatch):
    monkeypatch.setattr(bundles, "owners", lambda *names: {"onnxruntime-gpu": "1.31.1"})
    assert "onnxruntime-gpu[cuda,cudnn]==1.31.1" in requirements().splitlines()


@pytest.mark.parametrize("name", [*cards()])
def test_every_card_survives_as_toml(name, tmp_path):
    (tmp_path / "card.toml").write_text(card_toml(card(name)), encoding="utf-8")
    assert read_card(tmp_path / "card.toml") == card(name)


def test_a_card_of_difficult_texts_survives_as_toml(tmp_path):
    post = dataclasses.replace(card(fakes.CLS).postprocess, normalise=True, score=1e-7)
    hard = dataclasses.replace(
        card(fakes.CLS),
        summary='"quoted" \\back\nline\ttab \x7f \x01 \u2028 été 塔 = [x] # no',
        inputs={"image": "x"},
        outputs={"probability": 'a "b"'},
        postprocess=post,
    )
    (tmp_path / "card.toml").write_bytes(card_toml(hard).encode())
    assert read_card(tmp_path / "card.toml") == hard


def test_a_name_means_the_store(store):
    fakes.make_cls(store / "models" / f"{fakes.CLS}.onnx")
    lock = bundle([fakes.CLS], store.parent / "out")
    assert [model.file for model in lock.models] == [f"models/{fakes.CLS}.onnx"]


def with_weights_beside(folder):
    """A sealed model whose weights are in a file of their own, as a large export has them."""
    small = fakes.small_card(fakes.RETRIEVAL)
    model = fakes.unsealed(fakes.make_retrieval(folder / "small.onnx"))
    path = folder / f"{fakes.RETRIEVAL}.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    data = (folder / "weights").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{fakes.RETRIEVAL}-{sha256[:12]}.onnx.data"
    (folder / "weights").rename(folder / name)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = name if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    fakes.write_sealed(path, {"card": small.to_dict(), "data": {"file": name, "sha256": sha256}})
    return path, name


@pytest.mark.parametrize("serving", [None, Serving()])
def test_weights_beside_a_model_come_along(tmp_path, serving):
    path, data = with_weights_beside(tmp_path / "made")
    lock = bundle([path], tmp_path / "out", serving=serving)
    (model,) = lock.models
    assert (Path(model.file).parent / data).as_posix() in lock.files
    assert model.agreement is None, "it was sealed without an answer to compare with"
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / model.file))
    assert session.run(None, {"image": np.zeros((1, 3, 32, 32), np.float32)})[0].shape == (1, 512)


@pytest.mark.parametrize("serving", [None, Serving()])
def test_a_reduced_precision_alone_or_with_fp32(serving, tmp_path, monkeypatch):
    fp32 = fakes.make_retrieval(exported_path("mine"), model_card=dataclasses.replace(CARD, name="mine"))
    made = fakes.make_reduced(fp32, model_card=dataclasses.replace(CARD, name="mine"))
    place = "{}/1/model.onnx" if serving else "models/{}.onnx"
    int8 = ProviderRequest(name="cpu", precision="int8")
    lock = bundle(["mine"], tmp_path / "one", provider=int8, serving=serving)
    assert [(each.name, each.precision, each.file) for each in lock.models] == [
        ("mine", "int8", place.format("mine.int8"))
    ]
    assert (tmp_path / "one" / place.format("mine.int8")).read_bytes() == made.read_bytes()
    assert not (tmp_path / "one" / place.format("mine")).exists()
    lock = bundle(["mine.int8", "mine"], tmp_path / "both", serving=serving)
    assert {(each.name, each.precision) for each in lock.models} == {("mine", "fp32"), ("mine", "int8")}
    assert read_manifest(tmp_path / "both") == lock
    if serving:
        assert 'name: "mine.int8"' in (tmp_path / "both" / "mine.int8" / "config.pbtxt").read_text()
        return
    monkeypatch.setenv("LANDMARK_ONNX_HOME", str(tmp_path / "one"))
    assert Retriever("mine", precision="int8").session.path == tmp_path / "one" / "models" / "mine.int8.onnx"
    with pytest.raises(ModelFileError, match="mine is there with --precision int8"):
        Retriever("mine")
    monkeypatch.setenv("LANDMARK_ONNX_HOME", str(tmp_path / "both"))
    assert [Retriever("mine", precision=each).precision for each in ("fp32", "int8")] == ["fp32", "int8"]


def test_a_reduced_file_of_another_model_is_not_bundled(tmp_path):
    fp32 = fakes.make_retrieval(tmp_path / "a" / "x.onnx")
    made = fakes.make_reduced(fp32)
    other = fakes.make_retrieval(tmp_path / "b" / "x.onnx", seed=5)
    with pytest.raises(ModelFileError, match=f"{made}: made from another model than {other}"):
        bundle([other, made], tmp_path / "out")
    fakes.make_retrieval(fp32, seed=5)
    with pytest.raises(ModelFileError, match="rebuild it with: landmark-onnx quantize"):
        bundle([fp32], tmp_path / "out", provider=ProviderRequest(precision="int8"))
    assert not (tmp_path / "out").exists()


def test_a_lock_from_before_precisions_means_fp32(made):
    data = json.loads((made / FILE).read_text())
    for each in data["models"]:
        del each["precision"]
    (made / FILE).write_text(json.dumps(data))
    assert {each.precision for each in read_manifest(made).models} == {"fp32"}


def test_weights_that_are_gone_or_elsewhere(tmp_path):
    path, data = with_weights_beside(tmp_path / "made")
    path.with_name(data).unlink()
    with pytest.raises(ModelFileError):
        bundle([path], tmp_path / "out")
    metadata = {"card": fakes.small_card(fakes.CLS).to_dict(), "data": {"file": "../secret", "sha256": "0" * 64}}
    (tmp_path / "secret").write_text("not yours")
    other = tmp_path / "made" / "other.onnx"
    onnx.save(fakes.unsealed(fakes.make_cls(tmp_path / "made" / "cls.onnx")), other)
    fakes.write_sealed(other, metadata)
    with pytest.raises(ModelFileError, match=r"wanted NAME-HASH\.onnx\.data"):
        bundle([other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What is refused.


def test_a_model_that_is_damaged_or_answers_otherwise_is_not_bundled(models, tmp_path):
    data = bytearray(models[0].read_bytes())
    data[len(data) // 3] ^= 1
    models[0].write_bytes(data)
    with pytest.raises(ModelFileError, match=f"{models[0].name}: damaged"):
        bundle(models, tmp_path / "out")

    model = fakes.unsealed(models[1])
    other = fakes.make_cls(tmp_path / "other.onnx", seed=5)
    probe = next(json.loads(entry.value) for entry in onnx.load(other).metadata_props if entry.key.endswith("probe"))
    onnx.save(model, models[1])
    fakes.write_sealed(models[1], {"card": fakes.small_card(fakes.CLS).to_dict(), "probe": probe})
    with pytest.raises(ModelFileError, match="does not answer as Paddle did"):
        bundle(models[1:], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "other.onnx"], "nothing is left behind"


def test_models_that_cannot_be_bundled(models, tmp_path):
    with pytest.raises(ModelFileError, match=f"called '{fakes.RETRIEVAL}' is in the bundle already"):
        bundle([models[0], models[0]], tmp_path / "out")
    with pytest.raises(UnknownModelError):
        bundle(["nothing"], tmp_path / "out")
    onnx.save(fakes.unsealed(models[0]), models[0])
    with pytest.raises(ModelFileError, match=r"no seal: .* landmark-onnx models add FILE --card CARD"):
        bundle([models[0]], tmp_path / "out")


def test_a_folder_that_is_no_bundle_is_not_overwritten(models, tmp_path):
    target = tmp_path / "mine"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "thesis.txt").write_text("years of work")
    for content in (None, "{}", '{"format": "landmark-onnx bundle", "version": 2, "layout": "store"}'):
        if content is not None:
            (target / FILE).write_text(content)
        stages = []
        with pytest.raises(ModelFileError, match="refused to overwrite what is no bundle"):
            bundle(models, target, on_stage=stages.append)
        assert stages == [], "it is known before the work begins"
        assert (target / "sub" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelFileError, match="refused to overwrite"):
        bundle(models, tmp_path / "file")


def test_an_older_bundle_is_replaced_unless_that_loses_something(models, made):
    bundle(models[:1], made)
    assert set(files(made)) == {
        FILE,
        "LICENCES.txt",
        "requirements.txt",
        f"models/{fakes.RETRIEVAL}.onnx",
        f"cards/{fakes.RETRIEVAL}.toml",
    }
    (made / "models" / "mine.onnx").write_bytes(b"exported into it")
    with pytest.raises(ModelFileError, match=r"models/mine\.onnx came there after the bundle"):
        bundle(models, made)
    assert (made / "models" / "mine.onnx").read_bytes() == b"exported into it"


def test_an_empty_folder_and_missing_parents_are_fine(models, tmp_path):
    (tmp_path / "empty").mkdir()
    bundle(models[:1], tmp_path / "empty")
    bundle(models[:1], tmp_path / "a" / "b")
    mask = os.umask(0)
    os.umask(mask)
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert check_bundle(folder)[1] == ()
        assert folder.stat().st_mode & 0o777 == 0o777 & ~mask, "others must be able to read it"


def test_what_goes_wrong_leaves_the_old_bundle(models, made, monkeypatch):
    before = files(made)
    rename = Path.rename

    def fail(path, target):
        if target == made and path.name == "bundle":
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr("landmark_onnx.files.workfolders._exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        bundle(models[:1], made)
    assert files(made) == before
    assert sorted(path.name for path in made.parent.iterdir()) == ["bundle", "made"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_what_a_killed_bundle_leaves_goes_with_the_next(models, made):
    program = f"""
import os, signal
from pathlib import Path
from landmark_onnx.deploy import bundle
bundle.replace_folder = lambda new, folder: os.kill(os.getpid(), signal.SIGKILL)
bundle.bundle([{str(models[0])!r}], Path({str(made)!r}))
"""
    before = files(made)
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert files(made) == before
    assert len(list(made.parent.glob(".bundle.*.tmp"))) == 1
    bundle(models[:1], made.with_name("another"))
    assert sorted(path.name for path in made.parent.iterdir()) == ["another", "bundle", "made"]


def test_what_comes_there_meanwhile_is_kept(models, tmp_path):
    target = tmp_path / "out"

    def say(stage):
        target.mkdir(exist_ok=True)
        (target / "new.txt").write_text("new")

    with pytest.raises(ModelFileError, match="refused to overwrite"):
        bundle(models[:1], target, on_stage=say)
    assert files(target) == {"new.txt": b"new"}


# Checking one.


def change(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "tamper", "problem"),
    [
        (f"models/{fakes.CLS}.onnx", change, "damaged: wanted sha256"),
        (f"models/{fakes.DET}.onnx", lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged"),
        (f"models/{fakes.RETRIEVAL}.onnx", Path.unlink, "missing"),
        (f"cards/{fakes.CLS}.toml", change, "damaged"),
        ("requirements.txt", lambda path: path.write_text("evil==1\n"), "damaged"),
    ],
)
def test_tampering_is_found(made, capsys, name, tamper, problem):
    assert run("bundle", "--check", made) == 0
    assert "8 files are as they were" in capsys.readouterr().out
    tamper(made / name)
    assert run("bundle", "--check", made) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert f"{made / name}: {problem}" in output.err
    assert len(output.err.splitlines()) == 1


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data["files"].update({"../secret": {"sha256": "0", "size": 1}}),
        lambda data: data["files"].update({"/etc/passwd": {"sha256": "0", "size": 1}}),
        lambda data: data["files"].update({"C:\\x": {"sha256": "0", "size": 1}}),
        lambda data: data["files"].update({"x": {"sha256": "0"}}),
        lambda data: data["files"].pop(f"models/{fakes.CLS}.onnx"),
        lambda data: data["models"].append("x"),
        lambda data: data["models"][0].update(file=["x"]),
        lambda data: data.update(layout="other"),
        lambda data: data.update(files=[]),
        lambda data: data.pop("ran_on"),
        lambda data: data["ran_on"].update(numpy=2),
        lambda data: data["files"].update({"x": {"sha256": "0", "size": -1}}),
        lambda data: data["files"].update({"x": {"sha256": "0", "size": float("inf")}}),
        lambda data: data["models"][0].update(agreement={"cosine": "1"}),
        lambda data: data.update(more=1),
        lambda data: data.update(version=2),
    ],
)
def test_a_lock_that_nobody_here_wrote(made, edit):
    data = json.loads((made / FILE).read_text())
    edit(data)
    (made / FILE).write_text(json.dumps(data))
    with pytest.raises(ModelFileError, match=r"bundle\.json: .*rebuild (the bundle|it)"):
        check_bundle(made)


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, '{"format"', "\udcff"])
def test_a_lock_that_is_no_json_of_ours(made, text):
    (made / FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelFileError, match=r"bundle\.json: damaged"):
        check_bundle(made)


def test_a_folder_without_a_lock(made, capsys):
    (made / FILE).unlink()
    assert run("bundle", "--check", made) == 1
    assert f"{made}: no bundle: {FILE}: No such file" in capsys.readouterr().err


# The command.


def test_the_command_says_what_it_made(models, tmp_path, capsys):
    assert run("bundle", *models, "-o", tmp_path / "out", "--provider", "cpu") == 0
    output = capsys.readouterr()
    path = tmp_path / "out" / "models" / f"{fakes.CLS}.onnx"
    assert f"{fakes.CLS}: {path} (answers as at its export, on CPUExecutionProvider)" in output.out
    assert re.search(r"[\d.]+ MB in .*out$", output.err)


@pytest.mark.parametrize("arguments", [[], ["x"], ["-o", "out"], ["x", "--check", "."], ["--check", ".", "-o", "out"]])
def test_wrong_usage(arguments, capsys):
    assert run("bundle", *arguments) == 2
    assert "wanted MODEL..." in capsys.readouterr().err


# Triton.


def model_config():
    """Triton's published schema. The package around it would import gRPC as well."""
    (folder,) = importlib.util.find_spec("tritonclient").submodule_search_locations
    spec = importlib.util.spec_from_file_location("model_config_pb2", Path(folder, "grpc", "model_config_pb2.py"))
    module = sys.modules.get(spec.name) or importlib.util.module_from_spec(spec)
    if spec.name not in sys.modules:
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return module


def configuration(path, model_card, serving=None, labels=None):
    text = triton.configuration(model_card, path, labels or {}, serving or Serving())
    return text_format.Parse(text, model_config().ModelConfig())


def dims(tensors):
    return {tensor.name: list(tensor.dims) for tensor in tensors}


def test_a_repository_for_triton(models, tmp_path, capsys):
    target = tmp_path / "repository"
    assert run("bundle", *models, "-o", target, "--triton", "--instances", "gpu", "--count", 2, "--max-batch", 16) == 0
    lock, problems = check_bundle(target)
    assert (lock.layout, problems) == ("triton", ())
    assert {path.name for path in target.iterdir() if path.is_dir()} == set(MAKE), "each folder is taken for a model"
    for path, name in zip(models, MAKE, strict=True):
        assert (target / name / "1" / "model.onnx").read_bytes() == path.read_bytes()
        assert read_card(target / name / "card.toml") == fakes.small_card(name)
        config = text_format.Parse((target / name / "config.pbtxt").read_text(), model_config().ModelConfig())
        assert (config.name, config.backend, config.platform) == (name, "onnxruntime", "onnxruntime_onnx")
        assert config.default_model_filename == "model.onnx"
        (group,) = config.instance_group
        assert (group.kind, group.count) == (group.KIND_GPU, 2)
        assert config.max_batch_size == (0 if name == fakes.DET else 16)
        told = json.loads(config.parameters[CARD_PARAMETER].string_value)
        assert type(card(name)).from_dict(told, "config") == fakes.small_card(name)
    assert run("bundle", "--check", target) == 0


def test_batches_of_varying_size(models):
    config = configuration(models[0], fakes.small_card(fakes.RETRIEVAL), Serving(max_batch=4))
    assert config.max_batch_size == 4
    assert config.HasField("dynamic_batching")
    assert dims(config.input) == {"image": [3, -1, -1]}
    assert dims(config.output) == {"embedding": [512]}
    assert not any(tensor.allow_ragged_batch for tensor in config.input), "images of one batch have one size"
    assert config.input[0].data_type == config.output[0].data_type == model_config().TYPE_FP32
    assert config.parameters["enable_mem_pattern"].string_value == "0"


def test_batches_of_one_size_are_declared_so(models):
    config = configuration(models[1], fakes.small_card(fakes.CLS))
    assert dims(config.input) == {"image": [3, 64, 64]}
    assert dims(config.output) == {"probability": [7]}
    assert "enable_mem_pattern" not in config.parameters
    exact = dataclasses.replace(fakes.small_card(fakes.RETRIEVAL).preprocess, resize="exact", size=96)
    resized = dataclasses.replace(fakes.small_card(fakes.RETRIEVAL), preprocess=exact)
    assert dims(configuration(models[0], resized).input) == {"image": [3, 96, 96]}


def test_a_detector_takes_one_image_and_is_not_batched(models):
    config = configuration(models[2], fakes.small_card(fakes.DET))
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert dims(config.input) == {"image": [1, 3, -1, -1], "im_info": [1, 3]}
    assert dims(config.output) == {"rois": [12, 4], "probability": [12, 5], "deltas": [12, 20]}


def test_a_detector_of_open_sizes_takes_one_image_all_the_same(models, tmp_path):
    """As the exported ones are: the first dimension of their rois is no batch."""
    model = fakes.unsealed(models[2])
    graph = model.graph
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones(12, bool), "keep"))
    for node in [*graph.node]:
        (name,) = node.output
        if name in [value.name for value in graph.output]:
            node.output[0] = f"all_{name}"
            graph.node.append(onnx.helper.make_node("Compress", [f"all_{name}", "keep"], [name], axis=0))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = f"first_{value.name}"
    onnx.save(model, tmp_path / "open.onnx")
    config = configuration(tmp_path / "open.onnx", fakes.small_card(fakes.DET))
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert dims(config.input) == {"image": [1, 3, -1, -1], "im_info": [1, 3]}
    assert dims(config.output) == {"rois": [-1, 4], "probability": [-1, 5], "deltas": [-1, 20]}


def test_a_model_of_a_fixed_batch_is_not_batched(models, tmp_path):
    model = fakes.unsealed(models[0])
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")
    config = configuration(tmp_path / "one.onnx", fakes.small_card(fakes.RETRIEVAL))
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert dims(config.input) == {"image": [1, 3, -1, -1]}
    assert dims(config.output) == {"embedding": [1, 512]}


@pytest.mark.parametrize(("kind", "heuristic"), [("cpu", False), ("gpu", True)])
def test_instances(models, kind, heuristic):
    config = configuration(models[0], fakes.small_card(fakes.RETRIEVAL), Serving(kind=kind, count=3))
    (group,) = config.instance_group
    assert (group.kind, group.count) == ({"cpu": group.KIND_CPU, "gpu": group.KIND_GPU}[kind], 3)
    assert ("cudnn_conv_algo_search" in config.parameters) == heuristic
    if heuristic:
        assert config.parameters["cudnn_conv_algo_search"].string_value == "1"


@pytest.mark.parametrize("name", [fakes.RETRIEVAL, fakes.CLS, fakes.DET])
def test_the_declared_shapes_are_what_the_file_takes_and_gives(models, name):
    """Feed what the card's preprocessing makes, as a client of Triton does, and compare with the configuration."""
    small = fakes.small_card(name)
    path = models[[*MAKE].index(name)]
    config = configuration(path, small)
    batch = 2 if config.max_batch_size else 1
    feeds = {key: np.concatenate([value] * batch) for key, value in preprocess(small.preprocess, fakes.photo()).items()}
    session = onnxruntime.InferenceSession(str(path))
    fed = {each.name: feeds[each.name] for each in config.input}
    given = fed | dict(zip([each.name for each in config.output], session.run(None, fed), strict=True))
    for tensor in (*config.input, *config.output):
        shape = given[tensor.name].shape[1:] if config.max_batch_size else given[tensor.name].shape
        assert len(shape) == len(tensor.dims)
        assert all(dim in (-1, size) for dim, size in zip(tensor.dims, shape, strict=True)), tensor.name
        assert given[tensor.name].dtype == np.float32


def test_class_names_become_a_labels_file(tmp_path):
    cls = fakes.make_cls(tmp_path / "c.onnx", labels=LABELS)
    det = fakes.make_det(tmp_path / "d.onnx", labels=LABELS)
    bundle([cls, det], tmp_path / "out", serving=Serving())
    for name in (fakes.CLS, fakes.DET):
        lines = (tmp_path / "out" / name / "labels.txt").read_text().splitlines()
        assert lines == ["background", "a tower", "2", 'a "bridge" of two lines'], "line N is class N"
    config = configuration(cls, fakes.small_card(fakes.CLS), labels=LABELS)
    assert config.output[0].label_filename == "labels.txt"
    config = configuration(det, fakes.small_card(fakes.DET), labels=LABELS)
    assert not any(each.label_filename for each in config.output), "Triton would number all rois' classes as one row"


def test_a_label_of_absurd_number_makes_no_absurd_file():
    assert triton.label_lines({10**12: "far"}).count("\n") == triton.MAX_CLASSES


def test_texts_survive_the_text_format(models):
    text = 'quote " back \\ line\n tab\t nul-ish \x01 accent é 塔 \x7f'
    odd = dataclasses.replace(fakes.small_card(fakes.CLS), summary=text)
    config = configuration(models[1], odd)
    assert json.loads(config.parameters[CARD_PARAMETER].string_value)["summary"] == text
    line = "".join(triton._lines({"name": text}))
    assert "\n" not in line
    assert text_format.Parse(line, model_config().ModelConfig()).name == text


def test_tensors_that_triton_has_no_name_for(tmp_path):
    with pytest.raises(ModelFileError, match=r"image: complex64 of shape \(1, None\) is not for Triton"):
        triton._tensor(tmp_path / "x.onnx", "image", {"image": Port((1, None), "complex64")})


@pytest.fixture(scope="module")
def open_sizes(tmp_path_factory):
    """A file that takes any image, as floats and as bytes."""
    floats = fakes.make_retrieval(tmp_path_factory.mktemp("float32") / "model.onnx")
    model = fakes.unsealed(floats)
    image = model.graph.input[0]
    image.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    for dim, name in zip(image.type.tensor_type.shape.dim, ("n", "h", "w"), strict=False):
        dim.dim_param = name
    image.type.tensor_type.shape.dim[3].dim_value = 3
    model.graph.node[0].input[0] = "pixels"
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", ["floats"], ["pixels"], perm=[0, 3, 1, 2]))
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["floats"], to=onnx.TensorProto.FLOAT))
    onnx.save(model, floats.with_name("bytes.onnx"))
    return {False: floats, True: floats.with_name("bytes.onnx")}


def test_triton_is_told_the_sides_of_a_float_image_whose_channels_are_last(open_sizes, tmp_path):
    model = onnx.load(open_sizes[True])
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, tmp_path / "last.onnx")
    rule = Preprocess(resize="exact", size=48, width=32, interpolation="area")
    made = dataclasses.replace(fakes.small_card(fakes.RETRIEVAL), preprocess=rule)
    assert dims(configuration(tmp_path / "last.onnx", made).input) == {"image": [48, 32, 3]}


@settings(max_examples=60)
@given(
    st.fixed_dictionaries(
        {"resize": st.sampled_from(["exact", "short_side_floor"]), "size": st.integers(8, 80)},
        optional={
            "width": st.integers(8, 80),
            "crop": st.integers(1, 80),
            "multiple": st.integers(1, 32),
            "min_side": st.integers(1, 90),
            "max_ratio": st.floats(1, 3),
        },
    ),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.booleans(),
)
@example({"resize": "exact", "size": 48, "width": 320}, (60, 80), False)
@example({"resize": "exact", "size": 64, "crop": 48}, (60, 80), True)
def test_triton_is_told_the_shape_that_preprocessing_makes(open_sizes, rule, sides, as_uint8):
    table = fakes.small_card(fakes.RETRIEVAL).to_dict() | {"preprocess": {"interpolation": "nearest", **rule}}
    try:
        made = ModelCard.from_dict(table, "drawn")
    except CardError:
        reject()
    fed = preprocess(made.preprocess, np.zeros((*sides, 3), np.uint8), as_uint8=as_uint8)["image"]
    (told,) = configuration(open_sizes[as_uint8], made).input
    assert len(told.dims) == 3
    assert all(dim in (-1, size) for dim, size in zip(told.dims, fed.shape[1:], strict=True))
    assert (-1 in told.dims) == (fixed_sides(made.preprocess) is None)
    if bounds := side_bounds(made.preprocess):
        assert max(np.sort(fed.shape[1:])[1:]) <= max(bounds[1], 3)


def test_the_copy_is_no_link(models, made):
    shutil.rmtree(models[0].parent)
    assert check_bundle(made)[1] == ()
