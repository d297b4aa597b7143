"""Where a walk's widths come from: a train model's files, or the published network, scaled."""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np

from landmark_onnx.errors import ExportError
from landmark_onnx_export.paddle.variables import Variable

MAX_PROBLEMS = 10

Dims = tuple[int | None, ...]
"""None: not known, any size will do."""


class Shapes(Protocol):
    """Where a walk's widths come from."""

    def usual(self, size: int) -> int:
        """What to plan for a dimension published as `size`."""

    def take(self, name: str, wanted: Dims, usual: Sequence[int]) -> Dims:
        """The shape of parameter `name`, which has to fit `wanted`; `usual` where the walk decides."""

    def refuse(self, problem: str) -> None:
        """Note what rules the files out."""


class PlannedShapes:
    """The published widths times `width`."""

    def __init__(self, width: Fraction) -> None:
        self._width = width

    def usual(self, size: int) -> int:
        """Scaled, and at least 1."""
        return max(1, round(size * self._width))

    def take(self, name: str, wanted: Dims, usual: Sequence[int]) -> Dims:
        """What is wanted, else usual."""
        return tuple(size if want is None else want for want, size in zip(wanted, usual, strict=True))

    def refuse(self, problem: str) -> None:
        """A plan that does not fit itself is a mistake in the network."""
        raise AssertionError(problem)


class FoundShapes:
    """The shapes in the files, checked; goes on after a problem, so as to find them all."""

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self._variables = variables
        self._used: set[str] = set()
        self._problems: list[str] = []

    def usual(self, size: int) -> int:
        """Unused: the files decide."""
        return size

    def take(self, name: str, wanted: Dims, usual: Sequence[int]) -> Dims:
        """The shape in the files, if it has the rank that is wanted."""
        self._used.add(name)
        found = self._variables.get(name)
        if found is None:
            self.refuse(f"{name} is missing, wanted float32 {_text(wanted)}")
            return wanted
        same_rank = len(found.shape) == len(wanted)
        fits = same_rank and all(
            size > 0 and want in (None, size) for want, size in zip(wanted, found.shape, strict=True)
        )
        if not fits or found.dtype != np.float32:
            self.refuse(f"{name}: wanted float32 {_text(wanted)}, got {found.dtype} {_text(found.shape)}")
        return found.shape if same_rank else wanted

    def refuse(self, problem: str) -> None:
        """Keep for `check`."""
        self._problems.append(problem)

    def check(self, network: str) -> None:
        """Raises: ExportError listing the problems, or the convolutions in the files that the network lacks."""
        problems = self._problems or [
            f"{name} {_text(self._variables[name].shape)} has no place in it"
            for name in sorted(self._variables)
            if name not in self._used and self._is_convolution(name)
        ]
        if problems:
            listed = "; ".join(problems[:MAX_PROBLEMS])
            more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
            raise ExportError(f"the variables do not fit the network {network}: {listed}{more}")

    def _is_convolution(self, name: str) -> bool:
        # An optimizer's state has a longer name, a loss's matrix two dimensions.
        return len(self._variables[name].shape) == 4 and bool(
            re.fullmatch(r"conv2d_\d+\.w_0|\w+_weights|[\w.]+\.weight", name)
        )


def _text(dims: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in dims) + "]"
