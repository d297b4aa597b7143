"""`landmark-onnx recognize`: the landmark of each image, and why."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from landmark_onnx.cli.inputs import ImageArguments, expand
from landmark_onnx.cli.model_names import IDS_HELP, complete_model
from landmark_onnx.cli.options import ENGINE, ExecutionOptions, Images, ModelSource, Output, check_destination, unfolded
from landmark_onnx.cli.output import Column, Record, View
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import emit, load, reporting
from landmark_onnx.images.ids import IdRule

if TYPE_CHECKING:
    from landmark_onnx.evaluation.submissions import AddRow
    from landmark_onnx.model import Model, Retriever
    from landmark_onnx.recognition.recognizer import FramingDetector, Recognition, Voter
    from landmark_onnx.recognition.rules import Rule
    from landmark_onnx.results import Failure
    from landmark_onnx.search.ensemble import Ensemble
    from landmark_onnx.search.open import AnyIndex

    M = TypeVar("M", bound=Model[Any])

VOTES = "Votes"
FILTER = "What is no landmark"
NEIGHBOURS = 3
"""As `landmark_onnx.recognition.votes.NEIGHBOURS`, which help need not import."""


def _why(record: Record) -> str:
    """The reasons on one line."""
    if record["no_landmark"]:
        return "; ".join(f"{hit['rule']} over {hit['area']:.0%} of the image" for hit in record["no_landmark"])
    own = [each for each in record["neighbours"] if each["landmark"] == record["landmark"]]
    said = [each for each in record["classes"] if each["landmark"] == record["landmark"]]
    near = [f"{each['id']} {each['cosine']:.3f}" for each in own]
    return ", ".join(near + [f"{each['model']} {each['vote']:.3f}" for each in said])


VIEW = View(
    (Column("image"), Column("landmark"), Column("score", ".4f"), Column("why")),
    lambda record: [{**record, "why": _why(record)}],
)

IndexFolder = Annotated[
    Path,
    typer.Option("--index", "-i", metavar="FOLDER", exists=True, file_okay=False, help="Of landmark-onnx index build."),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME_OR_PATH",
        help="The index's own models, where they are not in the store by their names. Repeat for each.",
        autocompletion=complete_model,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        exists=True,
        dir_okay=False,
        help="Landmarks of the index's images: train.csv, train_clean.csv, index_image_to_landmark.csv, or columns "
        "id,label. Without it each image is a landmark of its own, called by its id.",
        rich_help_panel=VOTES,
    ),
]
Neighbours = Annotated[int, typer.Option(min=1, help="How many of the nearest vote.", rich_help_panel=VOTES)]
Weight = Annotated[float, typer.Option(min=0, help="Of the neighbours' votes.", rich_help_panel=VOTES)]
Classifiers = Annotated[
    list[str] | None,
    typer.Option(
        "--cls",
        metavar="NAME_OR_PATH",
        help="A classifier that votes too, with its probabilities. Repeat for more.",
        autocompletion=complete_model,
        rich_help_panel=VOTES,
    ),
]
ClassFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--cls-labels",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Class index and landmark a line, if the model has none itself: one for all, or one for each --cls.",
        rich_help_panel=VOTES,
    ),
]
ClassWeights = Annotated[
    list[float] | None,
    typer.Option(
        "--cls-weight", min=0, help="One for all, or one for each --cls; 1 unless given.", rich_help_panel=VOTES
    ),
]
Top = Annotated[int, typer.Option("--cls-top", min=1, help="Classes of each that vote.", rich_help_panel=VOTES)]
DetectorName = Annotated[
    str | None,
    typer.Option(
        "--det",
        metavar="NAME_OR_PATH",
        help="A detector: an image of which a rule holds shows no landmark.",
        autocompletion=complete_model,
        rich_help_panel=FILTER,
    ),
]
RuleFile = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="TOML: classes, score, area. By default our own, not the authors': recognition/no_landmark.toml.",
        rich_help_panel=FILTER,
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Download nothing: fail if the store has neither a model nor its release.",
        rich_help_panel=ENGINE,
    ),
]
Kaggle = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        dir_okay=False,
        readable=False,
        help="Also write a submission, id,landmarks.",
    ),
]
Ids = Annotated[
    IdRule | None,
    typer.Option(
        help=f"{IDS_HELP} Here: before --labels are asked, of both sides, and in --kaggle. By default ids are taken as "
        "they are, and an image given by its path is its stem in --kaggle.",
        rich_help_panel=VOTES,
    ),
]


@unfolded
def recognize_images(
    images: ImageArguments,
    index: IndexFolder,
    engine: ExecutionOptions,
    batch: Images,
    output: Output,
    model: Models = None,
    labels: Labels = None,
    neighbours: Neighbours = NEIGHBOURS,
    neighbour_weight: Weight = 1.0,
    cls: Classifiers = None,
    cls_labels: ClassFiles = None,
    cls_weight: ClassWeights = None,
    cls_top: Top = 5,
    det: DetectorName = None,
    rules: RuleFile = None,
    kaggle: Kaggle = None,
    ids: Ids = None,
    offline: Offline = False,
) -> None:
    """Name the landmark of each image by its nearest neighbours in an index, classifiers, and a detector's veto.

    A neighbour votes 1 - squared L2, a classifier its probability; weights multiply them, and the largest sum wins.
    All votes are in the answer, and the boxes of a veto.
    """
    from landmark_onnx.evaluation.submissions import submission_file
    from landmark_onnx.recognition.recognizer import Recognizer
    from landmark_onnx.search.open import open_index

    voting = Voting(cls or [], cls_labels or [], cls_weight or [], cls_top)
    if rules and not det:
        raise typer.BadParameter("rules are about a detector's boxes: give --det too", param_hint="--rules")
    with reporting(output) as report, contextlib.closing(open_index(index)) as opened:
        opened.check()
        class_names = voting.read_files()
        check_destination(kaggle)
        landmark_of = _labelled(labels, opened, str(index), ids or IdRule.PATH, report) if labels else str
        sources = expand(images, report.note, follow_links=batch.follow_links)
        loading = Loading(engine, batch, report, offline)
        detector, read = loading.detector(det, rules) if det else (None, ())
        recognizer = Recognizer(
            index=opened,
            retrievers=loading.retrievers(opened.ensemble, model or [], str(index)),
            landmark_of=landmark_of,
            voters=loading.voters(voting, class_names),
            detector=detector,
            rules=read,
            neighbours=neighbours,
            neighbour_weight=neighbour_weight,
        )
        with submission_file(kaggle, "landmarks", ids) if kaggle else contextlib.nullcontext() as add:
            emit(_submitted(recognizer.paced(sources), add), VIEW, output, report)


def _labelled(
    labels: Path, opened: "AnyIndex", index: str, rule: IdRule, report: Reporter
) -> "Callable[[str], str | None]":
    """Which landmark an image of the index has. Raises: TableError if the labels have none of the index's ids."""
    from landmark_onnx.images.ids import check_ids, image_id
    from landmark_onnx.recognition.landmark_labels import read_landmarks

    landmarks = read_landmarks(labels, rule)
    ids = (image_id(name, rule) for name in opened.ids)
    remedy = "--ids stem compares names without folders and suffix"
    if warning := check_ids(ids, landmarks, f"ids of {index}", str(labels), remedy):
        report.note(f"{warning}: they have no vote; {remedy}")
    return lambda name: landmarks.get(image_id(name, rule))


