"""Whether a model answers at all: what no sound one fails at is asked when it is added and when it is verified."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from landmark_onnx.cards.schema import ModelCard, Preprocess
from landmark_onnx.errors import ModelFileError
from landmark_onnx.inference.preprocess import collate, resize
from landmark_onnx.precision import Precision
from landmark_onnx.runtime.session import Session
from landmark_onnx.tasks import OUTPUTS
from landmark_onnx.types import Array, Image, Tensors

SIDES = ((120, 160), (200, 120), (120, 160))
"""Height and width of the pictures in pixels: two ratios of sides, and two pictures of one size that make a batch."""

ROUNDING: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 0.01, "bf16": 0.03, "int8": 0.03}
"""How far, by its length, an image's answer in a batch may always be from the one that it has alone."""

DRIFT, SHARE = 0.1, 0.25
"""And how far beyond that: by its length, and of the way to the other image's answer. A file in dynamic 8 bits takes
its ranges from all of a batch; one that mixes its rows goes half of that way."""


def examine(session: Session, card: ModelCard, rule: Preprocess) -> None:
    """Ask three unlike pictures, and two of them in one batch where the file takes that.

    rule: how the pictures are prepared; the card's own, or smaller.
    Raises: ModelFileError that says what is wrong with the answers; SessionError if it cannot be run.
    """
    in_batches = session.largest_batch(2) > 1 and card.task != "det"
    items = [resize(rule, picture(seed)) for seed in range(len(SIDES))]
    as_uint8 = session.input_kind == "uint8"
    alone = [session.run(collate(rule, [item], as_uint8=as_uint8)) for item in items]
    if fault := _fault(card, alone):
        raise ModelFileError(f"{session.path}: {fault}: its weights are damaged, or its card is of another model")
    if in_batches:
        together = session.run(collate(rule, [items[0], items[2]], as_uint8=as_uint8))
        for name, rows in together.items():
            _compare(f"{session.path}: {name}", [alone[0][name], alone[2][name]], rows, ROUNDING[session.precision])


def _compare(origin: str, alone: Sequence[Array], rows: Array, rounding: float) -> None:
    """Raises: ModelFileError if a row of the batch is not near enough to what its image answers alone."""
    own = np.concatenate(alone).astype(np.float64)
    lengths, apart = np.linalg.norm(own, axis=1), float(np.linalg.norm(own[0] - own[1]))
    error = np.linalg.norm(rows - own, axis=1)
    limit = np.maximum(rounding * lengths, np.minimum(DRIFT * lengths, SHARE * apart))
    if not (error <= limit).all():
        raise ModelFileError(
            f"{origin}: an image's answer in a batch of 2 is not the one that it has alone (off by {error.max():.3g} "
            f"of {lengths.max():.3g}); export it again, with a free batch axis or with a fixed batch of 1"
        )


def picture(seed: int) -> Image:
    """(H, W, 3) BGR uint8 of `SIDES`: colours, edges and noise, the same every time, unlike those of other seeds."""
    height, width = SIDES[seed]
    y, x = np.mgrid[:height, :width]
    random = np.random.default_rng(seed)
    turns = random.permutation([(1, 2), (3, -1), (-2, 1)]) if seed else [(1, 2), (3, -1), (-2, 1)]
    waves = np.stack([np.sin((x * a + y * b) / (17 + 14 * seed)) for a, b in turns], axis=-1)
    noise = random.normal(0, 4 + 20 * seed, waves.shape)
    tile = 20 + 13 * seed
    tiles = 60 * ((x // tile + y // tile) % 2)[..., None]
    image: Image = np.clip((100, 140, 60)[seed] + 90 * waves + noise + tiles, 0, 255).astype(np.uint8)
    return image


def _fault(card: ModelCard, answers: Sequence[Tensors]) -> str:
    """What is wrong with the answers to unlike pictures, or nothing; a detector that finds nothing is no fault."""
    for name in answers[0]:
        given = [answer[name] for answer in answers]
        if not all(np.isfinite(values).all() for values in given):
            return f"{name}: answers values that are not finite"
    name = "probability" if card.task == "det" else OUTPUTS[card.task][0]
    given = [answer[name] for answer in answers]
    if card.task == "det" and not all(answer["rois"].any() for answer in answers):
        return ""
    if not any(values.any() for values in given):
        return f"{name}: answers nothing but zeros to {len(given)} unlike pictures"
    if all(np.array_equal(a, b) for a, b in itertools.pairwise(given)):
        return f"{name}: answers the same, to the bit, to {len(given)} unlike pictures"
    return ""
