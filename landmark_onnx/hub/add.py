"""Bringing files of the user's own into the store: releases, exported models, and ONNX models that others made."""

import contextlib
import dataclasses
import hashlib
import logging
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from landmark_onnx.cards.catalogue import card, card_data, cards, users_card, users_folder
from landmark_onnx.cards.releases import recognised
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import CardError, DownloadError, ModelFileError
from landmark_onnx.files.atomic import atomic_write, sync
from landmark_onnx.hub.checksums import accept
from landmark_onnx.hub.download import download
from landmark_onnx.hub.remove import replacing
from landmark_onnx.hub.resume import Fetched, hashed
from landmark_onnx.modelfile.card_changes import ADOPTED, differences, was_adopted
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.modelfile.labels import read_labels
from landmark_onnx.modelfile.metadata import append_metadata, check_seal, network_digest, read_metadata, read_seal
from landmark_onnx.precision import origin_of, precision_file, precision_of
from landmark_onnx.store.catalogue import embedded_card, exported_path, source_path
from landmark_onnx.store.locks import locked
from landmark_onnx.store.status import Stored, stored_model
from landmark_onnx.types import Tensors

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What is said of a file beside its bytes. card_file: where the card was read, None for a known one."""

    card: ModelCard | None
    card_file: Path | None
    replace: bool
    note: Callable[[str], None]

    @contextlib.contextmanager
    def replacing(self, model: Path, *, same: bool) -> Iterator[None]:
        """As `landmark_onnx.hub.remove.replacing`; what goes with the old model is told."""
        with replacing(model, same=same, allowed=self.replace) as removed:
            yield
        for each in removed:
            self.note(f"removed with the model it belonged to: {each.path}")


def add(
    path: Path,
    name: str | None = None,
    *,
    card_file: Path | None = None,
    replace: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Stored:
    """Copy a file into the store, as whatever its bytes say it is.

    An exported .onnx goes among the models after its seal is checked. Any other .onnx needs a card, and is sealed with
    it after it has answered as a sound one must. A tar, or a folder, which becomes one, goes among the releases.
    name: of the model; by default a release is called after its file. card_file: joins the user's cards, and names
    classes if it has `source.labels` and that file is beside it or beside the model.
    replace: another model or card of that name; what was made from that model goes with it, and `note` is told of each
    file. The same again is no replacement.
    Raises: ModelFileError, also over another model unless `replace`; CardError, UnknownModelError, SessionError.
    """
    data = card_data(card_file) if card_file else b""
    given = users_card(data, card_file) if card_file else card(name) if name else None
    if given and name and name != given.name:
        raise ModelFileError(f"{card_file}: the card is called {given.name!r}, not {name!r}")
    if not path.exists():
        raise ModelFileError(f"{path}: no such file")
    if card_file and given:
        _check_card(card_file, given, replace)
    about = _Given(card=given, card_file=card_file, replace=replace, note=note)
    if path.is_file() and read_seal(path):
        logger.info("%s: is an exported model", path)
        added = _add_model(path, about)
    elif path.suffix == ".onnx" and path.is_file():
        logger.info("%s: is a model that others made", path)
        added = _adopt(path, about).name
    else:
        known = given or _recognised(path)
        logger.info("%s: is a release of %s", path, known.name)
        _add_source(path, known)
        added = known.name
    if card_file and given:
        _install(data, given)
    return stored_model(added)


def _check_card(path: Path, given: ModelCard, replace: bool) -> None:
    known = cards().get(given.name)
    if known and known != given and not replace:
        installed = users_folder() / f"{given.name}.toml"
        raise CardError(f"{path}: {installed} is another card of that name; to replace it: --replace")


def _recognised(path: Path) -> ModelCard:
    name = recognised(path)
    if name is None:
        raise ModelFileError(f"{path}: which model is it? Give --name; there are: {', '.join(cards())}")
    return card(name)


def _add_source(path: Path, known: ModelCard) -> None:
    target = source_path(known.name)
    with locked(known.name):
        if path.is_dir():
            with atomic_write(target) as file:
                _pack(path, known.name, file)
                file.flush()
                accept(known, Fetched(Path(file.name), str(path), *hashed(Path(file.name))))
            return
        try:
            download(path.absolute().as_uri(), target, check=lambda fetched: accept(known, fetched))
        except DownloadError as error:
            raise ModelFileError(error.reason) from error


def _pack(folder: Path, name: str, file: BinaryIO) -> None:
    """Write the folder's files as a tar; the same files give the same bytes."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        member.mode = 0o644
        return member

    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        raise ModelFileError(f"{folder}: no file in this folder")
    with tarfile.open(fileobj=file, mode="w", dereference=True) as tar:
        for path in files:
            tar.add(path, f"{name}/{path.relative_to(folder).as_posix()}", filter=plain)


