"""Who takes part in a contest: this package in each form asked for, and the peers, with the files that they need."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError
from landmark_onnx.extras import extra
from landmark_onnx.modelfile.metadata import read_metadata
from landmark_onnx.precision import Precision
from landmark_onnx.store.catalogue import source_path
from landmark_onnx_bench.targets import OWN, PEERS, Contestant, PeerName


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A model that takes part.

    path: the exported file. card: the facts inside it. metadata: all that it says of itself. release: what Paddle
    runs. raw: an export without optimisation, for the peer that wants one.
    """

    path: Path
    card: ModelCard
    metadata: Mapping[str, Any]
    release: Path | None = None
    raw: Path | None = None

    @property
    def name(self) -> str:
        """What tables call the model."""
        return self.card.name


def entry(path: Path, *, releases: Sequence[Path] = (), raws: Sequence[Path] = ()) -> Entrant:
    """Read what an exported file says of itself, and find its release and its raw export.

    releases, raws: files, or folders that hold NAME.tar or NAME.onnx. The store's release serves if none is given.
    Raises: ModelFileError without a card inside, or if none of `releases` or `raws` is the model's.
    """
    metadata = read_metadata(path)
    if metadata is None or "card" not in metadata:
        raise ModelFileError(f"{path}: no model card inside: not exported by landmark-onnx")
    card = ModelCard.from_dict(metadata["card"], f"{path}: card")
    stored = source_path(card.name)
    return Entrant(
        path=path,
        card=card,
        metadata=metadata,
        release=_of_model(card.name, releases, ".tar", "--release") or (stored if stored.is_file() else None),
        raw=_of_model(card.name, raws, ".onnx", "--raw"),
    )


def own(
    model: Entrant, providers: Sequence[str], precisions: Sequence[Precision], *, threads: int, batch_size: int
) -> Iterator[Contestant]:
    """The package itself on each provider at each precision."""
    for provider in providers:
        for precision in precisions:
            yield Contestant(
                label=f"{OWN} {provider} {precision}",
                runtime=OWN,
                path=str(model.path),
                card=model.card.to_dict(),
                provider=provider,
                precision=precision,
                threads=threads,
                batch_size=batch_size,
            )


def peer(model: Entrant, name: str, folder: Path, *, threads: int, batch_size: int) -> Contestant:
    """The peer `name` of `PEERS` on the same network. folder: gets the program that Paddle runs.

    Raises: ModelFileError if there is no release for Paddle; ExportError if it is not one; MissingExtraError.
    """
    facts = PEERS[name]
    path, options = _file(model, name, facts, folder)
    return Contestant(
        label=name,
        runtime=facts.runtime,
        path=str(path),
        card=model.card.to_dict(),
        provider=facts.provider,
        precision=facts.precision,
        threads=threads,
        batch_size=batch_size,
        options={**facts.options, **options},
    )


def _file(model: Entrant, name: str, facts: PeerName, folder: Path) -> tuple[Path, dict[str, Any]]:
    if facts.wants == "raw":
        return model.raw or model.path, {"raw": model.raw is not None}
    if facts.wants == "release":
        if model.release is None:
            raise ModelFileError(f"{model.path}: {name} runs the release: say where it is with --release")
        return paddle_program(model.card, model.release, folder / model.name)
    return model.path, {}


def paddle_program(card: ModelCard, release: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write the program of a release into `folder`; its file, and the options that `engines.Paddle` takes.

    Raises: ExportError, MissingExtraError.
    """
    with extra("export", what="the exporter, which reads releases for Paddle,"):
        from landmark_onnx_export.programs import runnable
        from landmark_onnx_export.releases.source import open_source
    folder.mkdir(parents=True, exist_ok=True)
    with open_source(release) as source:
        program = runnable(card, source, folder)
        names = program.tensors(card)
        model, params = program.write(folder)
    return model, {"params": str(params), "inputs": list(names.inputs), "outputs": list(names.outputs)}


def _of_model(name: str, given: Sequence[Path], suffix: str, option: str) -> Path | None:
    for path in given:
        if path.is_dir() and (path / f"{name}{suffix}").exists():
            return path / f"{name}{suffix}"
        if path.name in (name, f"{name}{suffix}"):
            return path
    if given:
        raise ModelFileError(f"{name}: {option}: none of {', '.join(map(str, given))} is {name}{suffix} or holds it")
    return None
