"""`landmark-onnx demo`: real weights on real photos, then the original's formats with made-up weights."""

import contextlib
import dataclasses
import importlib.resources
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.commands.cls import VIEW as CLASSES
from landmark_onnx.cli.commands.det import VIEW as BOXES
from landmark_onnx.cli.commands.det import drawn
from landmark_onnx.cli.commands.export import ExportRequest, export_one, facts
from landmark_onnx.cli.commands.search import VIEW as NEIGHBOURS
from landmark_onnx.cli.loader import Loader
from landmark_onnx.cli.options import BatchOptions, ExecutionOptions, Format, Output, Quiet
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import emit, reporting
from landmark_onnx.extras import extra
from landmark_onnx.images.ids import IdRule

if TYPE_CHECKING:
    from landmark_onnx.results import Detections, Failure
    from landmark_onnx.search.answers import Answer
    from landmark_onnx.search.index import Index
    from landmark_onnx.search.queries import Queries

EMBEDDING, CLASSIFIER = "efficientnet_lite0", "efficientnet_lite0_imagenet"
SEED = 2019
TASKS = ("retrieval", "cls", "det")
PHOTOS = {
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
    "skimage.data": ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"),
}
"""Package -> photos that its wheel ships."""
BOXES_SHOWN = 3

REAL = (
    "Real: EfficientNet-Lite0, trained on ImageNet. It knows 1000 things and animals, people not among them; "
    "the score says how sure it is."
)
MADE_UP = (
    f"Made up: small networks in the original's formats, with random weights of seed {SEED}. The machinery is real, "
    "the weights know nothing: no box or score below means anything."
)


def show(
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", file_okay=False, help="Where the pictures go.")
    ] = Path("landmark-onnx-demo"),
    quiet: Quiet = False,
) -> None:
    """Try it all: a small model with real weights names photos and finds them; a made-up detector draws boxes."""
    from landmark_onnx.files.workfolders import temporary_folder

    photos = list(_photos(folder))
    output = Output(format=Format.TABLE, quiet=quiet)
    with temporary_folder() as work, reporting(output, bar=True) as report:
        loader = Loader(ExecutionOptions(provider="cpu"), BatchOptions(), report)
        report.result(REAL)
        captions = {**_classify(photos, loader, output), **_search(photos, folder, loader, output)}
        _write_sheet(folder / "answers.jpg", captions)
        report.result()
        report.result(MADE_UP)
        models = [_made_up(task, work, report) for task in TASKS]
        _detect(photos, models[TASKS.index("det")], folder, loader, output)
        report.result()
        report.result(f"Real: {folder / 'answers.jpg'}, {folder / 'search.html'}. Made up: {folder / 'detections'}")
        report.result(f"To go on: landmark-onnx search PHOTO -i {folder / 'index'}")
        report.result(f"In a browser: landmark-onnx serve -i {folder / 'index'} --cls {CLASSIFIER}")


