"""Which landmark an image shows: votes of neighbours and classifiers, and a detector's word on what is no landmark."""

from landmark_onnx.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from landmark_onnx.recognition.landmark_labels import LandmarkLabels, folder_landmark, read_landmarks
    from landmark_onnx.recognition.recognizer import FramingDetector, Recognition, Recognizer, Voter
    from landmark_onnx.recognition.rules import Rule, read_rules
    from landmark_onnx.recognition.votes import Candidate, ClassVote, NeighbourVote, combine, neighbour_vote

__all__ = [
    "Candidate",
    "ClassVote",
    "FramingDetector",
    "LandmarkLabels",
    "NeighbourVote",
    "Recognition",
    "Recognizer",
    "Rule",
    "Voter",
    "combine",
    "folder_landmark",
    "neighbour_vote",
    "read_landmarks",
    "read_rules",
]

_HOMES = {
    "landmark_onnx.recognition.landmark_labels": ("LandmarkLabels", "folder_landmark", "read_landmarks"),
    "landmark_onnx.recognition.recognizer": ("FramingDetector", "Recognition", "Recognizer", "Voter"),
    "landmark_onnx.recognition.rules": ("Rule", "read_rules"),
    "landmark_onnx.recognition.votes": ("Candidate", "ClassVote", "NeighbourVote", "combine", "neighbour_vote"),
}
if not TYPE_CHECKING:  # where a module has __getattr__, mypy takes any name to be there
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
