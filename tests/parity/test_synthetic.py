"""Releases of our own: laid out as the real ones, the same in every run, and with signals that mean something."""

import dataclasses
import tarfile
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("paddle")

from landmark_onnx.cards.catalogue import card
from landmark_onnx.cards.schema import Source
from landmark_onnx_export.paddle.binary_model import write_binary_model
from landmark_onnx_export.paddle.builder import attributes
from landmark_onnx_export.paddle.runtime import paddle_module
from landmark_onnx_export.paddle.variables import declared_shapes, parse_program
from landmark_onnx_export.releases.source import open_source
from landmark_onnx_export.synthetic import release as synthetic
from landmark_onnx_export.synthetic import weights as calibration
from landmark_onnx_export.synthetic.detectors import CLASSES, faster_rcnn_c4
from landmark_onnx_export.synthetic.release import write_release

pytestmark = pytest.mark.paddle

SMALL = dataclasses.replace(card("res152_softmax_v2"), name="small", source=Source(network="resnet50_vd"))
DETECTOR = card("res50_oid_v4_detector")


def detect(path, folder, image, scale):
    """Rois, probabilities and deltas of one picture of the synthetic kind."""
    with open_source(path) as source:
        model, params = write_binary_model(source.program, source.variables, folder)
    paddle_module()
    import paddle.inference

    config = paddle.inference.Config(str(model), str(params))
    config.disable_gpu()
    config.disable_glog_info()
    config.switch_ir_optim(False)
    predictor = paddle.inference.create_predictor(config)
    feeds = {"image": image, "im_info": np.array([[*image.shape[2:], scale]], np.float32)}
    assert sorted(predictor.get_input_names()) == sorted(feeds)
    for name, value in feeds.items():
        predictor.get_input_handle(name).copy_from_cpu(value)
    predictor.run()
    return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]


def picture(seed, height, width):
    """Larger than calibration's own pictures, of the same kind."""
    pixels = calibration.pictures(seed, 1).repeat(4, axis=2).repeat(4, axis=3)[:, :, :height, :width]
    return np.ascontiguousarray(pixels, np.float32)


def test_the_same_arguments_give_the_same_bytes(tmp_path, monkeypatch):
    first = write_release(SMALL, tmp_path / "first").read_bytes()
    monkeypatch.setattr(calibration, "ROWS_NUMBERS", 100)
    assert write_release(SMALL, tmp_path / "again").read_bytes() == first
    assert write_release(SMALL, tmp_path / "other", seed=1).read_bytes() != first
    renamed = dataclasses.replace(SMALL, name="smell")
    assert write_release(renamed, tmp_path).read_bytes().replace(b"smell", b"small") != first
    assert {path.name for path in tmp_path.iterdir()} == {"first", "again", "other", "smell.tar"}


def test_a_train_release_is_laid_out_as_the_original(tmp_path):
    with tarfile.open(write_release(SMALL, tmp_path, classes=7)) as tar:
        members = tar.getmembers()
    assert [member.name for member in members if member.isdir()] == ["small"]
    files = [member for member in members if member.isfile()]
    assert [member.name for member in files] == sorted(member.name for member in files)
    assert {(member.uid, member.gid, member.mode, member.mtime) for member in files} == {(0, 0, 0o644, 1559347200)}
    with open_source(tmp_path / "small.tar") as source:
        assert source.variables["fc_0.b_0"].shape == (7,)
        assert source.variables["conv1_1_weights"].shape == (2, 3, 3, 3)


@pytest.mark.parametrize("width", [1 / 8, "1/4"])
def test_width_scales_every_channel_but_the_classes(width, tmp_path):
    factor = Fraction(width)
    with open_source(write_release(SMALL, tmp_path, width=factor)) as source:
        assert source.variables["fc_0.w_0"].shape == (2048 * factor, 101)
        assert source.variables["res5a_branch2b_weights"].shape == (512 * factor, 512 * factor, 3, 3)


def test_norms_have_statistics_of_their_own(tmp_path):
    with open_source(write_release(SMALL, tmp_path)) as source:
        for end in ("mean", "variance", "scale", "offset"):
            values = source.variables[f"bn4b_branch2b_{end}"].read()
            assert values.std() > 1e-3
            assert np.isfinite(values).all()
            mantissas = np.frexp(values)[0] * 2**12
            assert (mantissas == np.round(mantissas)).all()  # so no machine's order of adding shows
        assert (source.variables["bn4b_branch2b_variance"].read() > 0).all()


def test_the_detector_is_laid_out_as_the_original(tmp_path):
    with open_source(write_release(DETECTOR, tmp_path)) as source:
        assert (source.kind, source.name) == ("binary", DETECTOR.name)
        assert source.extras == (f"{DETECTOR.name}/{DETECTOR.source.labels}",)
        lines = source.read_text(DETECTOR.source.labels).splitlines()
        assert len({line.split("\t")[0] for line in lines}) == CLASSES - 1 == 500
        assert [int(line.split("\t")[1]) for line in lines] == list(range(1, 501))
        ops = {op.type: attributes(op) for op in parse_program(source.program).blocks[0].ops}
    assert ops["roi_align"] == {
        "pooled_height": 14,
        "pooled_width": 14,
        "sampling_ratio": 0,
        "spatial_scale": 1 / 16,
    }
    assert (ops["generate_proposals"]["pre_nms_topN"], ops["generate_proposals"]["post_nms_topN"]) == (6000, 1000)
    assert ops["anchor_generator"]["anchor_sizes"] == [32, 64, 128, 256, 512]


@pytest.mark.reference
def test_the_detector_has_the_ops_and_parameters_of_the_original(reference):
    with open_source(reference / "release" / f"{DETECTOR.name}.tar") as source:
        original = parse_program(source.program)
    own = parse_program(faster_rcnn_c4(Fraction(1, 8)))  # the width that release was made at
    assert sorted(op.type for op in own.blocks[0].ops) == sorted(op.type for op in original.blocks[0].ops)
    assert declared_shapes(own) == declared_shapes(original)


def test_the_detector_finds_things(tmp_path):
    rois, probability, deltas = detect(write_release(DETECTOR, tmp_path), tmp_path, picture(5, 320, 448), 1.0)
    assert (rois.shape[1], probability.shape[1], deltas.shape[1]) == (4, CLASSES, 4 * CLASSES)
    assert len(rois) == len(probability) == len(deltas) > 100
    assert all(np.isfinite(values).all() for values in (rois, probability, deltas))
    assert (probability[:, 1:] > 0.1).any(axis=1).mean() > 0.02
    assert len(set(probability.argmax(axis=1))) > 3
    assert 0.1 < deltas.std() < 10


def test_a_detector_takes_last_layers_that_were_fitted(tmp_path):
    heads = {"cls_score_b": np.arange(CLASSES, dtype=np.float32)}
    with open_source(write_release(DETECTOR, tmp_path, heads=heads)) as source:
        np.testing.assert_array_equal(source.variables["cls_score_b"].read(), heads["cls_score_b"])


def test_labels_are_distinct():
    assert len(set(synthetic.LABELS)) == 500
