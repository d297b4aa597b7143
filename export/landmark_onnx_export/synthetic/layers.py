"""What the layers of a network do to values, in numpy and double precision."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""Double, so that after rounding to `BITS` the statistics are the same whatever order a machine adds in."""

BITS = 12
"""Of a statistic's fraction that are kept."""
VARIANCE_FLOOR = 0.3
"""Of a layer's mean: a channel that says little of these few pictures may say much of a photo."""
MEAN_SHARE = 0.25
"""Of a channel's mean that a norm takes away. All of it would fit these pictures ever better, layer after layer: in a
deep network a photo's signal, in units of theirs, grew a thousandfold."""


def convolve(x: Values, weights: Values, stride: int, paddings: list[int], groups: int) -> Values:
    """(N, C, H, W) with (F, C / groups, h, w) -> (N, F, H', W')."""
    (filters, depth, height, width), images = weights.shape, len(x)
    wide = padded(x, paddings)
    rows = (wide.shape[2] - height) // stride + 1
    columns = (wide.shape[3] - width) // stride + 1
    y = np.zeros((images, groups, filters // groups, rows * columns))
    for i in range(height):
        for j in range(width):
            tap = wide[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            y += weights[:, :, i, j].reshape(groups, -1, depth) @ tap.reshape(images, groups, depth, -1)
    return y.reshape(images, filters, rows, columns)


def taps(x: Values, size: int, stride: int, padding: int) -> Iterator[Values]:
    """The pixels that each place of a size x size window sees."""
    wide = padded(x, [padding, padding])
    rows, columns = ((side - size) // stride + 1 for side in wide.shape[2:])
    for i in range(size):
        for j in range(size):
            yield wide[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]


def padded(x: Values, paddings: Sequence[int]) -> Values:
    """Padded by the other side's pixels: zeros would count for more on these small pictures than on a photo."""
    return np.pad(x, [(0, 0), (0, 0), *((pad, pad) for pad in paddings)], mode="wrap")


def statistics(x: Values) -> tuple[Values, Values]:
    """What a norm of x subtracts, and the mean square that is left, of each channel."""
    mean: Values = MEAN_SHARE * channel_means(x)
    square = channel_means((x - as_channels(mean, x)) ** 2)
    return mean, np.maximum(square, VARIANCE_FLOOR * square.mean() + 1e-12)


def channel_means(x: Values) -> Values:
    """(C,), over images and places."""
    means: Values = x.mean(axis=(0, *range(2, x.ndim)))
    return means


def as_channels(values: npt.NDArray[Any], x: Values) -> npt.NDArray[Any]:
    """(C,) in a shape that broadcasts with x."""
    return values.reshape(-1, *[1] * (x.ndim - 2))


def rounded(values: Values) -> npt.NDArray[np.float32]:
    """`BITS` significant bits."""
    mantissa, exponent = np.frexp(values)
    kept: npt.NDArray[np.float32] = np.ldexp(np.round(mantissa * 2**BITS), exponent - BITS).astype(np.float32)
    return kept
