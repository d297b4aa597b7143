"""Bundles: exported models in a folder that runs on a machine which never had Paddle.

The folder is a store of its own: with LANDMARK_ONNX_HOME naming it, every command finds its models by name. For Triton
Inference Server it is a model repository instead. It appears whole or not at all, with every file's hash in its lock.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.deploy import triton
from landmark_onnx.deploy.lockfile import FILE, BundledModel, BundleLock, Layout, difference, read_manifest
from landmark_onnx.doctor.environment import owners
from landmark_onnx.errors import ModelFileError
from landmark_onnx.extras import versions
from landmark_onnx.files.atomic import sync
from landmark_onnx.files.hashing import digest
from landmark_onnx.files.workfolders import folder_beside, replace_folder
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.modelfile.external_data import check_external_data, external_data
from landmark_onnx.modelfile.metadata import check_seal, read_metadata, read_seal
from landmark_onnx.precision import Precision, origin_of, precision_file, precision_of
from landmark_onnx.runtime.providers import ProviderRequest, takes_openvino
from landmark_onnx.runtime.session import Session
from landmark_onnx.store.catalogue import embedded_card, find_model, running_file
from landmark_onnx.verification.verify import probe_rule, verify

REQUIREMENTS = "requirements.txt"
LICENCES = "LICENCES.txt"
APACHE = "Apache-2.0"


def bundle(
    models: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    provider: ProviderRequest | None = None,
    threads: int = 0,
    serving: triton.Serving | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> BundleLock:
    """Run each exported model once, copy it into `folder` with its card, and write the lock.

    provider: what it runs on, and at which precision: of a reduced one that file is copied, and the fp32 file is not.
    serving: lay them out for Triton, to be run so.
    Raises: ModelFileError if a model is damaged, does not answer as at its export, or is of reduced precision and made
    from another fp32 file than the bundle's, or if `folder` holds anything but an older bundle, which is replaced;
    UnknownModelError; SessionError.
    """
    folder = folder.resolve()
    check_replaceable(folder)
    request = provider or ProviderRequest()
    chosen = _chosen(models, request.precision)
    with folder_beside(folder) as owned:
        packing = _Packing(owned / "bundle", serving)
        members = []
        for name, each in chosen.items():
            on_stage(f"{name}: run")
            ran_on, agreement = each.prove(request, threads)
            on_stage(f"{name}: copy")
            members.append(packing.add(name, each, ran_on, agreement))
        on_stage("hash")
        lock = packing.finish(members, licences([each.card for each in chosen.values()]))
        check_replaceable(folder)
        replace_folder(packing.folder, folder)
    return lock


def check_bundle(folder: Path) -> tuple[BundleLock, tuple[str, ...]]:
    """Hash every file of a bundle again: its lock, and what is wrong. Raises: ModelFileError if it is no bundle."""
    lock = read_manifest(folder)
    found = (difference(folder, name, wanted) for name, wanted in lock.files.items())
    return lock, tuple(problem for problem in found if problem)


def check_replaceable(folder: Path) -> None:
    """Raises: ModelFileError if writing a bundle to `folder` would lose something."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        lock = read_manifest(folder)
    except ModelFileError as error:
        raise ModelFileError(f"refused to overwrite what is no bundle: {error}") from error
    # What a store writes while it is used is no loss.
    own = re.compile(r"models/[^/]+\.onnx\.json|locks/[^/]+\.lock")
    names = (path.relative_to(folder).as_posix() for path in _files(folder))
    others = sorted(name for name in names if name not in lock.files and name != FILE and not own.fullmatch(name))
    if others:
        raise ModelFileError(f"{folder}: refused to overwrite: {', '.join(others[:3])} came there after the bundle")


