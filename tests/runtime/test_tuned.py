import contextlib
import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fakes
from landmark_onnx import Retriever
from landmark_onnx.errors import LandmarkError, SessionError
from landmark_onnx.hub.remove import prune, remove
from landmark_onnx.runtime import tuned
from landmark_onnx.runtime.compiled_cache import folder_of
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.runtime.tuned import TunedChoice, choice_path, gpu_names, read_choice, write_choice
from landmark_onnx.store.catalogue import exported_path

CHOICE = TunedChoice(provider="cpu", precision="fp32", threads=2, batch_size=8, ratio=0.5, likeness=0.99)


@pytest.fixture
def model():
    return fakes.make_retrieval(exported_path("shops"))


@pytest.fixture
def kept(model):
    write_choice(model, CHOICE)
    return model


def refusal(model):
    with pytest.raises(SessionError) as told:
        read_choice(model)
    text = str(told.value)
    assert text.startswith("shops: no choice for precision auto: ")
    assert text.endswith("; run: landmark-onnx tune shops")
    assert "\n" not in text
    return text


def test_a_choice_comes_back_and_replaces_the_one_before(kept):
    assert read_choice(kept) == CHOICE
    other = dataclasses.replace(CHOICE, provider="openvino", likeness=None)
    assert write_choice(kept, other) == choice_path(kept)
    assert read_choice(kept) == other
    assert len([*folder_of(kept).iterdir()]) == 1


def test_without_a_choice_the_command_is_named(model):
    assert "it has not been tuned on this machine" in refusal(model)


def test_a_model_outside_the_store_is_named_by_its_path(tmp_path):
    path = fakes.make_retrieval(tmp_path / "own.onnx")
    with pytest.raises(SessionError, match=re.escape(f"run: landmark-onnx tune {path}")):
        read_choice(path)


def test_another_machines_choice_is_not_taken(kept, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tuned, "cpu_model", lambda: ("another CPU", frozenset({"avx"})))
        assert "tuned on another machine alone" in refusal(kept)
        write_choice(kept, dataclasses.replace(CHOICE, threads=1))
        assert read_choice(kept).threads == 1
    assert read_choice(kept) == CHOICE


@pytest.mark.parametrize(
    ("name", "value"),
    [("cpu_model", ("x", frozenset())), ("available_cores", 77), ("gpu_names", ("NVIDIA H100",))],
)
def test_each_part_of_a_machine_makes_it_another(kept, monkeypatch, name, value):
    monkeypatch.setattr(tuned, name, lambda *_: value)
    assert "another machine" in refusal(kept)


def test_a_choice_for_another_model_file_is_stale(kept):
    fakes.make_retrieval(kept, seed=1)
    assert "stale: the model file is not the same" in refusal(kept)


def test_a_choice_for_another_file_of_reduced_precision_is_stale(model):
    reduced = fakes.make_reduced(model)
    write_choice(model, dataclasses.replace(CHOICE, precision="int8"))
    assert read_choice(model).precision == "int8"
    fakes.make_reduced(model, seed=5)
    assert "stale: the file that was chosen is not the same" in refusal(model)
    reduced.unlink()
    assert reduced.name in refusal(model)


def test_a_choice_under_other_versions_is_stale_and_says_which(kept, monkeypatch):
    monkeypatch.setattr(tuned, "versions", lambda *_: {"onnxruntime": "99.0"})
    assert "onnxruntime was " in refusal(kept)
    assert ", is 99.0" in refusal(kept)


def test_a_copied_record_is_not_taken(kept, store):
    other = fakes.make_retrieval(exported_path("others"), seed=3)
    target = choice_path(other)
    target.parent.mkdir(parents=True)
    target.write_bytes(choice_path(kept).read_bytes())
    with pytest.raises(SessionError, match="stale: the model file is not the same"):
        read_choice(other)


