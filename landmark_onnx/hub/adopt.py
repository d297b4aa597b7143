"""ONNX models that others made: sealed with a card, and with what they answer here, so that `verify` can ask them."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from landmark_onnx.cards.catalogue import ready_folder, users_folder
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import CardError, ModelFileError
from landmark_onnx.files.atomic import atomic_write, copy_file, sync
from landmark_onnx.files.hashing import check_hash, digest
from landmark_onnx.hub.remove import replacing
from landmark_onnx.modelfile.card_changes import ADOPTED, was_adopted
from landmark_onnx.modelfile.labels import read_labels
from landmark_onnx.modelfile.metadata import append_metadata, check_seal, network_digest, read_metadata, read_seal
from landmark_onnx.modelfile.onnx_file import relocated, weights_beside
from landmark_onnx.store.catalogue import embedded_card, exported_path
from landmark_onnx.store.locks import locked
from landmark_onnx.types import Tensors


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What goes with a file beside its bytes. beside: a folder in which the labels of the card may be.

    replace: whether it may take the place of another model of that name; on_note: gets each file that goes then.
    """

    card: ModelCard
    beside: Path | None = None
    replace: bool = False
    on_note: Callable[[str], None] = lambda text: None


def adopt(path: Path, adoption: Adoption) -> None:
    """Bring somebody else's ONNX model into the store, after it has answered as a sound one must.

    Raises: ModelFileError if it does not, lacks labels, or another model is called so; SessionError.
    """
    from landmark_onnx.inference.preprocess import preprocess
    from landmark_onnx.runtime.providers import on_cpu
    from landmark_onnx.runtime.session import Session
    from landmark_onnx.verification.soundness import examine, picture
    from landmark_onnx.verification.verify import Probe, probe_rule

    card, beside = adoption.card, weights_beside(path)
    facts = {"card": card.to_dict()} | _weights(card, path, beside) | _labels(path, adoption)
    target = exported_path(card.name)
    with locked(card.name):
        if _is_adopted(path, target, facts):
            return
        with replacing(target, same=False, allowed=adoption.replace, on_note=adoption.on_note):
            session = Session(path, on_cpu())
            session.bind(card)
            examine(session, card, probe_rule(card))
            image = picture(0)
            outputs = session.run(preprocess(probe_rule(card), image, as_uint8=session.input_kind == "uint8"))
            _check_labels(card, facts.get("labels", {}), outputs)
            source = {"name": path.name, "kind": ADOPTED, "sha256": network_digest(path)}
            facts |= {"source": source, "probe": Probe.ask(image, outputs).to_json()}
            if beside:
                copy_weights(beside, target.with_name(facts["data"]["file"]), facts["data"]["sha256"])
            _write_sealed(path, target, facts)


def copy_weights(source: Path, target: Path, sha256: str) -> None:
    """Copy the weights beside a model. Raises: ModelFileError if they have another hash, or are gone."""
    try:
        copy_file(source, target, lambda copied: check_hash(copied, sha256, shown=source))
    except FileNotFoundError as error:
        raise ModelFileError(f"{source}: no such file; the model keeps its weights there") from error


def _weights(card: ModelCard, path: Path, beside: Path | None) -> dict[str, Any]:
    """Where the store keeps the weights that are beside the model, as metadata."""
    if not beside:
        return {}
    if not beside.is_file():
        raise ModelFileError(f"{beside}: no such file; {path.name} keeps its weights there")
    sha256 = digest(beside).sha256
    return {"data": {"file": f"{card.name}-{sha256[:12]}.onnx.data", "sha256": sha256}}


def _write_sealed(path: Path, target: Path, facts: Mapping[str, Any]) -> None:
    """The network of `path` with new facts; those that it may have go."""
    seal = read_seal(path)
    with path.open("rb") as reader, atomic_write(target) as file:
        if "data" in facts:
            file.write(relocated(path, facts["data"]["file"]))
        else:
            shutil.copyfileobj(reader, file)
            if seal:
                file.truncate(seal.offset)
        append_metadata(file, facts)
        sync(file)


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
    known |= {key: dict(there[key]) for key in ("labels", "data") if key in there}
    if not was_adopted(there) or known != facts:
        return False
    # A network whose weights are beside it is not to the byte what it was: it names another file.
    return network_digest(path) in (there["source"].get("sha256"), network_digest(target))


def _labels(path: Path, adoption: Adoption) -> dict[str, dict[str, str]]:
    """The class names that the card wants, as metadata: from a file beside it or the model, or from inside that."""
    wanted = adoption.card.source.labels_file()
    if not wanted:
        return {}
    folders = [adoption.beside or users_folder(), path.parent, ready_folder()]
    file = next((file for folder in folders if (file := folder / wanted).is_file()), None)
    if file:
        return {"labels": {str(index): name for index, name in read_labels(file).items()}}
    if inside := (read_metadata(path) or {}).get("labels"):
        return {"labels": dict(inside)}
    places = " or ".join(dict.fromkeys(map(str, folders)))
    raise ModelFileError(f"{adoption.card.name}: its card wants labels from {wanted}: no such file in {places}")


def _check_labels(card: ModelCard, labels: Mapping[str, str], outputs: Tensors) -> None:
    """Names of other classes than the model has are those of another model; detectors may have classes without any."""
    if not labels or "probability" not in outputs or "classes" in outputs:
        return
    count = outputs["probability"].shape[-1]
    named = set(map(int, labels))
    strange, nameless = sorted(named - set(range(count))), sorted(set(range(count)) - named)
    if strange or (nameless and card.task == "cls"):
        what = f"class {strange[0]} is none of these" if strange else f"class {nameless[0]} has no name"
        counts = f"name {len(named)} classes, the model has {count}"
        raise ModelFileError(f"{card.name}: the labels in {card.source.labels_file()} {counts}: {what}")
