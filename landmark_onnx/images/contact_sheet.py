"""Boxes, names and scores on a copy of an image, and images side by side on a sheet."""

import colorsys
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from landmark_onnx.errors import ImageError
from landmark_onnx.files.atomic import atomic_write, write_new
from landmark_onnx.results import Detections
from landmark_onnx.types import Image

Colour = tuple[int, int, int]
"""B, G, R."""

Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

FONT = cv2.FONT_HERSHEY_SIMPLEX
MIN_FONT_SCALE = 0.45
"""Letters of about ten pixels; anything smaller is hard to read."""
MIN_SHORT_SIDE = 240
"""Smaller images are enlarged a whole number of times, or no name would fit in."""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

MARGIN, TEXT_HEIGHT = 12, 40
"""Pixels between the images of a sheet, and below each row of them."""


def draw_detections(image: Image, detections: Detections) -> Image:
    """A copy of (H, W, 3) BGR `image` with each box, its class and score, the best on top.

    Lines and letters grow with the image; one with a side below MIN_SHORT_SIDE is enlarged. The class sets the colour.
    """
    factor = -(-MIN_SHORT_SIDE // min(image.shape[:2]))
    drawn = image.copy() if factor == 1 else np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    style = _Style.fitting(drawn)
    boxes: list[tuple[Rectangle, Colour]] = []
    labels: list[tuple[Rectangle, str, Colour]] = []
    for at in np.argsort(-detections.scores, kind="stable"):
        category = int(detections.classes[at])
        text = f"{detections.names[at] or f'class {category}'} {detections.scores[at]:.2f}"
        box, colour = _pixels(detections.boxes[at] * factor, drawn), class_colour(category)
        boxes.append((box, colour))
        labels.append((style.place(text, box, drawn, [spot for spot, _, _ in labels]), text, colour))
    for (x, y, width, height), colour in reversed(boxes):
        cv2.rectangle(drawn, (x, y), (x + width - 1, y + height - 1), colour, style.line)
    for label in reversed(labels):
        style.write(drawn, *label)
    return drawn


def class_colour(category: int) -> Colour:
    """A vivid colour that belongs to the class; the golden ratio keeps those of neighbours apart."""
    hue = category * 0.618034 % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 + 0.25 * (category % 2), 0.95 - 0.2 * (category % 3 == 0))
    return round(blue * 255), round(green * 255), round(red * 255)


