"""Random weights under which a deep network still tells images apart: its statistics are taken from images, in numpy.

The program's ops run one after another on a few seeded pictures. Where an op has weights, they are drawn; where it has
statistics (batch norm, a bias), they are set to what comes in, so that signals neither vanish nor explode at any depth.
"""

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_onnx_export.paddle.builder import attributes
from landmark_onnx_export.paddle.variables import declared_shapes, parse_program
from landmark_onnx_export.synthetic.layers import (
    Values,
    as_channels,
    channel_means,
    convolve,
    rounded,
    statistics,
    taps,
)

IMAGES = (4, 16)
NARROW = 1_000_000
"""Networks of fewer weights take statistics from the most images: less averages out in them. Wide ones take few."""
SIDE = 128
OCTAVES = (1.2, 0.22, 0.14, 0.1, 0.07, 0.06, 0.06, 0.05)
"""Power of normalised photos in patches of SIDE, SIDE / 2, ... 1 pixels, measured on 102 crops of seven photos."""
COLOUR = 0.14
RANGE = (-2.1, 2.6)
ROIS = 16
ROWS_NUMBERS = 4 << 20
BRANCH_GAIN = 0.2
"""Scale of the last norm in each residual branch: 50 branches add up to little more than what they branch from."""
SPREADS: Mapping[str, tuple[float, float]] = {
    "softmax": (1.5, 0.1),
    "sigmoid": (1.0, 0.1),
    "generate_proposals": (0.3, 0.1),
    "fetch": (1.0, 1.0),
}
"""Reader of a biased layer -> standard deviation over images and places; that of the channels' means over that."""
SPREAD = (1.0, 0.1)


@dataclass(frozen=True, slots=True)
class Weights:
    """A program's parameters: the small ones as values, the others as the scale of seeded normal numbers."""

    seed: int
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, npt.NDArray[np.float32]]
    scales: Mapping[str, float]

    def rows(self, name: str) -> Iterator[npt.NDArray[np.float32]]:
        """The parameter in chunks of its first dimension, a few million numbers each."""
        if name in self.values:
            yield self.values[name]
            return
        for chunk in normal_rows(self.seed, name, self.shapes[name]):
            yield chunk * np.float32(self.scales[name])


def calibrate(program: bytes, seed: int) -> Weights:
    """Weights for every parameter of a program made of the ops below; the same arguments give the same weights."""
    return _Calibration(program, seed).run()


