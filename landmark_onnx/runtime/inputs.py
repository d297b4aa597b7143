"""What a file's image input is, and how our tensors become it: others' files differ in type, layout and batch."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np

from landmark_onnx.cards.geometry import fixed_sides
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError
from landmark_onnx.runtime.backend import Port, shape_text
from landmark_onnx.tasks import InputKind
from landmark_onnx.types import Array, Tensors

KINDS = ("float32", "float16", "uint8")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """kind: the values' type, one of `KINDS`. channels_last: (N, H, W, C), and not (N, C, H, W).

    turned: it takes bytes in RGB order, where ours are BGR. batch: how many images a run takes, None for any number.
    """

    kind: str = "float32"
    channels_last: bool = False
    turned: bool = False
    batch: int | None = None

    @classmethod
    def of(cls, card: ModelCard, ports: Mapping[str, Port], *, own: bool, origin: str) -> Self:
        """Compare what the card says with what the file does.

        own: whether it is an export of ours, which takes bytes as BGR, whatever the card's colour.
        Raises: ModelFileError that names `origin`, the input, the card's key, wanted and got.
        """
        name = card.input_names()[0]
        port = ports[name]
        if port.kind not in KINDS:
            raise ModelFileError(f"{origin}: {name}: wanted values of {', '.join(KINDS)}, got {port.kind}")
        turned = not own and port.kind == "uint8" and card.preprocess.colour == "rgb"
        if not port.shape:
            return cls(kind=port.kind, turned=turned)
        last = _channels_last(card, port, f"{origin}: {name}")
        _check_sides(card, port.shape[1:3] if last else port.shape[2:], f"{origin}: {name}")
        batch = port.shape[0]
        if batch == 0:
            raise ModelFileError(f"{origin}: {name}: wanted a batch of 1 or more, or a free one, got 0")
        if card.task == "det" and batch is not None and batch != 1:
            raise ModelFileError(f"{origin}: {name}: wanted a batch of 1 or a free one for task det, got {batch}")
        return cls(kind=port.kind, channels_last=last, turned=turned, batch=batch)

    @property
    def takes(self) -> InputKind:
        """What preprocessing makes for it."""
        return "uint8" if self.kind == "uint8" else "float32"

    def fed(self, image: Array) -> Array:
        """(N, C, H, W) float32, or of bytes (N, H, W, C) uint8 BGR -> what the file takes."""
        if self.turned:
            image = image[..., ::-1]
        if self.channels_last != (self.takes == "uint8"):
            image = np.moveaxis(image, 1, -1) if self.channels_last else np.moveaxis(image, -1, 1)
        # What float16 cannot hold becomes infinite, and the answer with it, which is refused.
        return np.ascontiguousarray(image, np.float16 if self.kind == "float16" else None)


def filled(feeds: Tensors, batch: int) -> Iterator[Tensors]:
    """`feeds` in runs of `batch` images; the last image fills up the last run."""
    image = feeds["image"]
    image = np.concatenate([image, np.repeat(image[-1:], -len(image) % batch, axis=0)])
    for start in range(0, len(image), batch):
        yield {**feeds, "image": image[start : start + batch]}


def _channels_last(card: ModelCard, port: Port, origin: str) -> bool:
    """Which axis has as many sizes as the card's colour has channels; the second, if the file leaves both open."""
    colour = card.preprocess.colour
    channels = len(card.preprocess.mean)
    wanted = f"(N, {channels}, H, W) or (N, H, W, {channels}) for preprocess.colour {colour!r}"
    if len(port.shape) == 4:
        second, last = port.shape[1], port.shape[3]
        if second == channels or (second is None and last != channels):
            return False
        if last == channels:
            return True
    raise ModelFileError(f"{origin}: wanted {wanted}, got {shape_text(port.shape)}")


def _check_sides(card: ModelCard, sides: tuple[int | None, ...], origin: str) -> None:
    """Raises: ModelFileError if the file takes one size, and the card makes others."""
    if sides == (None, None):
        return
    made = fixed_sides(card.preprocess)
    if made is None:
        what = f"preprocess.resize {card.preprocess.resize!r} makes images of many sizes"
        raise ModelFileError(
            f"{origin}: {what}, the file takes {shape_text(sides)} alone: the card wants crop or exact"
        )
    if any(side not in (None, own) for side, own in zip(sides, made, strict=True)):
        raise ModelFileError(
            f"{origin}: the card's preprocess makes {shape_text(made)}, the file takes {shape_text(sides)}"
        )
