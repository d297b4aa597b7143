"""A model by name: fetch its release, export it, or do whichever of the two is left to do."""

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from landmark_onnx.cards.catalogue import card, cards
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import DownloadError, ModelFileError
from landmark_onnx.hub.checksums import accept, check_source
from landmark_onnx.hub.exporter import export_release
from landmark_onnx.modelfile.metadata import read_seal
from landmark_onnx.precision import Precision
from landmark_onnx.store.catalogue import exported_path, find_model, is_there, source_path

if TYPE_CHECKING:
    from landmark_onnx.hub.download import Received, Rules

logger = logging.getLogger(__name__)

MIRROR_VARIABLE = "LANDMARK_ONNX_MIRROR"
OFFLINE_VARIABLE = "LANDMARK_ONNX_OFFLINE"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """What a pull reports. on_stage: a stage begins. on_done: bytes of a download that are there, and of how many."""

    on_stage: Callable[[str], None] = lambda stage: None
    on_done: "Received" = lambda done, total: None


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
    """Have the exported model `name` in the store; of several who pull it at once, one does the work.

    Raises: UnknownModelError; DownloadError if no address has its release; ModelFileError if that is not what it was,
    or offline; MissingExtraError if it is there and only the exporter is missing; ExportError.
    """
    # Who has the model already, which is nearly always, should not wait for these imports.
    from landmark_onnx.store.locks import locked

    wanted = card(name)
    progress = progress or PullProgress()
    output = exported_path(name)
    with locked(name, on_wait=lambda: progress.on_stage("waiting for another process")):
        if not output.is_file() or read_seal(output) is None:
            logger.info("%s: has to be made", output)
            export_release(
                wanted, _release(wanted, offline or is_offline(), progress, rules), output, progress.on_stage
            )
    return output


def is_offline() -> bool:
    """Whether the environment forbids downloads."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "no", "false", "off")


def addresses(card: ModelCard) -> Iterator[tuple[str, bool]]:
    """Where a release may be, best first, and whether plain HTTP is the user's own choice there."""
    if mirror := os.environ.get(MIRROR_VARIABLE, "").strip():
        file = urlsplit(card.source.url).path.rpartition("/")[2] or f"{card.name}.tar"
        yield f"{mirror.rstrip('/')}/{file}", True
    if card.source.url:
        yield card.source.url, False


def _release(card: ModelCard, offline: bool, progress: PullProgress, rules: "Rules | None") -> Path:
    """The release in the store, downloaded if need be."""
    from landmark_onnx.hub.download import download

    path = source_path(card.name)
    if path.is_file():
        logger.info("%s: has the release already", path)
        progress.on_stage("check")
        return check_source(card)
    reasons = []
    places = [place for place in addresses(card) if not offline or place[0].startswith("file:")]
    for url, plain in places:
        progress.on_stage("download")
        try:
            check = functools.partial(accept, card)
            return download(url, path, check=check, on_done=progress.on_done, rules=rules, plain=plain).path
        except (DownloadError, ModelFileError) as error:
            reasons.append(error.reason if isinstance(error, DownloadError) else str(error))
            logger.info("%s", reasons[-1])
    if offline:
        why = "; ".join(["offline, and neither the model nor its release is in the store", *reasons])
        how = f"landmark-onnx models add {card.name}.tar, or landmark-onnx export {card.name} --from {card.name}.tar"
        raise ModelFileError(f"{card.name}: {why}; add it: {how}")
    raise DownloadError("; ".join(reasons) or f"{card.name}: its card names no source.url")
