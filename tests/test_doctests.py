"""The examples in docstrings run, and the entry points that people look up have one."""

import doctest
import importlib
import pkgutil

import pytest

import landmark_onnx

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
ENTRY_POINTS = [
    "landmark_onnx.cards.schema.ModelCard.from_dict",
    "landmark_onnx.cards.catalogue.card",
    "landmark_onnx.evaluation.accuracy",
    "landmark_onnx.evaluation.average_precision",
    "landmark_onnx.evaluation.global_average_precision",
    "landmark_onnx.evaluation.precision",
    "landmark_onnx.images.ids.image_id",
    "landmark_onnx.images.decode.read_image",
    "landmark_onnx.modelfile.labels.parse_labels",
    "landmark_onnx.files.lists.read_list",
    "landmark_onnx.inference.postprocess.cosine",
    "landmark_onnx.precision.precision_file",
    "landmark_onnx.inference.preprocess.preprocess",
    "landmark_onnx.runtime.providers.ProviderRequest",
    "landmark_onnx.recognition.combine",
    "landmark_onnx.results.Embedding",
    "landmark_onnx.search.fit_whitening",
    "landmark_onnx.search.parse_steps",
    "landmark_onnx.search.search_exact",
    "landmark_onnx.search.spec",
    "landmark_onnx.files.structure.structure",
]


def with_examples():
    """Modules of the runtime whose text has an example, without importing the others."""
    for each in pkgutil.walk_packages(landmark_onnx.__path__, "landmark_onnx."):
        if "\n    >>> " in each.module_finder.find_spec(each.name).loader.get_source(each.name):
            yield each.name


@pytest.mark.parametrize("module", [*with_examples()])
def test_examples_run(module):
    module = importlib.import_module(module)
    failed, attempted = doctest.testmod(module, optionflags=OPTIONS)
    assert attempted
    assert not failed, "see what it prints"


@pytest.mark.parametrize("path", ENTRY_POINTS)
def test_entry_points_have_an_example(path):
    assert doctest.DocTestParser().get_examples(pkgutil.resolve_name(path).__doc__)
