"""Pictures of text, as documents have it."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = "Tower Bridge Palace Gate Castle Square Museum Church Harbour Station 1894 1731".split()  # noqa: SIM905


def text_line(text: str, *, turned: bool = False) -> np.ndarray:
    """(80, 320, 3) uint8: dark on white, upright or upside down."""
    image = _written([text], (320, 80), size=44)
    return np.ascontiguousarray(image[::-1, ::-1]) if turned else image


def page(rng: np.random.Generator) -> np.ndarray:
    """(500, 380, 3) uint8: lines of eight words."""
    return _written([" ".join(rng.choice(WORDS, 8)) for _ in range(24)], (380, 500), size=13)


def _written(lines: list[str], size_wh: tuple[int, int], size: int) -> np.ndarray:
    image = Image.new("RGB", size_wh, "white")
    font = ImageFont.load_default(size)
    for number, line in enumerate(lines):
        middle = (2 * number + 1) * size_wh[1] // (2 * len(lines))
        ImageDraw.Draw(image).text((8, middle), line, (20, 20, 20), font=font, anchor="lm")
    return np.array(image)