def _photos(folder: Path) -> Iterator[str]:
    """Copies of the packages' photos, and in a folder of their own the middles of them, for the search to place."""
    from landmark_onnx.files.atomic import atomic_write
    from landmark_onnx.images.contact_sheet import write_image
    from landmark_onnx.images.decode import read_image

    for package, names in PHOTOS.items():
        with extra("demo"):
            shipped = importlib.resources.files(package)
        for name in names:
            data = shipped.joinpath(name).read_bytes()
            with atomic_write(folder / "photos" / name) as file:
                file.write(data)
            image = read_image(data)
            height, width = image.shape[:2]
            write_image(folder / "parts" / name, image[height // 5 : -height // 5, width // 5 : -width // 5])
            yield str(folder / "photos" / name)


def _classify(photos: Sequence[str], loader: Loader, output: Output) -> dict[str, str]:
    """The most probable class of each photo, which is its caption."""
    from landmark_onnx.model import Classifier
    from landmark_onnx.results import Classification

    classifier = loader.load(Classifier, CLASSIFIER, top=1)
    loader.report.result()
    loader.report.result(f"cls, {CLASSIFIER}: what is on each photo")
    found = list(classifier.stream(photos))
    emit(found, CLASSES, output, loader.report)
    known = [each for each in found if isinstance(each, Classification)]
    return {each.image: f"{each.names[0]} {each.scores[0]:.2f}" for each in known}


def _search(photos: Sequence[str], folder: Path, loader: Loader, output: Output) -> dict[str, str]:
    """Embed the photos, index them, and find the one that each part is of, which is the part's caption."""
    with extra("demo"):
        from landmark_onnx.embedding import FeatureRequest, embed, here, identify, list_items
        from landmark_onnx.search import Feed, build, choose
        from landmark_onnx.search.answers import Answer
        from landmark_onnx.search.queries import embedded
    from landmark_onnx.model import Retriever

    retriever = loader.load(Retriever, EMBEDDING)
    request = FeatureRequest(models=[identify(retriever)])
    features = embed(list_items(photos, IdRule.STEM), request, folder / "features", here([retriever]), restart=True)
    ensemble = choose(features, [EMBEDDING])
    index = build(folder / "index", ensemble, Feed([features]).batches(ensemble), replace=True)
    loader.report.result()
    loader.report.result(f"search, {EMBEDDING}: which photo each part is of")
    with contextlib.closing(index):
        parts = [str(folder / "parts" / Path(photo).name) for photo in photos]
        answers = _answers(index, embedded(parts, index.ensemble, {EMBEDDING: retriever}))
        found = list(_shown(answers, folder / "search.html"))
    emit(found, NEIGHBOURS, output, loader.report)
    known = [each for each in found if isinstance(each, Answer)]
    return {each.image: f"part of {each.hits[0].id}, {each.hits[0].score:.2f}" for each in known}


def _answers(index: "Index", queries: "Iterable[Queries | Failure | None]") -> "Iterator[Answer | Failure | None]":
    """The whole index, the nearest first, for each query."""
    from landmark_onnx.search.queries import Queries

    for part in queries:
        if isinstance(part, Queries):
            yield from index.answer(part, len(index))
        else:
            yield part


def _shown(answers: "Iterable[Answer | Failure | None]", page: Path) -> "Iterator[Answer | Failure | None]":
    """The answers, whole on the page, and on their way the nearest of each."""
    from landmark_onnx.search.answers import Answer
    from landmark_onnx.search.html_report import contact_sheet

    with contact_sheet(page, "Which photo is each part of?") as sheet:
        for answer in answers:
            if answer is not None:
                sheet.show(answer)
            yield dataclasses.replace(answer, hits=answer.hits[:1]) if isinstance(answer, Answer) else answer


def _made_up(task: str, folder: Path, report: Reporter) -> str:
    """Make a release of the first original card of a task, export it as a user does, and say where the model is."""
    from landmark_onnx.cards.catalogue import original_cards

    with extra("demo"):
        from landmark_onnx_export.synthetic.release import write_release

    card = next(card for card in original_cards().values() if card.task == task)
    report.stage(f"{card.name}: random weights")
    release = write_release(card, folder, seed=SEED)
    with extra("demo"):
        request = ExportRequest(card=card, release=release, output=folder / f"{card.name}.onnx")
        made = export_one(request, report)
    report.result(f"{card.name}: made, exported ({facts(made)})")
    return str(made.path)


def _detect(photos: Sequence[str], model: str, folder: Path, loader: Loader, output: Output) -> None:
    """Boxes of a detector that knows nothing, on copies of the photos."""
    from landmark_onnx.images.contact_sheet import DrawnCopies
    from landmark_onnx.model import Detector

    detector = loader.load(Detector, model)
    loader.report.result()
    loader.report.result(f"det, made up: the {BOXES_SHOWN} largest boxes of each photo")
    copies = DrawnCopies(folder / "detections")
    emit(drawn(map(_largest, detector.stream(photos)), copies, loader.batch.reading()), BOXES, output, loader.report)


def _largest(found: "Detections | Failure") -> "Detections | Failure":
    """Few boxes, so that a picture shows something: random weights find a hundred specks in everything."""
    from landmark_onnx.results import Detections

    if not isinstance(found, Detections):
        return found
    order = (-found.boxes[:, 2] * found.boxes[:, 3]).argsort(kind="stable")[:BOXES_SHOWN]
    return dataclasses.replace(
        found,
        boxes=found.boxes[order],
        classes=found.classes[order],
        scores=found.scores[order],
        names=tuple(found.names[at] for at in order),
    )


def _write_sheet(path: Path, captions: Mapping[str, str]) -> None:
    """The photos with what is on them, and below each its part with what it is of."""
    from landmark_onnx.images.contact_sheet import contact_sheet, write_image
    from landmark_onnx.images.decode import read_image

    images = [(read_image(name), text) for name, text in captions.items()]
    write_image(path, contact_sheet(images, columns=len(images) // 2, side=180))
