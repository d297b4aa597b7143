"""`landmark-onnx demo`: the whole road, from releases made on the spot to answers on real photos."""

import importlib.resources
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.commands.cls import VIEW as CLASSES
from landmark_onnx.cli.commands.det import VIEW as BOXES
from landmark_onnx.cli.commands.det import drawn
from landmark_onnx.cli.commands.export import ExportRequest, export_one, facts
from landmark_onnx.cli.commands.retrieval import VIEW as COSINES
from landmark_onnx.cli.loader import Loader
from landmark_onnx.cli.options import BatchOptions, ExecutionOptions, Format, Output, Quiet
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import emit, reporting
from landmark_onnx.extras import extra

if TYPE_CHECKING:
    from landmark_onnx.results import Detections, Failure, Similarity

SEED = 2019
TASKS = ("retrieval", "cls", "det")
PHOTOS = {
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
    "skimage.data": ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"),
}
"""Package -> photos that its wheel ships."""
QUERY = "china.jpg"
KEEP = 3

MADE_UP = (
    f"The models of this demo are made up: small networks with random weights of seed {SEED}. The machinery is real, "
    "the weights know nothing, so no name, box or score below means anything."
)


def show(
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", file_okay=False, help="Where the pictures go.")
    ] = Path("landmark-onnx-demo"),
    quiet: Quiet = False,
) -> None:
    """Try it all on models made up on the spot: export, parity check, retrieval, cls and det on real photos."""
    from landmark_onnx.files.workfolders import temporary_folder

    photos = list(_photos(folder / "photos"))
    output = Output(format=Format.TABLE, quiet=quiet)
    with temporary_folder() as work:
        with reporting(output, bar=True) as report:
            report.result(MADE_UP)
            models = [_made_up(task, work, report) for task in TASKS]
        with reporting(output) as report:
            _answer(photos, models, folder, output, report)
            report.result()
            report.result(f"Pictures are in {folder}: retrieval.jpg, detections/")


def _photos(folder: Path) -> Iterator[str]:
    """Copies of the packages' photos, after the first of them its own middle, for the query to find."""
    from landmark_onnx.files.atomic import atomic_write
    from landmark_onnx.images.contact_sheet import write_image
    from landmark_onnx.images.decode import read_image

    for package, names in PHOTOS.items():
        with extra("demo"):
            shipped = importlib.resources.files(package)
        for name in names:
            data = shipped.joinpath(name).read_bytes()
            with atomic_write(folder / name) as file:
                file.write(data)
            yield str(folder / name)
            if name == QUERY:
                image = read_image(data)
                height, width = image.shape[:2]
                middle = image[height // 10 : -height // 10, width // 10 : -width // 10]
                write_image(folder / f"part-of-{name}", middle)
                yield str(folder / f"part-of-{name}")


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


def _answer(photos: list[str], models: list[str], folder: Path, output: Output, report: Reporter) -> None:
    """Ask each model, print what it says, and write the pictures."""
    from landmark_onnx.images.contact_sheet import DrawnCopies
    from landmark_onnx.model import Classifier, Detector, Retriever

    engine, batch = ExecutionOptions(provider="cpu"), BatchOptions()
    loader = Loader(engine, batch, report)
    retriever = loader.load(Retriever, models[0])
    alike = list(retriever.compare(photos[0], photos[1:]))
    report.result()
    report.result("retrieval: the first photo against the others")
    emit(alike, COSINES, output, report)
    _write_sheet(folder / "retrieval.jpg", photos[0], alike)

    classifier = loader.load(Classifier, models[1], top=1)
    report.result()
    report.result("cls: the most probable class")
    emit(classifier.stream(photos), CLASSES, output, report)

    detector = loader.load(Detector, models[2])
    report.result()
    report.result(f"det: the {KEEP} largest boxes of each photo")
    copies = DrawnCopies(folder / "detections")
    emit(drawn(map(_largest, detector.stream(photos)), copies, batch.reading()), BOXES, output, report)


def _largest(found: "Detections | Failure") -> "Detections | Failure":
    """Few boxes, so that a picture shows something: random weights find a hundred specks in everything."""
    from landmark_onnx.results import Detections

    if not isinstance(found, Detections):
        return found
    order = (-found.boxes[:, 2] * found.boxes[:, 3]).argsort(kind="stable")[:KEEP]
    return replace(
        found,
        boxes=found.boxes[order],
        classes=found.classes[order],
        scores=found.scores[order],
        names=tuple(found.names[at] for at in order),
    )


def _write_sheet(path: Path, query: str, alike: "Iterable[Similarity | Failure]") -> None:
    """The query, then the others, the most alike first."""
    from landmark_onnx.images.contact_sheet import contact_sheet, write_image
    from landmark_onnx.images.decode import read_image
    from landmark_onnx.results import Similarity

    others = sorted((one for one in alike if isinstance(one, Similarity)), key=lambda one: -one.cosine)
    captions = {query: "query"} | {one.image: f"{one.cosine:.4f}" for one in others}
    write_image(path, contact_sheet([(read_image(name), text) for name, text in captions.items()]))
