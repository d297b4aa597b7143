"""How good answers are: metrics of Google Landmarks and of the revisited Oxford and Paris, and the files they read."""

from landmark_onnx.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from landmark_onnx.evaluation.gap import accuracy, evaluate_recognition, global_average_precision
    from landmark_onnx.evaluation.ground_truth import GroundTruth, Query, read_ground_truth
    from landmark_onnx.evaluation.mean_ap import average_precision, evaluate_retrieval, precision
    from landmark_onnx.evaluation.query_crops import crop_queries
    from landmark_onnx.evaluation.report import Report
    from landmark_onnx.evaluation.revisited import evaluate_revisited
    from landmark_onnx.evaluation.solutions import (
        Prediction,
        Solution,
        Truth,
        read_images,
        read_predictions,
        read_solution,
    )
    from landmark_onnx.evaluation.submissions import submission_file

__all__ = [
    "GroundTruth",
    "Prediction",
    "Query",
    "Report",
    "Solution",
    "Truth",
    "accuracy",
    "average_precision",
    "crop_queries",
    "evaluate_recognition",
    "evaluate_retrieval",
    "evaluate_revisited",
    "global_average_precision",
    "precision",
    "read_ground_truth",
    "read_images",
    "read_predictions",
    "read_solution",
    "submission_file",
]

_HOMES = {
    "landmark_onnx.evaluation.query_crops": ("crop_queries",),
    "landmark_onnx.evaluation.ground_truth": ("GroundTruth", "Query", "read_ground_truth"),
    "landmark_onnx.evaluation.gap": ("accuracy", "evaluate_recognition", "global_average_precision"),
    "landmark_onnx.evaluation.mean_ap": ("average_precision", "evaluate_retrieval", "precision"),
    "landmark_onnx.evaluation.revisited": ("evaluate_revisited",),
    "landmark_onnx.evaluation.report": ("Report",),
    "landmark_onnx.evaluation.solutions": (
        "Prediction",
        "Solution",
        "Truth",
        "read_predictions",
        "read_images",
        "read_solution",
    ),
    "landmark_onnx.evaluation.submissions": ("submission_file",),
}
if not TYPE_CHECKING:  # where a module has __getattr__, mypy takes any name to be there
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
