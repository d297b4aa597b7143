"""Photos: found in folders, judged by their headers, decoded, drawn on."""

from landmark_onnx.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from landmark_onnx.images.contact_sheet import draw_detections
    from landmark_onnx.images.decode import ReadOptions, read_image

__all__ = [
    "ReadOptions",
    "draw_detections",
    "read_image",
]

_HOMES = {
    "landmark_onnx.images.contact_sheet": ("draw_detections",),
    "landmark_onnx.images.decode": (
        "ReadOptions",
        "read_image",
    ),
}
if not TYPE_CHECKING:  # where a module has __getattr__, mypy takes any name to be there
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
