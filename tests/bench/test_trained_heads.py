"""The geometry by which the synthetic detector's last layers are fitted."""

import sys
from pathlib import Path

import numpy as np
import pytest

from landmark_onnx.inference.postprocess import decode_boxes

pytest.importorskip("sklearn")

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "scripts"


@pytest.fixture
def heads(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    for name in ("made", "trained_heads"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import trained_heads

    return trained_heads


def test_targets_are_what_the_decoder_undoes(heads):
    boxes, wanted = np.array([[10.0, 20, 59, 99]]), np.array([[0.0, 30, 99, 69]])
    np.testing.assert_allclose(decode_boxes(boxes, heads.encoded(boxes, wanted)), wanted, atol=1e-9)


def test_an_object_is_the_same_pixels_in_every_cut(heads):
    windows = heads.objects()
    photos = heads.source_photos()
    seen = 0
    for frame, image in heads.framed(6, 1):
        boxes, shown = heads._in_frame(frame, windows[frame.photo])
        for (x1, y1, x2, y2), number in zip(boxes.round().astype(int), shown, strict=True):
            inside = (windows[frame.photo][number] - [frame.left, frame.top] * 2).clip(0)
            inside = (
                np.minimum(inside, [frame.columns, frame.rows] * 2).round().astype(int) + [frame.left, frame.top] * 2
            )
            left, top, right, bottom = inside
            pixels = photos[frame.photo][top:bottom, left:right].astype(float).mean(axis=(0, 1))
            found = image[y1:y2, x1:x2].astype(float).mean(axis=(0, 1))
            share = found.sum() / pixels.sum()  # of brightness
            assert np.abs(found / share - pixels).max() < 6
            seen += 1
    assert seen > 6


def test_anchors_lie_around_the_middle_of_their_cell(heads):
    anchors = heads.anchor_boxes(2, 3).reshape(2, 3, heads.ANCHORS, 4)
    np.testing.assert_allclose((anchors[1, 2, :, :2] + anchors[1, 2, :, 2:]) / 2, [[39.5, 23.5]] * heads.ANCHORS)
    sides = anchors[0, 0, :, 2:] - anchors[0, 0, :, :2] + 1
    np.testing.assert_allclose(sides[5:10], np.array([[32.0] * 2, [64.0] * 2, [128.0] * 2, [256.0] * 2, [512.0] * 2]))
    assert (np.diff(sides[:, 1] / sides[:, 0])[[4, 9]] > 0.4).all()
