"""The least of each row, in an order that is the same everywhere."""

import numpy as np

from landmark_onnx.types import Float32, Int64


def least(values: Float32, count: int, *, own_first: bool = False) -> Int64:
    """(M, N) float32, none below 0 -> (M, min(count, N)) columns of the least, rising; of equal ones the lower first.

    own_first: row i begins with column i, whatever its value. Bits of numbers from 0 up are in the numbers' order, so
    each value and its column are sorted as one whole number, all different: many times as fast as a stable argsort.
    """
    # Adding 0 turns -0 into 0; 1 leaves room below for a row's own column.
    keys = (values + np.float32(0)).view(np.uint32).astype(np.uint64) + np.uint64(1)
    keys <<= np.uint64(32)
    keys |= np.arange(values.shape[1], dtype=np.uint64)
    if own_first:
        np.fill_diagonal(keys, np.arange(values.shape[1], dtype=np.uint64))
    count = min(count, values.shape[1])
    if count < values.shape[1]:
        keys = np.partition(keys, count, axis=1)[:, :count]
    keys.sort(axis=1)
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
