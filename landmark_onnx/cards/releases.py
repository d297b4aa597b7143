"""Which model a release belongs to: it shows in what its file or folder is called."""

from pathlib import Path

from landmark_onnx.cards.catalogue import cards

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

PROGRAM_FOLDER = "infer_model"
"""Paddle's usual name of a binary model's folder, which says nothing of the model."""


def recognised(path: Path) -> str | None:
    """The model that a tar, a folder or a program file is called after, None if no card is called so.

    NAME, or NAME and anything behind a dot; the longest name fits best. Where a file's own name says nothing, that of
    its folder counts, and where a folder is called `infer_model`, the one around it.
    """
    places = [path.absolute()]
    if path.is_file():
        places.append(places[0].parent)
    if places[-1].name == PROGRAM_FOLDER:
        places.append(places[-1].parent)
    return next((name for place in places if (name := _called(place.name))), None)


def releases_in(folder: Path) -> list[tuple[str, Path]]:
    """Each model and its release in `folder`: a tar rather than a folder, and of several the one of the shortest name.

    Raises: OSError if the folder cannot be read.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), len(path.name), path.name)):
        if not (path.is_dir() or path.name.endswith(TAR_ENDINGS)):
            continue
        if name := _called(path.name):
            found.setdefault(name, path)
    return sorted(found.items())


def _called(file: str) -> str | None:
    fitting = [name for name in cards() if file == name or file.startswith(f"{name}.")]
    return max(fitting, key=len, default=None)
