"""Photos of one shape together: what a network can run as one batch."""

import collections
import itertools
from collections.abc import Sequence

import numpy as np

from landmark_onnx.types import Tensors


def same_shape(prepared: Sequence[Tensors]) -> list[list[int]]:
    """The positions of the images of each shape, commonest shape first."""
    groups: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
    for position, feeds in enumerate(prepared):
        groups[feeds["image"].shape].append(position)
    return sorted(groups.values(), key=len, reverse=True)


def batches(prepared: Sequence[Tensors], batch_size: int) -> list[Tensors]:
    """Whole batches of the commonest shape, each image in one of them at least; images repeat to fill the last."""
    members = [prepared[position] for position in same_shape(prepared)[0]]
    count = -(-len(members) // batch_size)
    endless = itertools.cycle(members)
    made = [list(itertools.islice(endless, batch_size)) for _ in range(count)]
    return [{name: np.concatenate([feeds[name] for feeds in batch]) for name in members[0]} for batch in made]