@dataclasses.dataclass(frozen=True, slots=True)
class _Style:
    """scale, stroke: of the letters, as OpenCV takes them. line: width of an edge in pixels. pad: around a text."""

    scale: float
    stroke: int
    line: int
    pad: int

    @classmethod
    def fitting(cls, image: Image) -> "_Style":
        """The style for an image of this size."""
        long, short = max(image.shape[:2]), min(image.shape[:2])
        scale = max(MIN_FONT_SCALE, 0.7 * min(long / 1200, short / 600))
        return cls(scale=scale, stroke=max(1, round(scale * 1.3)), line=max(2, round(long / 400)), pad=round(6 * scale))

    def size(self, text: str) -> tuple[int, int, int]:
        """Width, height above and height below the baseline, in pixels; the heights are those of any text."""
        (width, _), _ = cv2.getTextSize(text, FONT, self.scale, self.stroke)
        (_, above), below = cv2.getTextSize("Hg", FONT, self.scale, self.stroke)
        return width, above, below

    def place(self, text: str, box: Rectangle, image: Image, taken: Sequence[Rectangle]) -> Rectangle:
        """Where the text covers the least of those placed before: above its box, below it, or inside."""
        x, y, _, box_height = box
        text_width, above, below = self.size(text)
        width, height = text_width + 2 * self.pad, above + below + self.pad
        tops = (y - height, y, y + box_height, y + box_height - height)
        room = max(0, image.shape[1] - width), max(0, image.shape[0] - height)
        spots = [(min(x, room[0]), min(max(0, top), room[1]), width, height) for top in tops]
        return min(spots, key=lambda spot: sum(_overlap(spot, other) for other in taken))

    def write(self, image: Image, spot: Rectangle, text: str, colour: Colour) -> None:
        """The text on a plate of `colour`, in black or white, whichever stands out."""
        x, y, width, height = spot
        cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), colour, cv2.FILLED)
        ink = BLACK if 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 140 else WHITE
        _, above, _ = self.size(text)
        corner = (x + self.pad, y + above + self.pad // 2)
        cv2.putText(image, text, corner, FONT, self.scale, ink, self.stroke, cv2.LINE_AA)


def _pixels(box: npt.NDArray[np.float32], image: Image) -> Rectangle:
    """A box in whole pixels, all of it inside the image."""
    sides = np.array(image.shape[1::-1])
    start = np.clip(np.rint(box[:2]), 0, sides - 1)
    size = np.clip(np.rint(box[2:]), 1, sides - start)
    x, y, width, height = np.concatenate([start, size]).astype(int).tolist()
    return x, y, width, height


def _overlap(a: Rectangle, b: Rectangle) -> int:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def contact_sheet(images: Sequence[tuple[Image, str]], *, columns: int = 4, side: int = 320) -> Image:
    """Images with a line of text below each, in rows of `columns`, the long side of every one `side` pixels."""
    width = min(columns, len(images)) * (side + MARGIN) + MARGIN
    rows = [_sheet_row(images[start : start + columns], side, width) for start in range(0, len(images), columns)]
    return np.concatenate([np.full((MARGIN, width, 3), 255, np.uint8), *rows])


def _sheet_row(images: Sequence[tuple[Image, str]], side: int, width: int) -> Image:
    """One row of a sheet, as high as its highest image and the text."""
    small = [_long_side(image, side) for image, _ in images]
    height = max(image.shape[0] for image in small)
    row = np.full((height + TEXT_HEIGHT, width, 3), 255, np.uint8)
    for column, (image, (_, text)) in enumerate(zip(small, images, strict=True)):
        left = MARGIN + column * (side + MARGIN)
        row[height - image.shape[0] : height, left : left + image.shape[1]] = image
        cv2.putText(row, text, (left, height + 20), FONT, 0.5, BLACK, 1, cv2.LINE_AA)
    return row


def _long_side(image: Image, side: int) -> Image:
    ratio = side / max(image.shape[:2])
    width, height = (max(1, round(length * ratio)) for length in image.shape[1::-1])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


class DrawnCopies:
    """A folder of drawn images, each named like its original; what was there before stays."""

    def __init__(self, folder: Path) -> None:
        """The folder is made when the first image is written."""
        self._folder = folder
        self._used: set[str] = set()

    def write(self, image: Image, detections: Detections) -> Path:
        """Draw `detections` on a copy of `image`, and write it; a name that is taken gets the next free number.

        Raises: ImageError for an image of the folder itself: its copy would be an image to draw on in the next run.
        """
        source = Path(detections.image)
        if source.resolve().parent == self._folder.resolve():
            raise ImageError(
                f"{source}: drawing into its own folder would leave the copy among the images; choose another"
            )
        suffix = ".jpg" if source.suffix.lower() in (".jpg", ".jpeg") else ".png"
        data = encode_image(suffix, draw_detections(image, detections), str(source))
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = self._free(source.stem, suffix)
            try:
                with write_new(path) as file:
                    file.write(data)
            except FileExistsError:  # somebody has taken the name since
                continue
            return path

    def _free(self, stem: str, suffix: str) -> Path:
        """A name that nothing has, in this run or in the folder: the stem, or else the stem and a number."""
        name, number = f"{stem}{suffix}", 1
        while name.casefold() in self._used or os.path.lexists(self._folder / name):
            number += 1
            name = f"{stem}-{number}{suffix}"
        self._used.add(name.casefold())
        return self._folder / name


def write_image(path: Path, image: Image) -> None:
    """Encode by the suffix (.jpg, .png) and write, all or nothing. Raises: ImageError if OpenCV cannot encode it."""
    data = encode_image(path.suffix, image, str(path))
    with atomic_write(path) as file:
        file.write(data)


def encode_image(suffix: str, image: Image, name: str) -> bytes:
    """The bytes of a .jpg or .png. name: of the image, for errors. Raises: ImageError if OpenCV cannot encode it."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix == ".jpg" else []
    try:
        done, data = cv2.imencode(suffix, image, quality)
    except cv2.error as error:
        raise ImageError(f"{name}: OpenCV cannot encode it: {error.err or error}") from error
    if not done:
        raise ImageError(f"{name}: OpenCV cannot encode it")
    return data.tobytes()
