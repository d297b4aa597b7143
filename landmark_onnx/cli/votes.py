"""Options of `landmark-onnx recognize`: which landmarks there are, who votes for them, and what has a veto."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from landmark_onnx.cli.loader import Loader
from landmark_onnx.cli.model_names import IDS_HELP, model_option
from landmark_onnx.cli.options import input_file
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.images.ids import IdRule

if TYPE_CHECKING:
    from landmark_onnx.recognition.recognizer import FramingDetector, Voter
    from landmark_onnx.recognition.rules import Rule
    from landmark_onnx.search.open import AnyIndex

T = TypeVar("T")

VOTES = "Votes"
LANDMARKS = "Landmarks of the index"
FILTER = "What is no landmark"
FOLDERS = "folders"
"""As `landmark_onnx.recognition.landmark_labels.FOLDERS`: the word for it in --labels."""
NEIGHBOURS = 3
"""As `landmark_onnx.recognition.votes.NEIGHBOURS`. Help need import neither."""


def check_labels(given: str | None) -> str | None:
    """The word, or a file that is there; as text, since a path would forget the ./ that tells them apart."""
    if given is None or given == FOLDERS:
        return given
    if not Path(given).exists():
        raise typer.BadParameter(f"file {given!r} does not exist: wanted a CSV, or the word {FOLDERS}")
    if Path(given).is_dir():
        raise typer.BadParameter(f"{given!r} is a folder: wanted a CSV, or the word {FOLDERS}")
    return given


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Which landmarks the images of an index show."""

    labels: Annotated[
        str | None,
        typer.Option(
            metavar=f"CSV|{FOLDERS}",
            callback=check_labels,
            help="Landmarks of the index's images: train.csv, train_clean.csv, index_image_to_landmark.csv, or columns "
            f"id,label; or the word {FOLDERS}: each image shows what the folder that holds it is called (a file of "
            f"that name is ./{FOLDERS}). Without it recognize takes each image as a landmark of its own, called by "
            "its id.",
            rich_help_panel=LANDMARKS,
        ),
    ] = None
    ids: Annotated[
        IdRule | None,
        typer.Option(
            help=f"{IDS_HELP} Here: of both sides, before a CSV of --labels is asked, and in recognize --kaggle. "
            "By default ids are taken as they are, and an image given by its path is its stem in --kaggle.",
            rich_help_panel=LANDMARKS,
        ),
    ] = None

    def check_ids(self) -> None:
        """Where --ids are of labels alone. Raises: BadParameter, a usage error."""
        if self.ids and self.labels in (None, FOLDERS):
            raise typer.BadParameter("is of a CSV of --labels", param_hint="--ids")

    def of(self, opened: "AnyIndex", index: str, report: Reporter) -> Callable[[str], str | None]:
        """Id of an image of the index -> its landmark.

        Raises: TableError if a CSV has none of the ids; SearchError if no id has a folder.
        """
        if self.labels is None:
            return str
        from landmark_onnx.recognition.landmark_labels import LandmarkLabels

        found = LandmarkLabels.read(self.labels, self.ids)
        if warning := found.check(opened.ids, index):
            report.note(warning)
        return found.landmark


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Voting:
    """Neighbours and classifiers that vote. Class names and weights are one for each classifier, or one for all."""

    neighbours: Annotated[int, typer.Option(min=1, help="How many of the nearest vote.", rich_help_panel=VOTES)] = (
        NEIGHBOURS
    )
    neighbour_weight: Annotated[float, typer.Option(min=0, help="Of the neighbours' votes.", rich_help_panel=VOTES)] = (
        1.0
    )
    cls: Annotated[
        list[str] | None,
        model_option(
            "--cls", text="A classifier that votes too, with its probabilities. Repeat for more.", rich_help_panel=VOTES
        ),
    ] = None
    cls_labels: Annotated[
        list[Path] | None,
        input_file(
            "--cls-labels",
            text="Class index and landmark a line, if the model has none itself: one for all, or one for each --cls.",
            rich_help_panel=VOTES,
        ),
    ] = None
    cls_weight: Annotated[
        list[float] | None,
        typer.Option(
            "--cls-weight", min=0, help="One for all, or one for each --cls; 1 unless given.", rich_help_panel=VOTES
        ),
    ] = None
    cls_top: Annotated[
        int, typer.Option("--cls-top", min=1, help="Classes of each that vote.", rich_help_panel=VOTES)
    ] = 5

    def __post_init__(self) -> None:
        for given, option in ((self.cls_labels, "--cls-labels"), (self.cls_weight, "--cls-weight")):
            many = len(self.cls or [])
            if given and len(given) not in (1, many):
                raise typer.BadParameter(
                    f"{len(given)} of them for {many} --cls: wanted one, or one for each", param_hint=option
                )
            if given and not many:
                raise typer.BadParameter("is of a classifier: give --cls too", param_hint=option)

    def class_names(self) -> Sequence[Mapping[int, str] | None]:
        """Of each classifier, class index -> name by its file; None without one. Raises: ModelFileError."""
        from landmark_onnx.modelfile.labels import read_labels

        return self._each([read_labels(path) for path in self.cls_labels or []] or [None])

    def voters(self, loader: Loader, class_names: Sequence[Mapping[int, str] | None]) -> "list[Voter]":
        """The classifiers, with names of their classes. Raises: ModelFileError if one has none."""
        from landmark_onnx.errors import ModelFileError
        from landmark_onnx.model import Classifier
        from landmark_onnx.recognition.recognizer import Voter

        voters = []
        for name, names, weight in zip(self.cls or [], class_names, self._each(self.cls_weight or [1.0]), strict=True):
            classifier = loader.load(Classifier, name, top=self.cls_top, names=names)
            if not classifier.names:
                raise ModelFileError(f"{name}: does not say which landmarks its classes are: give --cls-labels FILE")
            voters.append(Voter(name=classifier.card.name, classifier=classifier, weight=weight, top=self.cls_top))
        return voters

    def _each(self, given: Sequence[T]) -> Sequence[T]:
        """One for each classifier, where one may be given for all."""
        many = len(self.cls or [])
        return given if len(given) == many else [given[0]] * many


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Veto:
    """A detector, and the rules by which its boxes say that an image shows no landmark."""

    det: Annotated[
        str | None,
        model_option(
            "--det", text="A detector: an image of which a rule holds shows no landmark.", rich_help_panel=FILTER
        ),
    ] = None
    rules: Annotated[
        Path | None,
        input_file(
            "--rules",
            text="TOML: classes, score, area. By default our own, not the authors': recognition/no_landmark.toml.",
            rich_help_panel=FILTER,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.rules and not self.det:
            raise typer.BadParameter("rules are about a detector's boxes: give --det too", param_hint="--rules")

    def read_rules(self) -> "tuple[Rule, ...]":
        """The rules; none without a detector. Raises: RuleError."""
        from landmark_onnx.recognition.rules import read_rules

        return read_rules(self.rules) if self.det else ()

    def detector(self, loader: Loader, rules: "Sequence[Rule]") -> "FramingDetector | None":
        """The detector, if one is wanted. Raises: RuleError if it has none of a rule's classes."""
        from landmark_onnx.recognition.recognizer import FramingDetector
        from landmark_onnx.recognition.rules import unknown_classes

        if self.det is None:
            return None
        detector = loader.load(FramingDetector, self.det)
        if unknown := unknown_classes(rules, detector.names):
            loader.report.note(f"classes of the rules that the detector has not: {', '.join(unknown)}")
        return detector
