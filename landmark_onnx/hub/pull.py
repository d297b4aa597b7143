"""A model by name: fetch it and, if it is a Paddle release, export it; or do whichever of the two is left to do."""

import functools
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from landmark_onnx.cards.catalogue import card, cards
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import DownloadError
from landmark_onnx.hub.addresses import file_name, local_folder
from landmark_onnx.hub.exporter import export_release
from landmark_onnx.hub.fetching import Fetching, PullProgress
from landmark_onnx.modelfile.metadata import read_seal
from landmark_onnx.precision import Precision
from landmark_onnx.store.catalogue import exported_path, files_folder, find_model, is_there, source_path

if TYPE_CHECKING:
    from landmark_onnx.hub.download import Rules

logger = logging.getLogger(__name__)


def ensure(
    model: str | os.PathLike[str],
    precision: Precision = "fp32",
    *,
    offline: bool = False,
    progress: PullProgress | None = None,
    rules: "Rules | None" = None,
) -> Path:
    """The ONNX file that a name or a path means, as `find_model` does; a known model that is missing is pulled.

    offline: no download, as LANDMARK_ONNX_OFFLINE=1 wants of every call. Raises: as `find_model` and `pull`.
    """
    stored = isinstance(model, str) and (is_there(exported_path(model), precision) or Path(model).is_file())
    if isinstance(model, str) and not stored and model in cards():
        return pull(model, offline=offline, progress=progress, rules=rules)
    return find_model(model, precision)


def pull(
    name: str, *, offline: bool = False, progress: PullProgress | None = None, rules: "Rules | None" = None
) -> Path:
    """Have the model `name` in the store; of several who pull it at once, one does the work.

    Raises: UnknownModelError; DownloadError if no address has it; ModelFileError if that is not what it was, or
    offline; MissingExtraError if a release is there and only the exporter is missing; ExportError.
    """
    # Who has the model already, which is nearly always, should not wait for these imports.
    from landmark_onnx.store.locks import locked

    progress = progress or PullProgress()
    output = exported_path(name)
    known = card(name)
    with locked(name, on_wait=lambda: progress.on_stage("waiting for another process")):
        if not output.is_file() or read_seal(output) is None:
            logger.info("%s: has to be made", output)
            _make(known, Fetching(name=name, offline=offline, progress=progress, rules=rules), output)
    return output


def _make(card: ModelCard, fetching: Fetching, output: Path) -> None:
    """Fetch what is missing; an ONNX model is adopted, and a release exported."""
    from landmark_onnx.modelfile.onnx_file import is_onnx

    folder = files_folder(card.name)
    source = _source(card, folder, fetching)
    if card.source.labels_url:
        fetching.declared(card.source.labels_url, folder / card.source.labels_file(), card.source.labels_sha256)
    beside = folder if card.source.labels_url else None
    if is_onnx(source):
        from landmark_onnx.hub.adopt import Adoption, adopt

        fetching.progress.on_stage("adopt")
        adopt(source, Adoption(card=card, beside=beside, replace=True))
        source.unlink()  # all of it is in the model now
    else:
        export_release(card, source, output, fetching.progress.on_stage, beside)
    shutil.rmtree(folder, ignore_errors=True)


def _source(card: ModelCard, folder: Path, fetching: Fetching) -> Path:
    """The release or the ONNX model in the store, fetched if need be. folder: for a model of two files."""
    from landmark_onnx.hub.checksums import accept, accept_folder, check_source
    from landmark_onnx.modelfile.onnx_file import is_onnx

    path, source = source_path(card.name), card.source
    if path.is_file():
        logger.info("%s: is there already", path)
        fetching.progress.on_stage("check")
        return check_source(card)
    if not source.url:
        raise DownloadError(f"{card.name}: its card names no source.url")
    if local := local_folder(source.url):
        return accept_folder(card, local)
    if not source.data_url:
        return fetching.file(source.url, path, functools.partial(accept, card), size=source.bytes)
    main = fetching.declared(source.url, folder / file_name(source.url), source.sha256, size=source.bytes)
    fetching.declared(source.data_url, folder / file_name(source.data_url), source.data_sha256)
    return main if is_onnx(main) else accept_folder(card, folder)
