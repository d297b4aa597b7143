"""Bringing files of the user's own into the store: releases, exported models, and ONNX models that others made."""

import logging
from collections.abc import Callable
from pathlib import Path

from landmark_onnx.cards.catalogue import card_data, cards, users_card, users_folder
from landmark_onnx.cards.releases import card_of, said_card
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import CardError, DownloadError, ModelFileError
from landmark_onnx.files.atomic import atomic_write, copy_file
from landmark_onnx.hub.adopt import Adoption, adopt, copy_weights
from landmark_onnx.hub.checksums import accept, accept_folder
from landmark_onnx.hub.download import download
from landmark_onnx.hub.remove import replacing
from landmark_onnx.modelfile.card_changes import differences, was_adopted
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.modelfile.metadata import check_seal, read_metadata, read_seal
from landmark_onnx.precision import origin_of, precision_file, precision_of
from landmark_onnx.store.catalogue import embedded_card, exported_path, source_path
from landmark_onnx.store.locks import locked
from landmark_onnx.store.status import Stored, stored_model

logger = logging.getLogger(__name__)


def add(
    path: Path,
    name: str | None = None,
    *,
    card_file: Path | None = None,
    replace: bool = False,
    on_note: Callable[[str], None] = lambda text: None,
) -> Stored:
    """Copy a file into the store, as whatever its bytes say it is.

    An exported .onnx goes among the models after its seal is checked. Any other .onnx needs a card, and is sealed with
    it after it has answered as a sound one must. A tar, or a folder, which becomes one, goes among the releases.
    name: of the model; by default a release is called after its file. card_file: joins the user's cards, and names
    classes if it has `source.labels` and that file is beside it or beside the model.
    replace: another model or card of that name; what was made from that model goes with it, and `on_note` names
    each file. The same again is no replacement.
    Raises: ModelFileError, also over another model unless `replace`; CardError, UnknownModelError, SessionError.
    """
    data = card_data(card_file) if card_file else b""
    given = users_card(data, card_file) if card_file else None
    said = said_card(name, given, card_file)
    if not path.exists():
        raise ModelFileError(f"{path}: no such file")
    if card_file and given:
        _check_card(card_file, given, replace)
    file = _Addition(path, said, card_file, replace, on_note)
    if path.is_file() and read_seal(path):
        added = file.add_exported()
    elif path.suffix == ".onnx" and path.is_file():
        added = file.add_foreign()
    else:
        added = file.add_release()
    if given:
        _install(data, given)
    return stored_model(added)


class _Addition:
    """A file on its way into the store. card: as the user says. card_file: where that was read, None for a known one.

    Each method answers what the store calls the file then.
    """

    def __init__(
        self,
        path: Path,
        card: ModelCard | None,
        card_file: Path | None,
        replace: bool,
        on_note: Callable[[str], None],
    ) -> None:
        self._path, self._card, self._card_file = path, card, card_file
        self._replace, self._on_note = replace, on_note

    def add_exported(self) -> str:
        """An exported model: its weights first, so that it is never there without them."""
        path = self._path
        logger.info("%s: is an exported model", path)
        seal, metadata, inside = check_seal(path), read_metadata(path) or {}, embedded_card(path)
        if self._card and self._card.name != inside.name:
            raise ModelFileError(f"{path}: its own card is called {inside.name!r}, not {self._card.name!r}")
        precision = precision_of(metadata, path)
        if self._card_file and self._card and self._card != inside:
            if was_adopted(metadata) and precision == "fp32":
                return self.add_foreign()
            if keys := differences(inside, self._card):
                what = f"says otherwise of {', '.join(keys)} than the card inside {path}, which was exported with that"
                raise ModelFileError(f"{self._card_file}: {what}; export it again with the new one")
        fp32 = exported_path(inside.name)
        target = precision_file(fp32, precision)
        with locked(inside.name):
            if target != fp32 and fp32.is_file() and getattr(read_seal(fp32), "sha256", None) != origin_of(metadata):
                raise ModelFileError(f"{path}: made from another model than {fp32} is; make one from that")
            same = target.is_file() and read_seal(target) == seal
            with replacing(target, same=same, allowed=self._replace, on_note=self._on_note):
                if data := external_data(path):
                    copy_weights(data, target.with_name(data.name), metadata["data"]["sha256"])
                copy_file(path, target, check_seal)
        return target.stem

    def add_foreign(self) -> str:
        """An ONNX model that others made."""
        logger.info("%s: is a model that others made", self._path)
        if self._card is None:
            what = "no seal: truncated, changed, or not exported by landmark-onnx; if others made it, give its --card"
            raise ModelFileError(f"{self._path}: {what}")
        beside = self._card_file and self._card_file.parent
        adopt(self._path, Adoption(card=self._card, beside=beside, replace=self._replace, on_note=self._on_note))
        return self._card.name

    def add_release(self) -> str:
        """A tar, or a folder that becomes one."""
        path, card = self._path, card_of(self._path, self._card)
        logger.info("%s: is a release of %s", path, card.name)
        target = source_path(card.name)
        with locked(card.name):
            if path.is_dir():
                accept_folder(card, path)
                return card.name
            try:
                download(path.absolute().as_uri(), target, check=lambda fetched: accept(card, fetched))
            except DownloadError as error:
                raise ModelFileError(error.reason) from error
        return card.name


def _check_card(path: Path, given: ModelCard, replace: bool) -> None:
    known = cards().get(given.name)
    if known and known != given and not replace:
        installed = users_folder() / f"{given.name}.toml"
        raise CardError(f"{path}: {installed} is another card of that name; to replace it: --replace")


def _install(data: bytes, given: ModelCard) -> None:
    if cards().get(given.name) == given:
        return
    with atomic_write(users_folder() / f"{given.name}.toml") as file:
        file.write(data)