def normal_rows(seed: int, name: str, shape: Sequence[int]) -> Iterator[npt.NDArray[np.float32]]:
    """Standard normal numbers of `shape`, in chunks of the first dimension."""
    generator = _generator(seed, name)
    step = max(1, ROWS_NUMBERS // math.prod(shape[1:]))
    for start in range(0, shape[0], step):
        yield generator.standard_normal((min(step, shape[0] - start), *shape[1:]), dtype=np.float32)


def pictures(seed: int, images: int) -> Values:
    """(images, 3, SIDE, SIDE): random patches of all sizes over one another, with the octaves and range of photos."""
    generator = _generator(seed, "pictures")
    total: Values = np.zeros((images, 3, SIDE, SIDE))
    for octave, power in enumerate(OCTAVES):
        grey, colour = (generator.standard_normal((images, depth, 2**octave, 2**octave)) for depth in (1, 3))
        patches = np.sqrt(power) * (np.sqrt(1 - COLOUR) * grey + np.sqrt(COLOUR) * colour)
        total += patches.repeat(SIDE >> octave, axis=2).repeat(SIDE >> octave, axis=3)
    return np.clip(total, *RANGE)


class _Calibration:
    def __init__(self, program: bytes, seed: int) -> None:
        desc = parse_program(program)
        self._ops = list(desc.blocks[0].ops)
        self._seed = seed
        self._shapes = declared_shapes(desc)
        self._known: dict[str, npt.NDArray[np.float32]] = {}
        self._scales: dict[str, float] = {}
        self._flow: dict[str, Values] = {}
        self._readers = {name: op for op in reversed(self._ops) for name in _names(op.inputs)}
        makers = {name: op for op in self._ops for name in _names(op.outputs)}
        self._branches: set[str] = set()
        for op in self._ops:
            if op.type == "elementwise_add" and _name(op.inputs, "Y") not in self._shapes:
                end = _name(op.inputs, "Y")
                gated = makers[end].type == "elementwise_mul"  # squeeze and excite
                self._branches.add(_name(makers[end].inputs, "X") if gated else end)

    def run(self) -> Weights:
        left = Counter(name for op in self._ops for name in _names(op.inputs))
        for op in self._ops:
            if op.type != "fetch":
                out = getattr(self, f"_{op.type}")(op, **attributes(op))
                self._flow |= dict.fromkeys(_names(op.outputs), out)
            for name in _names(op.inputs):
                left[name] -= 1
                if not left[name]:
                    self._flow.pop(name, None)
        return Weights(self._seed, self._shapes, self._known, self._scales)

    # One method for each kind of op, called with its attributes; it answers the op's output.

    def _feed(self, _op: Any, **_: Any) -> Values:
        numbers = sum(math.prod(shape) for shape in self._shapes.values() if len(shape) == 4)
        fewest, most = IMAGES
        return pictures(self._seed, min(most, max(fewest, int(most * math.sqrt(NARROW / numbers)))))

    def _conv2d(self, op: Any, *, strides: list[int], paddings: list[int], groups: int, **others: Any) -> Values:
        name = _name(op.inputs, "Filter")
        if others.get("padding_algorithm") == "SAME":  # one pixel to the side, which statistics do not see
            paddings = [side // 2 for side in self._shapes[name][2:]]
        self._scales[name] = math.sqrt(2 / math.prod(self._shapes[name][1:]))
        scale = np.float32(self._scales[name])
        weights = np.concatenate([chunk * scale for chunk in normal_rows(self._seed, name, self._shapes[name])])
        y = convolve(self._input(op, "Input"), weights.astype(np.float64), strides[0], paddings, groups)
        return self._spread(op, name, y)

    def _matmul_v2(self, op: Any, **_: Any) -> Values:
        """With transposed weights."""
        name, x = _name(op.inputs, "Y"), self._input(op)
        self._scales[name] = math.sqrt(1 / self._shapes[name][1])
        chunks = [x @ chunk.astype(np.float64).T for chunk in normal_rows(self._seed, name, self._shapes[name])]
        return self._spread(op, name, np.concatenate(chunks, axis=1) * self._scales[name])

    def _reshape2(self, op: Any, **_: Any) -> Values:
        return self._input(op).reshape(len(self._input(op)), -1)

    def _mul(self, op: Any, **_: Any) -> Values:
        name = _name(op.inputs, "Y")
        x = self._input(op).reshape(len(self._input(op)), -1)
        self._scales[name] = math.sqrt(1 / self._shapes[name][0])
        y, start = np.zeros((len(x), self._shapes[name][1])), 0
        for chunk in normal_rows(self._seed, name, self._shapes[name]):
            y += x[:, start : start + len(chunk)] @ chunk.astype(np.float64)
            start += len(chunk)
        return self._spread(op, name, y * self._scales[name])

    def _elementwise_add(self, op: Any, **_: Any) -> Values:
        name, x = _name(op.inputs, "Y"), self._input(op)
        if name not in self._shapes:
            return np.add(x, self._flow[name])
        if name not in self._known:
            spread, share = SPREADS.get(self._reader(op), SPREAD)
            noise = _generator(self._seed, name).standard_normal(self._shapes[name])
            self._known[name] = rounded(noise * spread * share - channel_means(x))
        y: Values = x + as_channels(self._known[name], x)
        return y

    def _batch_norm(self, op: Any, *, epsilon: float, **_: Any) -> Values:
        x = self._input(op)
        mean, variance = map(rounded, statistics(x))
        scale, offset = self._scale_and_offset(_name(op.inputs, "Scale"), _name(op.outputs, "Y"), len(mean))
        for slot, value in (("Mean", mean), ("Variance", variance), ("Scale", scale), ("Bias", offset)):
            self._known[_name(op.inputs, slot)] = value
        factor = scale / np.sqrt(variance.astype(np.float64) + epsilon)
        y: Values = (x - as_channels(mean, x)) * as_channels(factor, x) + as_channels(offset, x)
        return y

    def _affine_channel(self, op: Any, **_: Any) -> Values:
        x = self._input(op)
        mean, variance = statistics(x)
        scale, offset = self._scale_and_offset(_name(op.inputs, "Scale"), _name(op.outputs, "Out"), len(mean))
        factor = rounded(scale / np.sqrt(variance))
        offset = rounded(offset - mean * factor)
        self._known |= {_name(op.inputs, "Scale"): factor, _name(op.inputs, "Bias"): offset}
        y: Values = x * as_channels(factor, x) + as_channels(offset, x)
        return y

    def _pool2d(self, op: Any, *, pooling_type: str, global_pooling: bool = False, **sizes: Any) -> Values:
        x = self._input(op)
        y: Values
        if global_pooling:
            y = x.mean(axis=(2, 3), keepdims=True)
            return y
        size, stride, padding = (sizes[name][0] for name in ("ksize", "strides", "paddings"))
        if pooling_type == "max":
            y = np.maximum.reduce(list(taps(x, size, stride, padding)))
        else:
            y = np.add.reduce(list(taps(x, size, stride, padding))) / size**2
        return y

    def _relu(self, op: Any, **_: Any) -> Values:
        return np.maximum(self._input(op), 0)

    def _relu6(self, op: Any, **_: Any) -> Values:
        return np.clip(self._input(op), 0, 6)

    def _sigmoid(self, op: Any, **_: Any) -> Values:
        return 1 / (1 + np.exp(-self._input(op)))

    def _elementwise_mul(self, op: Any, **_: Any) -> Values:
        return self._input(op) * self._input(op, "Y")[:, :, None, None]

    def _concat(self, op: Any, *, axis: int, **_: Any) -> Values:
        return np.concatenate([self._flow[name] for name in _names(op.inputs)], axis)

    def _generate_proposals(self, _op: Any, **_: Any) -> Values:
        """Boxes anywhere: only their crops' statistics matter here."""
        generator = _generator(self._seed, "boxes")
        corner, size = generator.uniform(0, 0.5, (ROIS, 2)), generator.uniform(0.2, 0.5, (ROIS, 2))
        return SIDE * np.concatenate([corner, corner + size], axis=1)

    def _roi_align(self, op: Any, *, pooled_height: int, spatial_scale: float, **_: Any) -> Values:
        """The pixels nearest to the centres of the bins."""
        x = self._input(op)
        centres = (np.arange(pooled_height) + 0.5) / pooled_height
        crops = []
        for index, (x1, y1, x2, y2) in enumerate(self._input(op, "ROIs") * spatial_scale):
            columns, rows = (x1 + centres * (x2 - x1)).astype(int), (y1 + centres * (y2 - y1)).astype(int)
            crops.append(x[index % len(x)][:, rows[:, None], columns])
        return np.stack(crops)

    def _pass(self, op: Any, **_: Any) -> Values:
        return self._flow[next(name for name in _names(op.inputs) if name in self._flow)]

    # What these change is not its input's spread.
    _softmax = _scale = _anchor_generator = _pass

    def _input(self, op: Any, slot: str = "X") -> Values:
        return self._flow[_name(op.inputs, slot)]

    def _reader(self, op: Any) -> str:
        reader = self._readers.get(_names(op.outputs)[0])
        return str(reader.type) if reader else ""

    def _spread(self, op: Any, name: str, y: Values) -> Values:
        """Scale a layer that only a bias follows to the spread that its reader is given."""
        if self._reader(op) != "elementwise_add":
            return y
        wanted = SPREADS.get(self._reader(self._readers[_names(op.outputs)[0]]), SPREAD)[0]
        variance = np.mean((y - as_channels(channel_means(y), y)) ** 2)
        factor = float(rounded(np.array(wanted / np.sqrt(variance))))
        self._scales[name] *= factor
        return y * factor

    def _scale_and_offset(self, name: str, output: str, size: int) -> tuple[Any, Any]:
        generator = _generator(self._seed, name)
        gain = BRANCH_GAIN if output in self._branches else 1.0
        return rounded(gain * generator.uniform(0.8, 1.2, size)), rounded(gain * generator.normal(0, 0.1, size))


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _names(slots: Any) -> list[str]:
    return [name for slot in slots for name in slot.arguments]


def _name(slots: Any, parameter: str) -> str:
    return str(next(slot.arguments[0] for slot in slots if slot.parameter == parameter))
