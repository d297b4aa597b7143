"""The tasks and the tensors of each: facts without NumPy."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

Task: TypeAlias = Literal["retrieval", "cls", "det"]


InputKind: TypeAlias = Literal["float32", "uint8"]
"""What a file's "image" is: (N, 3, H, W) float32 as preprocessing makes it, or (N, H, W, 3) uint8 BGR as resized."""


INPUTS: Mapping[Task, tuple[str, ...]] = {
    "retrieval": ("image",),
    "cls": ("image",),
    "det": ("image", "im_info"),
}
"""Of the models that Baidu released; detectors of another decoder take `DETECTOR_INPUTS`, as their card names them."""

DETECTOR_INPUTS: tuple[str, ...] = ("image", "im_shape", "scale_factor")
"""(1, 2) float32 each beside the image: height and width after the resize, and these by those of the photo."""


Decoder: TypeAlias = Literal["rois", "boxes", "rows", "detr"]

DECODERS: Mapping[Decoder, tuple[str, ...]] = {
    "rois": ("rois", "probability", "deltas"),
    "boxes": ("boxes", "scores", "classes"),
    "rows": ("rows",),
    "detr": ("logits", "boxes"),
}
"""The outputs that a detector's decoder wants."""


OUTPUTS: Mapping[Task, tuple[str, ...]] = {
    "retrieval": ("embedding",),
    "cls": ("probability",),
    "det": DECODERS["rois"],
}
"""The tensors of each task, in the order of the original program: these are the names in our ONNX files."""
