"""Arrivals: interrupts at whatever moment leave no thread that waits for ever."""

import pytest

from interrupts import assert_ends
from landmark_onnx.inference.prefetch import Arrivals


def read_all(in_order=False):
    with Arrivals(lambda position, source: source, range(5), workers=2, limit=4, in_order=in_order) as arrivals:
        for _ in range(5):
            assert arrivals.take(patient=True)
            arrivals.release()


def read_in_order():
    read_all(in_order=True)


@pytest.mark.parametrize("work", ["read_all", "read_in_order"])
def test_an_interrupt_at_any_moment_leaves_nobody_waiting(tmp_path, work):
    assert_ends(tmp_path, __file__, work)