def changed(record, *keys, value):
    place = record
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: b"",
        lambda record: b"[]",
        lambda record: b"\xff\xfe",
        lambda record: b"[" * 100_000,
        lambda record: json.dumps(record).encode()[:-20],
        lambda record: changed(record, "format", value=2),
        lambda record: changed(record, "sha256", value="0" * 64),
        lambda record: changed(record, "sha256", value=None),
        lambda record: changed(record, "choice", "threads", value=4),
        lambda record: changed(record, "choice", "threads", value=-1),
        lambda record: changed(record, "choice", "batch_size", value=10**9),
        lambda record: changed(record, "choice", "provider", value="$(reboot)"),
        lambda record: changed(record, "choice", "precision", value="auto"),
        lambda record: changed(record, "choice", "ratio", value="fast"),
        lambda record: changed(record, "ground", "versions", value=[]),
        lambda record: changed(record, "more", value=1),
    ],
)
def test_a_damaged_record_is_refused_in_one_line(kept, spoil):
    path = choice_path(kept)
    path.write_bytes(spoil(json.loads(path.read_bytes())))
    text = refusal(kept)
    assert str(path) in text
    assert "damaged" in text


def test_a_record_that_is_no_file_is_refused(kept):
    path = choice_path(kept)
    path.unlink()
    path.mkdir()
    assert str(path) in refusal(kept)


@given(st.binary(max_size=200))
def test_whatever_is_in_the_file_ends_as_an_error_or_the_choice(tmp_path_factory, data):
    model = fakes.make_retrieval(tmp_path_factory.getbasetemp() / "fuzzed" / "any.onnx")
    write_choice(model, CHOICE)
    path = choice_path(model)
    path.write_bytes(data + path.read_bytes()[len(data) :])
    with contextlib.suppress(LandmarkError):
        assert read_choice(model) == CHOICE


def test_gpus_are_known_by_what_the_driver_says(tmp_path):
    assert gpu_names(tmp_path) == ()
    for number, name in enumerate(("NVIDIA H100", "NVIDIA A10")):
        folder = tmp_path / f"0000:0{number}"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t\t {name}\nIRQ: 1\n")
    assert gpu_names(tmp_path) == ("NVIDIA A10", "NVIDIA H100")


def test_a_choice_outlives_what_a_load_makes_again_and_goes_with_its_model(kept):
    made = folder_of(kept) / "0123456789"
    made.mkdir()
    other = folder_of(kept).parent / "never-tuned"
    other.mkdir()
    assert {each.path for each in prune()} >= {made, other}
    assert read_choice(kept) == CHOICE
    remove("shops")
    assert not choice_path(kept).exists()


def test_precision_auto_in_python(kept):
    found = Retriever("shops", precision="auto")
    assert found.session.provider == "CPUExecutionProvider"
    assert found.precision == "fp32"
    assert found.pipeline.batch_size == 8
    assert Retriever("shops", precision="auto", batch_size=3).pipeline.batch_size == 3
    assert Retriever("shops").pipeline.batch_size == 4


def test_precision_auto_runs_the_file_that_was_chosen(model):
    reduced = fakes.make_reduced(model)
    write_choice(model, dataclasses.replace(CHOICE, precision="int8"))
    assert Retriever("shops", precision="auto").session.path == reduced


def test_threads_are_those_that_were_chosen_unless_they_are_given(kept, monkeypatch):
    asked = []

    def session(path, request, *, threads, **_):
        asked.append((request, threads))
        raise SessionError("enough")

    monkeypatch.setattr("landmark_onnx.model.Session", session)
    for threads in (0, 5):
        with pytest.raises(SessionError, match="enough"):
            Retriever("shops", precision="auto", threads=threads)
    assert asked == [(ProviderRequest(name="cpu"), 2), (ProviderRequest(name="cpu"), 5)]


@pytest.mark.parametrize("provider", ["cpu", ProviderRequest(name="cpu"), ProviderRequest(options={"a": "b"})])
def test_precision_auto_takes_no_other_provider(kept, provider):
    with pytest.raises(SessionError, match="leave the provider auto"):
        Retriever("shops", provider=provider, precision="auto")


def test_precision_auto_without_a_choice_is_an_error_in_python(model):
    with pytest.raises(SessionError, match="run: landmark-onnx tune shops"):
        Retriever("shops", precision="auto")


def test_what_was_chosen_and_does_not_start_is_an_error(model):
    write_choice(model, dataclasses.replace(CHOICE, provider="cuda"))
    with pytest.raises(SessionError, match="CUDAExecutionProvider"):
        Retriever("shops", precision="auto")
