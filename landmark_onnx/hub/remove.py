"""Taking files out of the store: a model that is not wanted any more, and what killed processes left behind."""

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from landmark_onnx.cards.catalogue import shipped_cards, users_folder
from landmark_onnx.errors import CardError, ModelFileError
from landmark_onnx.files.workfolders import in_use, stale_folders
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.modelfile.metadata import read_seal
from landmark_onnx.precision import STORED, precision_file
from landmark_onnx.runtime import compiled_cache as machine_cache
from landmark_onnx.runtime.tuned import is_choice
from landmark_onnx.store.catalogue import exported_path, files_folder, home, source_path, staleness
from landmark_onnx.store.locks import all_locked, locked
from landmark_onnx.store.records import record_path
from landmark_onnx.store.status import stored_model


@dataclasses.dataclass(frozen=True, slots=True)
class Removed:
    """A file or folder that is gone, and its size in bytes."""

    path: Path
    size: int

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {"path": str(self.path), "bytes": self.size}


def remove(
    name: str, *, source: bool = True, model: bool = True, forget: bool = False, card: bool = False
) -> list[Removed]:
    """Remove what the store has of `name`: its release, its exported model, or both.

    forget: also which hash the release had at first sight. card: also the user's card.
    Raises: UnknownModelError; CardError for the card of a model that is shipped with this package.
    """
    stored_model(name)
    if card and name in shipped_cards():
        raise CardError(f"{name}: its card comes with landmark-onnx, and stays")
    with locked(name):
        paths: list[Path] = []
        if model:
            # The model goes before its weights, lest one be left that looks whole.
            paths = [path for file in _precisions(exported_path(name)) for path in _belongings(file)]
        if source:
            paths += [source_path(name), files_folder(name)]
        if forget:
            paths.append(record_path(source_path(name)))
        if card:
            paths.append(users_folder() / f"{name}.toml")
        return [_remove(path) for path in paths if path.exists()]


@contextlib.contextmanager
def replacing(model: Path, *, same: bool, allowed: bool, on_note: Callable[[str], None]) -> Iterator[None]:
    """Let the block put another file in the place of the stored `model`, there or not; its lock must be held.

    What depended on the old one goes after the block: forms for this machine, records, its own weights, files of
    reduced precision that were made from it; `on_note` names each.
    same: whether the new file is what is there already. Raises: ModelFileError unless `same` or `allowed`.
    """
    if same or not model.exists():
        yield
        return
    if not allowed:
        what = f"another model is called {model.stem}; to replace it, with what was made from it: --replace"
        raise ModelFileError(f"{model}: {what}")
    old = _belongings(model)[1:]
    yield
    for reduced in filter(Path.is_file, _precisions(model)[:-1]):
        with contextlib.suppress(ModelFileError):  # damaged, which is told when it is used
            old += _belongings(reduced) if staleness(reduced) else []
    kept = external_data(model)
    for path in (path for path in old if path.exists() and path != kept):
        _remove(path)
        on_note(f"removed with the model it belonged to: {path}")


def prune() -> list[Removed]:
    """Remove stale temporaries, partial downloads, weights and records without a model; never what is in use.

    And what killed processes left in the system's temporary folder. And the machine cache, which a next load makes
    again: a session that has mapped it keeps it until its end. What tune chose stays: no load makes it again.
    """
    with all_locked() as busy:
        found = sorted(_leftovers(idle=not busy))
        removed = [_remove(path) for path in found if not any(_is_of(path, name) for name in busy)]
    return removed + [_remove(folder) for folder in stale_folders(Path(tempfile.gettempdir()))]


def _leftovers(*, idle: bool) -> Iterator[Path]:
    models, sources = home() / "models", home() / "sources"
    for folder in (models, sources):
        yield from (path for path in folder.glob(".*.tmp") if not in_use(path))
    yield from sources.glob("*.files")
    yield from sources.glob("*.tar.part")
    yield from sources.glob("*.tar.part.json")
    yield from _made_again(machine_cache.folder())
    yield from (path for path in models.glob("*.onnx.json") if not path.with_suffix("").exists())
    if idle:  # a model that is being written may have weights of any name there already
        yield from _orphans(models)


def _made_again(cache: Path) -> Iterator[Path]:
    """All of the machine cache but what tune chose."""
    for folder in cache.glob("*"):
        inside = [*folder.glob("*")] if folder.is_dir() else []
        if any(map(is_choice, inside)):
            yield from (path for path in inside if not is_choice(path))
        else:
            yield folder


def _orphans(models: Path) -> Iterator[Path]:
    """Files of weights that belong to no model."""
    used: set[Path | None] = set()
    unreadable = []
    for model in models.glob("*.onnx"):
        with contextlib.suppress(ModelFileError):
            if read_seal(model):
                used |= {external_data(model)}
                continue
        unreadable.append(f"{model.stem}-")
    for path in models.glob("*.onnx.data"):
        if path not in used and not path.name.startswith(tuple(unreadable)):
            yield path


def _own_data(model: Path) -> list[Path]:
    """The weights beside a model, unless another one has them too."""
    try:
        data = external_data(model)
        others = {external_data(other) for other in model.parent.glob("*.onnx") if other != model}
    except ModelFileError:
        return []
    return [data] if data and data not in others else []


def _belongings(model: Path) -> list[Path]:
    """A model file and what is there for its sake alone, each there or not."""
    return [model, *_own_data(model), record_path(model), machine_cache.folder_of(model)]


def _precisions(model: Path) -> list[Path]:
    """The file of each precision, there or not; those made of the fp32 one go before it."""
    return [*(precision_file(model, precision) for precision in STORED), model]


def _is_of(path: Path, name: str) -> bool:
    """Whether the name of a file, or of its folder, says, or may say, that it belongs to the model `name`."""
    names = (path.name.removeprefix("."), path.parent.name)
    return any(each.startswith((f"{name}.", f"{name}-")) for each in names)


def _remove(path: Path) -> Removed:
    if path.is_dir() and not path.is_symlink():
        size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
        # The children of a killed export may write there for a moment yet.
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            shutil.rmtree(path)
    else:
        size = path.lstat().st_size
        path.unlink()
    return Removed(path, size)
