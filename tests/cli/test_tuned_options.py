"""`--precision auto` where a command's options become a loaded model."""

import pytest

import fakes
from landmark_onnx.cli.embed_options import Cluster
from landmark_onnx.cli.loader import Loader, settle
from landmark_onnx.cli.options import BatchReading, ExecutionOptions, PrecisionChoice
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.serve_loader import ServingLoader
from landmark_onnx.errors import SessionError
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.runtime.tuned import TunedChoice, write_choice
from landmark_onnx.store.catalogue import exported_path

CHOICE = TunedChoice(provider="cpu", precision="int8", threads=1, batch_size=8, ratio=0.5, likeness=0.99)
REQUEST = ProviderRequest(name="cpu", precision="int8")
AUTO = ExecutionOptions(precision=PrecisionChoice.AUTO)


@pytest.fixture
def model():
    path = fakes.make_retrieval(exported_path("shops"))
    fakes.make_reduced(path)
    write_choice(path, CHOICE)
    return path


@pytest.mark.parametrize(("threads", "batch_size", "wanted"), [(0, None, (1, 8)), (3, None, (3, 8)), (0, 2, (1, 2))])
def test_what_is_given_comes_before_what_was_chosen(model, threads, batch_size, wanted):
    engine = ExecutionOptions(precision=PrecisionChoice.AUTO, threads=threads)
    found = settle(engine, model, batch_size)
    assert (found.request, found.threads, found.batch_size) == (REQUEST, *wanted)
    assert found.tuned == CHOICE


def test_other_precisions_ask_for_no_choice(model):
    found = settle(ExecutionOptions(), model)
    assert (found.request, found.threads, found.batch_size, found.tuned) == (ProviderRequest(), 0, 4, None)


def test_a_loaded_model_says_what_was_taken(model, capsys):
    with Reporter(quiet=False) as report:
        found = ServingLoader(AUTO, BatchReading(), report).of_any_task("shops")
    assert found.session.path == model.with_name("shops.int8.onnx")
    assert found.pipeline.batch_size == 8
    assert capsys.readouterr().err == f"landmark-onnx: shops: --precision auto took {CHOICE.words()}\n"


def test_a_model_that_was_not_tuned_is_not_served(model):
    fakes.make_cls(exported_path("names"))
    with Reporter(quiet=True) as report, pytest.raises(SessionError, match="run: landmark-onnx tune names"):
        ServingLoader(AUTO, BatchReading(), report).of_any_task("names")


def test_a_cluster_runs_what_was_chosen_here(model, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("landmark_onnx.embedding.ray_cluster.on_ray", lambda address, recipes, workers: recipes)
    with Reporter(quiet=True) as report:
        (recipe,) = Cluster(ray="local").work(["shops"], [], Loader(AUTO, BatchReading(), report))
    assert (recipe.path, recipe.provider, recipe.threads, recipe.batch_size) == (model.resolve(), REQUEST, 1, 8)
