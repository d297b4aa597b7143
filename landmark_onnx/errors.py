"""One exception tree: whatever goes wrong for a foreseeable reason is a `LandmarkError` with one clear line."""

import logging
import sys

# Every module imports this one. What is decided on the way is said to those alone who ask the logger "landmark_onnx".
logging.getLogger("landmark_onnx").addHandler(logging.NullHandler())

EXPORTING = ("export", "export-pir", "demo")
"""The extras that bring the exporter."""

EXPORTERS = {"paddle": "paddlepaddle", "paddle2onnx": "paddle2onnx", "onnx": "onnx", "onnxscript": "onnxscript"}
"""What export imports and nothing else does, and the distributions that bring it."""

NO_EXPORTER = "paddle2onnx has no release for Python 3.13 and newer: export with Python 3.11 or 3.12"


def can_export() -> bool:
    """Whether the exporter can be installed for this Python."""
    return sys.version_info < (3, 13)


class LandmarkError(Exception):
    """Base of every error this project raises on purpose; its text names the culprit and the remedy."""


class UnknownModelError(LandmarkError):
    """A model name that no card declares."""


class CardError(LandmarkError):
    """A model card that is malformed; names the card and the key."""


class ImageError(LandmarkError):
    """An image that cannot be read or used; names the image."""


class ModelFileError(LandmarkError):
    """A model file that is missing, damaged or not what it claims; names the file."""


class DownloadError(LandmarkError):
    """A file that cannot be fetched: the address, what went wrong there, and where else the file may come from."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}. The links may be dead: add a copy that you have (landmark-onnx models add FILE --name NAME), "
            "or set LANDMARK_ONNX_MIRROR to a URL or a file:// folder that has the same path"
        )
        self.reason = reason


class SessionError(LandmarkError):
    """ONNX Runtime cannot run the model as asked (provider, options, shapes)."""


class AdmissionError(LandmarkError):
    """A scheduler that takes no more. limit: what was reached. retry_after: seconds until there is likely room."""

    def __init__(self, reason: str, *, limit: float, retry_after: float) -> None:
        super().__init__(reason)
        self.limit = limit
        self.retry_after = retry_after


class QueueFullError(AdmissionError):
    """As many images are queued as the limit allows."""


class ClientQueueFullError(AdmissionError):
    """One client has as many images queued as its share allows."""


class TooLateError(AdmissionError):
    """So much is queued that an answer would come after its deadline; the limit is in seconds."""


class DeadlineError(LandmarkError):
    """The time that was given for an answer has passed. place: how far the request was, None if that is not known."""

    def __init__(self, text: str, place: str | None = None) -> None:
        super().__init__(text)
        self.place = place


class SchedulerClosedError(LandmarkError):
    """The scheduler has ended, or takes nothing new because it is about to."""


class FeatureError(LandmarkError):
    """A folder of features that is incomplete, damaged or of something else; names the file and the remedy."""


class SearchError(LandmarkError):
    """An index or ensemble that is missing, damaged or of other models than the query; names it and the remedy."""


class StepError(LandmarkError):
    """A step after the search that is not known or has no such value; names the key and what there is."""


class TableError(LandmarkError):
    """A CSV, list or ground-truth file that cannot be used, or ids that do not match; names the file and the line."""


class RuleError(LandmarkError):
    """A file of rules on what is no landmark that is malformed; names the file and the key."""


class ExportError(LandmarkError):
    """A Paddle release that cannot be converted; names the model and the variable or op, on one line."""

    def __init__(self, reason: str) -> None:
        # The names in a release are whatever somebody wrote there.
        super().__init__(shown(reason))


class MissingExtraError(LandmarkError, ImportError):
    """An optional part of the installation is missing or damaged; names the pip command, and which extras bring it."""

    def __init__(self, what: str, extra: str, *others: str, damage: str = "") -> None:
        also = f" (or with extra {', '.join(others)})" if others else ""
        remedy = f"run: pip install 'landmark-onnx[{extra}]'{also}"
        if extra in EXPORTING and not can_export():
            remedy = f"{NO_EXPORTER}, and bring the model here (landmark-onnx bundle, or landmark-onnx models add)"
        problem = f"cannot be imported ({damage})" if damage else "is not installed"
        super().__init__(f"{what} {problem}; {remedy}")
        self.extra = extra


LONGEST_REASON = 2000
"""Characters: of a longer one the middle is left out."""


def shown(text: str) -> str:
    """`text` on one line, with whatever a terminal might obey made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason_of(error: BaseException) -> str:
    """All that an error of a library says, on one line and as `shown`.

    What is wrong may stand in any of its lines: ONNX Runtime names the sizes after the first, OpenVINO begins with
    lines that name its own source files, which are left out.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from ")] or lines
    text = shown(" ".join(said).strip()) or type(error).__name__
    if len(text) <= LONGEST_REASON:
        return text
    return f"{text[: LONGEST_REASON // 2]} … {text[-LONGEST_REASON // 2 :]}"
