"""The commands, a module each. One is imported when it is called, none for the help that lists them all."""

from typing import NamedTuple


class CommandEntry(NamedTuple):
    """A command. home: its module here, and the function in it, or the Typer of a command that has others below it.

    summary: the first paragraph of its help. tasks: their models are listed at the end of its help.
    """

    home: str
    summary: str
    tasks: tuple[str, ...] = ()


COMMANDS = {
    "export": CommandEntry(
        "export:export_releases",
        "Turn a released Paddle model into an ONNX file that needs no Paddle, and check that both answer alike.",
        ("retrieval", "cls", "det"),
    ),
    "verify": CommandEntry(
        "verify:check",
        "Check exported files without Paddle: their bytes, their card, and a stored question with its answer.",
    ),
    "quantize": CommandEntry(
        "quantize:reduce_precision",
        "Make a file of reduced precision beside an exported one, and measure on photos held out how far it agrees.",
    ),
    "retrieval": CommandEntry(
        "retrieval:compare",
        "Compare the first image with each of the others: cosine of their embeddings, clamped to 0 to 1.",
        ("retrieval",),
    ),
    "cls": CommandEntry("cls:classify", "Name the most probable landmark classes of each image.", ("cls",)),
    "det": CommandEntry(
        "det:detect",
        "Find things in each image: classes, boxes and scores; by default with the released detector (OpenImages V4).",
        ("det",),
    ),
    "embed": CommandEntry(
        "embed:embed_images",
        "Embed images into a folder of features; stopped at any moment, the same command goes on.",
        ("retrieval",),
    ),
    "search": CommandEntry(
        "search:find",
        "Find the images of an index nearest to each query, by the inner product of unit vectors: 1 for the same.",
        ("retrieval",),
    ),
    "demo": CommandEntry(
        "demo:show",
        "Try it all: a small model with real weights names photos and finds them; a made-up detector draws boxes.",
    ),
    "doctor": CommandEntry(
        "doctor:examine_installation",
        "Check this installation, try the providers on a tiny model, and say what to do.",
    ),
    "bundle": CommandEntry(
        "bundle:make_bundle",
        "Copy exported models, with their cards and a lock file, into a folder that runs without Paddle.",
    ),
    "bench": CommandEntry(
        "bench:benchmark", "Measure how fast models are here: latency, throughput, load time, memory, likeness to fp32."
    ),
    "tune": CommandEntry(
        "tune:tune_model",
        "Find what runs a model fastest here, of all that answers enough like fp32, and keep it for --precision auto.",
    ),
    "recognize": CommandEntry(
        "recognize:recognize_images",
        "Name the landmark of each image by its nearest neighbours in an index, classifiers, and a detector's veto.",
        ("retrieval", "cls", "det"),
    ),
    "serve": CommandEntry(
        "serve:serve_models",
        "Answer over HTTP what models, indexes and recognition answer here, with a page to search by photos.",
        ("retrieval", "cls", "det"),
    ),
    "models": CommandEntry("models:app", "What models there are, and the store: list, pull, add, verify, remove."),
    "index": CommandEntry("index:app", "Make, change and describe an index to search."),
    "evaluate": CommandEntry(
        "evaluate:app", "Score submission files: mAP@100, GAP, mAP and mP@k of the revisited Oxford and Paris."
    ),
}
