"""Bringing files of the user's own into the store: releases, exported models, and ONNX models that others made."""

import hashlib
import shutil
import tarfile
from pathlib import Path
from typing import BinaryIO

from landmark_onnx.cards import ModelCard, card, cards, users_card, users_folder
from landmark_onnx.download import download
from landmark_onnx.errors import DownloadError, ModelFileError
from landmark_onnx.files import atomic_write, sync
from landmark_onnx.locks import locked
from landmark_onnx.partial import Fetched, hashed
from landmark_onnx.precision import precision_file, precision_of
from landmark_onnx.releases import recognised
from landmark_onnx.seal import append_metadata, check_seal, read_metadata, read_seal
from landmark_onnx.store import (
    Stored,
    embedded_card,
    exported_path,
    external_data,
    source_path,
    stored_model,
)
from landmark_onnx.trust import accept


def add(path: Path, name: str | None = None, *, card_file: Path | None = None) -> Stored:
    """Copy a file into the store, as whatever its bytes say it is.

    An exported .onnx goes among the models after its seal is checked. Any other .onnx needs a card, and is sealed with
    it after it has answered as a sound one must. A tar, or a folder, which becomes one, goes among the releases.
    name: of the model; by default a release is called after its file. card_file: joins the user's cards.
    Raises: ModelFileError, CardError, UnknownModelError, SessionError.
    """
    given = users_card(card_file) if card_file else card(name) if name else None
    if given and name and name != given.name:
        raise ModelFileError(f"{card_file}: the card is called {given.name!r}, not {name!r}")
    if not path.exists():
        raise ModelFileError(f"{path}: no such file")
    if path.is_file() and read_seal(path):
        added = _add_model(path, given)
    elif path.suffix == ".onnx" and path.is_file():
        added = _adopt(path, given).name
    else:
        known = given or _recognised(path)
        _add_source(path, known)
        added = known.name
    if card_file and given:
        _install(card_file, given)
    return stored_model(added)


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


def _add_model(path: Path, given: ModelCard | None) -> str:
    """An exported model: its weights first, so that it is never there without them; what the store calls it."""
    check_seal(path)
    inside = embedded_card(path)
    if given and given.name != inside.name:
        raise ModelFileError(f"{path}: its own card is called {inside.name!r}, not {given.name!r}")
    target = precision_file(exported_path(inside.name), precision_of(read_metadata(path) or {}, path))
    with locked(inside.name):
        if data := external_data(path):
            _copy(data, target.with_name(data.name), (read_metadata(path) or {})["data"]["sha256"])
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


def _adopt(path: Path, given: ModelCard | None) -> ModelCard:
    """Somebody else's ONNX model: sealed with its card, and with what it answers here, so that `verify` can ask it."""
    from landmark_onnx.preprocess import preprocess
    from landmark_onnx.providers import on_cpu
    from landmark_onnx.session import Session
    from landmark_onnx.soundness import examine, picture
    from landmark_onnx.verify import Probe, probe_rule

    if given is None:
        raise ModelFileError(
            f"{path}: no seal: truncated, changed, or not exported by landmark-onnx; if others made it, give its --card"
        )
    image = picture(0)
    cpu = on_cpu()
    session = Session(path, cpu)
    session.bind(given)
    examine(session, given, probe_rule(given))
    outputs = session.run(given, preprocess(probe_rule(given), image))
    with locked(given.name), path.open("rb") as reader, atomic_write(exported_path(given.name)) as file:
        shutil.copyfileobj(reader, file)
        probe = Probe.ask(image, outputs).to_json()
        append_metadata(file, {"card": given.to_dict(), "source": {"name": path.name, "kind": "onnx"}, "probe": probe})
        sync(file)
        try:
            Session(Path(file.name), cpu)
        except ModelFileError as error:
            raise ModelFileError(f"{path}: wanted all its weights inside it: save it as one file first") from error
    return given


def _install(path: Path, given: ModelCard) -> None:
    with atomic_write(users_folder() / f"{given.name}.toml") as file:
        file.write(path.read_bytes())
