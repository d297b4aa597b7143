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


OUTPUTS: Mapping[Task, tuple[str, ...]] = {
    "retrieval": ("embedding",),
    "cls": ("probability",),
    "det": ("rois", "probability", "deltas"),
}
"""The tensors of each task, in the order of the original program: these are the names in our ONNX files."""
