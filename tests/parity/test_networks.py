"""The rebuilt networks: equal to the original's programs, and particular about the variables they are given."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("paddle")

from landmark_onnx.cards.catalogue import card
from landmark_onnx.cards.schema import Source
from landmark_onnx.errors import ExportError
from landmark_onnx_export.networks.build import NETWORKS, build, plan
from landmark_onnx_export.paddle.binary_model import write_binary_model
from landmark_onnx_export.paddle.runtime import paddle_module
from landmark_onnx_export.paddle.variables import Variable, declared_shapes, parse_program, persistable_names
from landmark_onnx_export.releases.source import open_source
from landmark_onnx_export.synthetic.release import write_release
from landmark_onnx_export.synthetic.weights import pictures

pytestmark = pytest.mark.paddle

WIDTH = 1 / 16


def answer(model, params, image):
    paddle_module()
    import paddle.inference

    config = paddle.inference.Config(str(model), str(params))
    config.disable_gpu()
    config.disable_glog_info()
    config.switch_ir_optim(False)
    predictor = paddle.inference.create_predictor(config)
    predictor.get_input_handle("image").copy_from_cpu(image)
    predictor.run()
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()


def variables_of(program):
    """Variables of the shapes that a program declares, with no data behind them."""
    return {
        name: Variable(name, np.dtype("<f4"), shape, Path("nowhere"), 0, 0, 4 * math.prod(shape))
        for name, shape in declared_shapes(parse_program(program)).items()
    }


@pytest.mark.reference
@pytest.mark.parametrize(
    "name", ["inceptionv4_arcmargin", "res152_arcmargin", "res152_softmax_v1", "se_x152_arcmargin"]
)
def test_answers_as_the_original_program(name, reference, tmp_path):
    facts = card(name)
    with open_source(reference / "release" / f"{name}.tar") as source:
        program = build(facts.source.network, facts.task, source.variables)
        model, params = write_binary_model(program, source.variables, tmp_path)
    original = reference / "binary" / name
    assert params.read_bytes() == (original / "params").read_bytes()
    image = np.random.default_rng(0).standard_normal((2, 3, 160, 224), dtype=np.float32)
    want = answer(original / "model", original / "params", image)
    np.testing.assert_allclose(answer(model, params, image), want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.reference
def test_every_release_of_the_original_builds(reference):
    for path in sorted((reference / "release").glob("*.tar")):
        facts = card(path.stem)
        with open_source(path) as source:
            assert (source.kind == "binary") == (facts.task == "det")
            program = source.program or build(facts.source.network, facts.task, source.variables)
            assert persistable_names(parse_program(program)) == sorted(source.variables)


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_a_release_of_random_weights_tells_pictures_apart(network, tmp_path):
    facts = dataclasses.replace(card("res152_arcmargin"), name="own", source=Source(network=network))
    with open_source(write_release(facts, tmp_path, width=WIDTH, embedding=32)) as source:
        program = build(network, "retrieval", source.variables)
        model, params = write_binary_model(program, source.variables, tmp_path)
    found = answer(model, params, pictures(99, 4).astype(np.float32))
    assert found.shape == (4, 1280 * WIDTH if NETWORKS[network].pooled else 32)
    assert np.isfinite(found).all()
    assert 0.1 < found.std() < 30
    assert found.std(axis=0).mean() > 0.1


@pytest.mark.parametrize("task", ["retrieval", "cls"])
@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_building_from_planned_shapes_gives_the_plan(network, task):
    program = plan(network, task, width=WIDTH, size=7)
    assert build(network, task, variables_of(program)) == program


@pytest.mark.parametrize(
    ("network", "convolutions", "millions", "some"),
    [
        ("resnet50_vd", 53 + 2, 25.63, {"res4f_branch2c_weights": (1024, 256, 1, 1), "bn5a_branch1_mean": (2048,)}),
        ("resnet101_vd", 104 + 2, 44.67, {"res4b22_branch2b_weights": (256, 256, 3, 3), "fc_0.w_0": (2048, 1000)}),
        ("resnet152_vd", 155 + 2, 60.36, {"bnv1_1_scale": (32,), "res4b35_branch2a_weights": (256, 1024, 1, 1)}),
        ("resnet152_vd_fc", 157, 59.10, {"fc_0.w_0": (2048, 256), "fc_1.w_0": (256, 1000), "fc_1.b_0": (1000,)}),
        ("resnet152_vd_auto", 157, 60.36, {"conv2d_6.w_0": (256, 64, 1, 1), "batch_norm_156.w_2": (2048,)}),
        (
            "resnet200_vd",
            203 + 2,
            74.93,
            {"res3l_branch2c_weights": (512, 128, 1, 1), "res4b47_branch2a_weights": None},
        ),
        ("se_resnext152_vd", 157, 122.03, {"conv4_1_x2_weights": (256, 4, 3, 3), "fc7_3_exc_weights": (128, 2048)}),
        ("se_resnext152_vd", 157, 122.03, {"conv1_3_bn_offset": (128,), "fc_100.b_0": (1000,)}),
        ("inception_v4", 149, 42.74, {"inception_c3_3x1_3_weights": (256, 512, 3, 1), "fc_0.w_0": (1536, 1000)}),
        ("inception_v4", 149, 42.74, {"inception_stem2_1x7_weights": (64, 64, 7, 1)}),
        ("efficientnet_lite0", 49, 4.69, {"_blocks.1._expand_conv.weight": (96, 16, 1, 1), "_fc.weight": (1000, 1280)}),
        ("efficientnet_lite0", 49, 4.69, {"_blocks.5._depthwise_conv.weight": (240, 1, 3, 3), "_bn1.bias": (1280,)}),
    ],
)
def test_published_sizes(network, convolutions, millions, some):
    shapes = declared_shapes(parse_program(plan(network, "cls", size=1000)))
    assert sum(len(shape) == 4 for shape in shapes.values()) == convolutions
    assert sum(math.prod(shape) for shape in shapes.values()) / 1e6 == pytest.approx(millions, abs=0.01)
    for name, shape in some.items():
        assert shapes[name] == (shape or shapes[name])


def edited(network, task="retrieval", **shapes):
    """The variables of a narrow network but for some: another shape, None for none, or a dtype."""
    variables = variables_of(plan(network, task, width=WIDTH, size=8))
    for name, value in shapes.items():
        name = name.replace("__", ".")
        if value is None:
            del variables[name]
        elif isinstance(value, str):
            variables[name] = dataclasses.replace(variables[name], dtype=np.dtype(value))
        else:
            variables[name] = Variable(name, np.dtype("<f4"), value, Path("nowhere"), 0, 0, 0)
    return variables


@pytest.mark.parametrize(
    ("network", "edits", "words"),
    [
        ("resnet50_vd", {"res2a_branch2b_weights": None}, r"missing, wanted float32 \[\?, 4, 3, 3\]"),
        ("resnet50_vd", {"bn2a_branch2b_mean": None}, r"bn2a_branch2b_mean is missing, wanted float32 \[4\]"),
        ("resnet50_vd", {"bn2a_branch2b_mean": (5,)}, r"bn2a_branch2b_mean: wanted float32 \[4\], got float32 \[5\]"),
        (
            "resnet50_vd",
            {"res3b_branch2a_weights": (8, 31, 1, 1)},
            r"wanted float32 \[\?, 32, 1, 1\], got .*31, 1, 1\]",
        ),
        ("resnet50_vd", {"res3b_branch2a_weights": (8, 32, 1)}, r"\[\?, 32, 1, 1\], got float32 \[8, 32, 1\]"),
        ("resnet50_vd", {"res3b_branch2a_weights": (8, 32, 3, 3)}, r"\[\?, 32, 1, 1\], got float32 \[8, 32, 3, 3\]"),
        ("resnet50_vd", {"res3b_branch2c_weights": (16, 8, 1, 1)}, r"\[32, 8, 1, 1\], got float32 \[16, 8, 1, 1\]"),
        ("resnet50_vd", {"res3a_branch1_weights": (16, 16, 1, 1)}, r"\[32, 16, 1, 1\], got float32 \[16, 16, 1, 1\]"),
        ("resnet50_vd", {"fc_0__w_0": "<f8"}, r"fc_0\.w_0: wanted float32 \[128, \?\], got float64 \[128, 8\]"),
        ("resnet50_vd", {"fc_0__w_0": (128, 0)}, r"fc_0\.w_0: wanted float32 \[128, \?\], got float32 \[128, 0\]"),
        ("resnet50_vd", {"fc_0__b_0": (9,)}, r"fc_0\.b_0: wanted float32 \[8\], got float32 \[9\]"),
        ("resnet50_vd_fc", {"fc_1__w_0": None, "fc_1__b_0": None}, r"fc_1\.w_0 is missing, wanted float32 \[16, \?\]"),
        ("resnet50_vd_auto", {"conv2d_3__w_0": None}, r"conv2d_3\.w_0 is missing, wanted float32 \[\?, 4, 1, 1\]"),
        ("se_resnext152_vd", {"conv4_1_x2_weights": (16, 3, 3, 3)}, "groups that divide 16 channels, got 3 in a group"),
        ("se_resnext152_vd", {"fc5_2_exc_weights": (2, 33)}, r"\[2, 32\], got float32 \[2, 33\]"),
        (
            "efficientnet_lite0",
            {"_blocks__2___project_conv__weight": (3, 9, 1, 1)},
            r"\[2, 9, 1, 1\], got float32 \[3, 9, 1, 1\]",
        ),
        (
            "inception_v4",
            {"inception_b7_7x1_weights": (16, 14, 1, 7)},
            r"\[\?, 14, 7, 1\], got float32 \[16, 14, 1, 7\]",
        ),
    ],
)
def test_a_variable_that_does_not_fit_is_named(network, edits, words):
    with pytest.raises(ExportError, match=words) as caught:
        build(network, "retrieval", edited(network, **edits))
    assert f"do not fit the network {network}: " in str(caught.value)
    assert all(name.replace("__", ".") in str(caught.value) for name in list(edits)[:1])


def test_one_missing_variable_is_one_problem():
    with pytest.raises(ExportError) as caught:
        build("resnet50_vd", "retrieval", edited("resnet50_vd", res2a_branch2c_weights=None))
    assert str(caught.value).count("wanted") == 1


def test_ten_problems_are_listed_and_the_others_counted():
    with pytest.raises(ExportError, match=r"conv2d_0\.w_0 is missing.*; and 522 more$") as caught:
        build("resnet101_vd_auto", "retrieval", {"x": edited("resnet50_vd")["fc_0.b_0"]})
    assert str(caught.value).count("is missing") == 10


def test_a_deeper_network_than_the_one_named_is_noticed():
    with pytest.raises(ExportError, match=r"res3i_branch2a_weights \[8, 32, 1, 1\] has no place in it"):
        build("resnet152_vd", "retrieval", edited("resnet200_vd"))


def test_what_training_leaves_is_ignored():
    extra = {
        "res2a_branch1_weights_velocity_0": (16, 4, 1, 1),
        "margin_weights": (8, 1000),
        "fc_1__w_0": (8, 1000),
        "@LR_DECAY_COUNTER@": (1,),
    }
    plain = build("resnet50_vd", "retrieval", edited("resnet50_vd"))
    assert build("resnet50_vd", "retrieval", edited("resnet50_vd", **extra)) == plain


def test_a_classifier_has_the_fcs_that_are_found():
    found = edited("resnet50_vd", "cls", fc_0__w_0=(128, 16), fc_0__b_0=(16,), fc_1__w_0=(16, 9), fc_1__b_0=(9,))
    program = build("resnet50_vd", "cls", found)
    assert persistable_names(parse_program(program)) == sorted(found)
    assert [op.type for op in parse_program(program).blocks[0].ops][-3:] == ["elementwise_add", "softmax", "fetch"]
    del found["fc_1.w_0"]
    with pytest.raises(ExportError, match=r"fc_1\.w_0 is missing, wanted float32 \[16, \?\]"):
        build("resnet50_vd", "cls", found)


def test_a_network_that_is_not_there():
    with pytest.raises(
        ExportError, match="no network is called 'vgg'; there are: efficientnet_lite0, inception_v4, resnet101_vd"
    ):
        build("vgg", "cls", {})
    with pytest.raises(ExportError, match="resnet50_vd is no detector"):
        build("resnet50_vd", "det", {})


def test_a_program_wants_all_its_variables(tmp_path):
    program = plan("resnet50_vd", "retrieval", width=WIDTH, size=8)
    with pytest.raises(ExportError, match=r"wants the variable fc_0\.b_0, which is missing"):
        write_binary_model(program, edited("resnet50_vd", fc_0__b_0=None), tmp_path)
    assert not list(tmp_path.iterdir())