def card_toml(card: ModelCard) -> str:
    """The card as `landmark_onnx.cards.catalogue.read_card` reads it."""
    table = card.to_dict()
    lines = [f"{key} = {_toml(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for name, values in table.items():
        if isinstance(values, dict) and values:
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "".join(f"{line}\n" for line in lines)


def licences(cards: Sequence[ModelCard]) -> str:
    """What must stay with copies of the weights, as far as the cards say; Apache's text once, at the end."""
    parts = []
    for name, card in {card.name: card for card in cards}.items():
        facts = {"licence": card.licence, "its text": card.licence_url, "training data": card.training_data}
        lines = [f"{name}: {card.summary}", *(f"{key}: {value}" for key, value in facts.items() if value)]
        parts.append("\n".join([*lines, *(["", card.notice.strip()] if card.notice else [])]))
    if any(APACHE in card.licence for card in cards):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # this package has the same one
            parts.append(importlib.metadata.distribution("landmark-onnx").read_text("licenses/LICENSE") or "")
    return "\n\n".join(part for part in parts if part) + "\n"


def requirements() -> str:
    """Pins of what ran the models here: this package, its direct dependencies and what runs them; no index address."""
    names = ["landmark-onnx"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        wanted = importlib.metadata.requires("landmark-onnx") or []
        names += [re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in wanted if "extra ==" not in each]
    lines = ["# What ran these models when they were bundled.\n"]
    lines += [f"{name}=={version}\n" for name, version in versions(*names).items()]
    for name, version in _runtime().items():
        # The GPU build needs both, or it cannot load its provider.
        extras = "[cuda,cudnn]" if name == "onnxruntime-gpu" else ""
        lines.append(f"{name}{extras}=={version}\n")
    return "".join(lines)


@dataclasses.dataclass(frozen=True, slots=True)
class _Chosen:
    """A file to copy. of: the seal of the fp32 file that it was made from, None for an fp32 file. seal: its own."""

    card: ModelCard
    path: Path
    precision: Precision
    seal: str
    of: str | None

    def prove(self, request: ProviderRequest, threads: int) -> tuple[str, dict[str, float] | None]:
        """Run it: the provider, and how its answer agrees with the stored one, if it has that."""
        if "probe" in (read_metadata(self.path) or {}):
            found = verify(self.path, request, threads=threads)
            return found.provider, found.agreement.to_json()
        session = Session(self.path, request, threads=threads)
        session.bind(self.card)
        black = np.zeros((64, 64, 3), np.uint8)
        session.run(preprocess(probe_rule(self.card), black, as_uint8=session.input_kind == "uint8"))
        return session.provider, None


def _chosen(models: Sequence[str | os.PathLike[str]], precision: Precision) -> dict[str, _Chosen]:
    """Each file by what a store calls it: NAME, NAME.int8. Raises: ModelFileError if two have one name."""
    chosen: dict[str, _Chosen] = {}
    for model in models:
        each = _choice(running_file(find_model(model, precision), precision))
        name = precision_file(Path(f"{each.card.name}.onnx"), each.precision).stem
        if name in chosen:
            raise ModelFileError(f"{each.path}: a model called {name!r} is in the bundle already")
        chosen[name] = each
    for each in chosen.values():
        exact = chosen.get(each.card.name)
        if each.precision != "fp32" and exact and each.of != exact.seal:
            raise ModelFileError(f"{each.path}: made from another model than {exact.path}: rebuild it from that one")
    return chosen


def _choice(path: Path) -> _Chosen:
    seal, metadata = read_seal(path), read_metadata(path) or {}
    if seal is None:
        remedy = "if others made it: landmark-onnx models add FILE --card CARD, then bundle it by its name"
        raise ModelFileError(f"{path}: no seal: truncated, changed, or not exported by landmark-onnx; {remedy}")
    precision = precision_of(metadata, path)
    of = None if precision == "fp32" else origin_of(metadata)
    return _Chosen(embedded_card(path), path, precision, seal.sha256, of)


@dataclasses.dataclass(frozen=True, slots=True)
class _Packing:
    """The folder that becomes the bundle. serving: for Triton, else the folder is a store."""

    folder: Path
    serving: triton.Serving | None

    def add(self, name: str, chosen: _Chosen, ran_on: str, agreement: Mapping[str, float] | None) -> BundledModel:
        """Copy a model with its card. name: what a store calls the file. ran_on: the provider that it was tried on."""
        card = chosen.card
        file = f"{name}/1/{triton.MODEL_FILE}" if self.serving else f"models/{name}.onnx"
        _copy_model(chosen.path, self.folder / file)
        if self.serving:
            _write_serving(card, self.folder / file, self.serving)
        else:
            _write(self.folder / "cards" / f"{card.name}.toml", card_toml(card))
        return BundledModel(
            name=card.name,
            task=card.task,
            file=file,
            precision=chosen.precision,
            provider=ran_on,
            agreement=agreement,
        )

    def finish(self, models: Sequence[BundledModel], licences: str) -> BundleLock:
        """Write the requirements, the licences, and the lock with the hash of every other file."""
        _write(self.folder / REQUIREMENTS, requirements())
        _write(self.folder / LICENCES, licences)
        layout: Layout = "triton" if self.serving else "store"
        files = {path.relative_to(self.folder).as_posix(): digest(path) for path in sorted(_files(self.folder))}
        lock = BundleLock(layout=layout, models=tuple(models), files=files, ran_on=_ran_on())
        _write(self.folder / FILE, json.dumps(lock.to_json(), indent=1) + "\n")
        return lock


def _copy_model(source: Path, target: Path) -> None:
    """Copy the model and the weights beside it, and check the copies' own hashes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    data = external_data(source)
    for old, new in [(source, target), *([(data, target.with_name(data.name))] if data else [])]:
        with old.open("rb") as reader, new.open("wb") as file:
            shutil.copyfileobj(reader, file, 1 << 20)
            sync(file)
    check_seal(target)
    check_external_data(target, (read_metadata(target) or {}).get("data"))


def _write_serving(card: ModelCard, model: Path, serving: triton.Serving) -> None:
    """What Triton wants beside the model, and the card, for those who write the client."""
    labels = {int(index): str(name) for index, name in (read_metadata(model) or {}).get("labels", {}).items()}
    folder = model.parent.parent
    _write(folder / "config.pbtxt", triton.configuration(card, model, labels, serving, name=folder.name))
    _write(folder / "card.toml", card_toml(card))
    if labels:
        _write(folder / triton.LABELS_FILE, triton.label_lines(labels))


def _ran_on() -> dict[str, str]:
    """The machine, and the versions that decide about a model's answer."""
    found = versions("landmark-onnx", "numpy", *owners("cv2", "opencv-"))
    machine = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    return machine | found | _runtime()


def _runtime() -> dict[str, str]:
    """What "auto" runs models on, and its version."""
    if takes_openvino(ProviderRequest()):
        return versions("openvino")
    return owners("onnxruntime", "onnxruntime", "ort-")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(text.encode("utf-8", "replace"))
        sync(file)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        # A JSON string is a TOML string, but for this one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