def _add_model(path: Path, about: _Given) -> str:
    """An exported model: its weights first, so that it is never there without them; what the store calls it."""
    seal, metadata, inside = check_seal(path), read_metadata(path) or {}, embedded_card(path)
    if about.card and about.card.name != inside.name:
        raise ModelFileError(f"{path}: its own card is called {inside.name!r}, not {about.card.name!r}")
    precision = precision_of(metadata, path)
    if about.card_file and about.card and about.card != inside:
        if was_adopted(metadata) and precision == "fp32":
            return _adopt(path, about).name
        if keys := differences(inside, about.card):
            what = f"says otherwise of {', '.join(keys)} than the card inside {path}, which was exported with that"
            raise ModelFileError(f"{about.card_file}: {what}; export it again with the new one")
    fp32 = exported_path(inside.name)
    target = precision_file(fp32, precision)
    with locked(inside.name):
        if target != fp32 and fp32.is_file() and getattr(read_seal(fp32), "sha256", None) != origin_of(metadata):
            raise ModelFileError(f"{path}: made from another model than {fp32} is; make one from that")
        with about.replacing(target, same=target.is_file() and read_seal(target) == seal):
            if data := external_data(path):
                _copy(data, target.with_name(data.name), metadata["data"]["sha256"])
            with path.open("rb") as reader, atomic_write(target) as file:
                shutil.copyfileobj(reader, file)
                file.flush()
                check_seal(Path(file.name))
    return target.stem


def _copy(source: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    try:
        with source.open("rb") as reader, atomic_write(target) as file:
            while chunk := reader.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != sha256:
                raise ModelFileError(f"{source}: damaged: wanted sha256 {sha256}, got {digest.hexdigest()}")
    except FileNotFoundError as error:
        raise ModelFileError(f"{source}: no such file; the model keeps its weights there") from error


def _adopt(path: Path, about: _Given) -> ModelCard:
    """Somebody else's ONNX model: sealed with its card, and with what it answers here, so that `verify` can ask it."""
    from landmark_onnx.inference.preprocess import preprocess
    from landmark_onnx.runtime.providers import on_cpu
    from landmark_onnx.runtime.session import Session
    from landmark_onnx.verification.soundness import examine, picture
    from landmark_onnx.verification.verify import Probe, probe_rule

    given = about.card
    if given is None:
        raise ModelFileError(
            f"{path}: no seal: truncated, changed, or not exported by landmark-onnx; if others made it, give its --card"
        )
    facts = {"card": given.to_dict()} | _labels(path, given, about.card_file)
    target = exported_path(given.name)
    with locked(given.name):
        if _is_adopted(path, target, facts):
            return given
        with about.replacing(target, same=False):
            session = Session(path, on_cpu())
            session.bind(given)
            examine(session, given, probe_rule(given))
            image = picture(0)
            outputs = session.run(given, preprocess(probe_rule(given), image))
            _check_labels(given, facts.get("labels", {}), outputs)
            facts |= {"source": {"name": path.name, "kind": ADOPTED}, "probe": Probe.ask(image, outputs).to_json()}
            _write_sealed(path, target, facts)
    return given


def _write_sealed(path: Path, target: Path, facts: Mapping[str, Any]) -> None:
    """The network of `path` with new facts; those that it may have go."""
    from landmark_onnx.runtime.providers import on_cpu
    from landmark_onnx.runtime.session import Session

    seal = read_seal(path)
    with path.open("rb") as reader, atomic_write(target) as file:
        shutil.copyfileobj(reader, file)
        if seal:
            file.truncate(seal.offset)
        append_metadata(file, facts)
        sync(file)
        try:
            Session(Path(file.name), on_cpu())
        except ModelFileError as error:
            raise ModelFileError(f"{path}: wanted all its weights inside it: save it as one file first") from error


def _is_adopted(path: Path, target: Path, facts: Mapping[str, Any]) -> bool:
    """Whether `target` is the network of `path` already, whole and with these facts."""
    if not target.is_file():
        return False
    try:
        check_seal(target)
        there = read_metadata(target) or {}
        known = {"card": embedded_card(target).to_dict()}
    except (ModelFileError, CardError):
        return False
    if "labels" in there:
        known["labels"] = dict(there["labels"])
    return was_adopted(there) and known == facts and network_digest(target) == network_digest(path)


def _labels(path: Path, given: ModelCard, card_file: Path | None) -> dict[str, dict[str, str]]:
    """The class names that the card wants, as metadata: from a file beside it or the model, or from inside that."""
    if not given.source.labels:
        return {}
    folders = [card_file.parent if card_file else users_folder(), path.parent]
    file = next((file for folder in folders if (file := folder / given.source.labels).is_file()), None)
    if file:
        return {"labels": {str(index): name for index, name in read_labels(file).items()}}
    if inside := (read_metadata(path) or {}).get("labels"):
        return {"labels": dict(inside)}
    places = " or ".join(dict.fromkeys(map(str, folders)))
    raise ModelFileError(f"{given.name}: its card wants labels from {given.source.labels}: no such file in {places}")


def _check_labels(given: ModelCard, labels: Mapping[str, str], outputs: Tensors) -> None:
    """Names of other classes than the model has are those of another model; detectors may have classes without any."""
    if not labels or "probability" not in outputs:
        return
    count = outputs["probability"].shape[-1]
    named = set(map(int, labels))
    strange, nameless = sorted(named - set(range(count))), sorted(set(range(count)) - named)
    if strange or (nameless and given.task == "cls"):
        what = f"class {strange[0]} is none of these" if strange else f"class {nameless[0]} has no name"
        counts = f"name {len(named)} classes, the model has {count}"
        raise ModelFileError(f"{given.name}: the labels in {given.source.labels} {counts}: {what}")


def _install(data: bytes, given: ModelCard) -> None:
    if cards().get(given.name) == given:
        return
    with atomic_write(users_folder() / f"{given.name}.toml") as file:
        file.write(data)
