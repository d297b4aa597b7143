"""Which sizes a card's preprocessing makes of images, in pixels."""

import math

from landmark_onnx.cards.schema import Preprocess

LEAST_SIDE = 32
"""Pixels: the stride of every network here; a side below it leaves nothing of an image."""


def fixed_sides(rule: Preprocess) -> tuple[int, int] | None:
    """Height and width in pixels of every preprocessed image, None where they follow the image."""
    if rule.crop:
        return rule.crop, rule.crop
    if rule.resize in ("exact", "letterbox"):
        return rule.size, rule.width or rule.size
    return None


def side_bounds(rule: Preprocess) -> tuple[int, int] | None:
    """The shortest and the longest side in pixels, where they vary within bounds; None without bounds."""
    if rule.resize == "short_side_capped":
        longest = math.ceil(rule.max_side / rule.multiple) * rule.multiple
    elif rule.max_ratio:
        longest = math.ceil(rule.size * rule.max_ratio)
    else:
        return None
    least = max(LEAST_SIDE, rule.min_side)
    return least, max(least, longest)