@dataclasses.dataclass(frozen=True, slots=True)
class Voting:
    """Classifiers by name, and what each has of its own: a file of class names and a weight, or one for all."""

    names: list[str]
    files: list[Path]
    weights: list[float]
    top: int

    def __post_init__(self) -> None:
        for given, option in ((self.files, "--cls-labels"), (self.weights, "--cls-weight")):
            if given and len(given) not in (1, len(self.names)):
                raise typer.BadParameter(
                    f"{len(given)} of them for {len(self.names)} --cls: wanted one, or one for each", param_hint=option
                )
            if given and not self.names:
                raise typer.BadParameter("is of a classifier: give --cls too", param_hint=option)

    def read_files(self) -> list[Mapping[int, str]]:
        """The files of class names. Raises: ModelFileError."""
        from landmark_onnx.modelfile.labels import read_labels

        return [read_labels(path) for path in self.files]


@dataclasses.dataclass(frozen=True, slots=True)
class Loading:
    """How models are loaded."""

    engine: ExecutionOptions
    batch: Images
    report: Reporter
    offline: bool

    def retrievers(self, ensemble: "Ensemble", given: Sequence[str], index: str) -> "list[Retriever]":
        """One for each model of an index's ensemble, in its order. Raises: SearchError unless they are the same."""
        from landmark_onnx.errors import SearchError
        from landmark_onnx.model import Retriever
        from landmark_onnx.search.queries import check_retrievers

        loaded = [self._load(Retriever, name) for name in given]
        found: dict[str, Retriever] = {model.card.name: model for model in loaded}
        names = [model.name for model in ensemble.models]
        if strange := [name for name in found if name not in names]:
            raise SearchError(f"{index}: has no embeddings of {', '.join(strange)}; it has {', '.join(names)}")
        for name in names:
            if name not in found:
                found[name] = self._load(Retriever, name)
        check_retrievers(ensemble, found, index)
        return [found[name] for name in names]

    def voters(self, voting: Voting, files: Sequence[Mapping[int, str]]) -> "list[Voter]":
        """The classifiers, with names of their classes. Raises: ModelFileError if one has none."""
        from landmark_onnx.errors import ModelFileError
        from landmark_onnx.model import Classifier
        from landmark_onnx.recognition.recognizer import Voter

        voters = []
        for at, name in enumerate(voting.names):
            classifier = self._load(Classifier, name)
            classifier.top = voting.top
            if files:
                classifier.names = files[at if len(files) > 1 else 0]
            if not classifier.names:
                raise ModelFileError(f"{name}: does not say which landmarks its classes are: give --cls-labels FILE")
            weight = voting.weights[at if len(voting.weights) > 1 else 0] if voting.weights else 1.0
            voters.append(Voter(name=classifier.card.name, classifier=classifier, weight=weight))
        return voters

    def detector(self, name: str, path: Path | None) -> "tuple[FramingDetector, tuple[Rule, ...]]":
        """A detector and the rules on its boxes. Raises: RuleError."""
        from landmark_onnx.recognition.recognizer import FramingDetector
        from landmark_onnx.recognition.rules import read_rules, unknown_classes

        rules = read_rules(path)
        detector = self._load(FramingDetector, name)
        if unknown := unknown_classes(rules, detector.names):
            self.report.note(f"classes of the rules that the detector has not: {', '.join(unknown)}")
        return detector, rules

    def _load(self, kind: "type[M]", name: str) -> "M":
        return load(kind, name, self.engine, self.batch, self.report, ModelSource(offline=self.offline))


def _submitted(
    answers: "Iterator[Recognition | Failure | None]", add: "AddRow | None"
) -> "Iterator[Recognition | Failure | None]":
    """Each answer, which goes into the submission on its way; an image that failed is there without a landmark."""
    from landmark_onnx.evaluation.submissions import landmark_words
    from landmark_onnx.results import Failure

    for answer in answers:
        if add and answer:
            add(answer.image, [] if isinstance(answer, Failure) else landmark_words(answer.landmark, answer.score))
        yield answer
