"""Open a release, in whatever form it came: what it is shows in its bytes, not in its name; nothing is extracted."""

import contextlib
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from landmark_onnx.cards.releases import PROGRAM_FOLDER, TAR_ENDINGS
from landmark_onnx.errors import ExportError
from landmark_onnx_export.paddle.pir import looks_like_pir, parse_pir
from landmark_onnx_export.paddle.variables import (
    MAX_PROGRAM_BYTES,
    Variable,
    declared_shapes,
    looks_like_variable,
    open_binary,
    parse_program,
    read_params,
    read_variable,
)
from landmark_onnx_export.releases.tar import MAX_MEMBERS, TarEntry, tar_entries
from landmark_onnx_export.releases.torch_file import is_torch, open_torch

MAX_BYTES = 16 << 30
"""Of a compressed tar, decompressed. The largest release known is under 2 GB."""
MAX_TEXT_BYTES = 16 << 20
PARAMS_NAMES = {"model": "params", "__model__": "__params__"}
"""Program file -> its params file. `x.pdmodel` and `x.json` go with `x.pdiparams`."""

Kind: TypeAlias = Literal["train", "binary", "pir"]


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A program's bytes, and the shapes it declares of its parameters."""

    kind: Kind
    data: bytes
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class ReleaseSource:
    """An open release. It lives as long as the `with open_source(...)` around it.

    name: of the model, as the tar's only folder, the file or the folder has it.
    kind: "train" has variables alone, "binary" a program (serialized ProgramDesc) with its variables, "pir" one of
    Paddle 3 (JSON).
    extras: files that are neither. sha256: of the tar's bytes as they are, compressed or not; of a folder, that of one
    line `<sha256>  <file name>` for each program and variable file in use, sorted by name, as sha256sum writes them.
    """

    path: Path
    name: str
    kind: Kind
    program: bytes | None
    variables: Mapping[str, Variable]
    extras: tuple[str, ...]
    sha256: str
    _files: Mapping[str, TarEntry] = field(repr=False)

    def read_text(self, name: str) -> str | None:
        """A side file such as a class map, by file name or whole relative name; None if it is not there.

        Bytes that are not UTF-8 become U+FFFD. Raises: ExportError above 16 MB.
        """
        found = [file for file in self.extras if name in (file, PurePosixPath(file).name)]
        if not found:
            return None
        entry = self._files[min(found, key=len)]
        if entry.size > MAX_TEXT_BYTES:
            raise ExportError(f"{self.path}: {entry.name}: wanted at most {MAX_TEXT_BYTES} bytes, got {entry.size}")
        return entry.read().decode("utf-8", errors="replace")


@contextlib.contextmanager
def open_source(path: Path, *, max_bytes: int = MAX_BYTES) -> Iterator[ReleaseSource]:
    """Open a tar (plain, gzip, bzip2, xz), a folder, a program file with its parameters beside it, or torch's file.

    max_bytes: the most that a compressed tar may take in the temporary folder, until the end of the `with`.
    Raises: ExportError saying what is wrong, or what was looked for and found.
    """
    if path.is_dir():
        yield _from_folder(path)
        return
    if not path.is_file():
        raise ExportError(f"{path}: there is no such file or folder")
    with tar_entries(path, max_bytes) as entries:
        if entries is None and is_torch(path):
            with open_torch(path) as variables:
                yield ReleaseSource(path, path.stem, "train", None, variables, (), _sha256(_whole(path)), {})
        elif entries is None:
            yield _from_program(path)
        else:
            entries = [entry for entry in entries if not _is_leftover(entry.name)]
            contents = _recognise(path, entries)
            yield contents.source(path, _tar_name(path, entries), _sha256(_whole(path)))


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a list of files turned out to be."""

    program: _Parsed | None
    variables: Mapping[str, Variable]
    used: frozenset[str]
    files: Mapping[str, TarEntry]

    def source(self, path: Path, name: str, sha256: str) -> ReleaseSource:
        extras = tuple(sorted(self.files.keys() - self.used))
        kind: Kind = self.program.kind if self.program else "train"
        data = self.program.data if self.program else None
        return ReleaseSource(path, name, kind, data, self.variables, extras, sha256, self.files)

    def digest(self) -> str:
        lines = sorted((PurePosixPath(name).name, _sha256(self.files[name])) for name in self.used)
        return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in lines).encode()).hexdigest()


def _from_folder(path: Path) -> ReleaseSource:
    contents = _recognise(path, _folder_entries(path))
    return contents.source(path, _folder_name(path), contents.digest())


def _from_program(path: Path) -> ReleaseSource:
    entries = _folder_entries(path.parent, deep=False)
    program = next(entry for entry in entries if entry.path.name == path.name)
    if (parsed := _program(program)) is None:
        raise _unrecognised(path, [program])
    contents = _binary(path, program, parsed, entries)
    return contents.source(path, _folder_name(path.parent), contents.digest())


def _recognise(path: Path, entries: Sequence[TarEntry]) -> _Contents:
    programs = [(entry, parsed) for entry in entries if (parsed := _program(entry))]
    if len(programs) > 1:
        listed = ", ".join(entry.name for entry, _ in programs)
        raise ExportError(f"{path}: wanted one program, got {len(programs)}: {listed}; name one of these files")
    if programs:
        return _binary(path, *programs[0], entries)
    streams: dict[PurePosixPath, list[TarEntry]] = defaultdict(list)
    for entry in entries:
        if _is_stream(entry):
            streams[PurePosixPath(entry.name).parent].append(entry)
    if not streams:
        raise _unrecognised(path, entries)
    if len(streams) > 1:
        listed = ", ".join(sorted(map(str, streams))[:5])
        raise ExportError(f"{path}: wanted the variables in one folder, got {len(streams)} folders: {listed}")
    (found,) = streams.values()
    return _Contents(None, _separate(found), frozenset(entry.name for entry in found), _by_name(entries))


def _binary(path: Path, program: TarEntry, parsed: _Parsed, entries: Sequence[TarEntry]) -> _Contents:
    """A program and its parameters, in one file or in one each, all in the program's folder."""
    shapes = parsed.shapes
    folder = PurePosixPath(program.name).parent
    beside = {
        PurePosixPath(entry.name).name: entry
        for entry in entries
        if PurePosixPath(entry.name).parent == folder and entry is not program
    }
    present = [beside[name] for name in shapes if name in beside]
    if present and len(present) < len(shapes):
        missing = min(shapes.keys() - beside.keys())
        raise ExportError(f"{path}: {program.name} has {len(shapes)} variables, {len(present)} found: no {missing}")
    if present or not shapes:
        variables = _separate(present)
    else:
        params = _params_file(path, program, beside)
        variables = read_params(params.path, list(shapes), params.offset, params.size)
        present = [params]
    for name, variable in variables.items():
        if min(shapes[name], default=0) >= 0 and variable.shape != shapes[name]:
            wanted, got = list(shapes[name]), list(variable.shape)
            raise ExportError(f"{path}: variable {name}: {program.name} declares {wanted}, got {got}")
    used = frozenset(entry.name for entry in (program, *present))
    return _Contents(parsed, variables, used, _by_name(entries))


def _params_file(path: Path, program: TarEntry, beside: Mapping[str, TarEntry]) -> TarEntry:
    name = PurePosixPath(program.name)
    for usual in (PARAMS_NAMES.get(name.name, ""), f"{name.stem}.pdiparams"):
        if usual in beside:
            return beside[usual]
    streams = [entry for entry in beside.values() if _is_stream(entry)]
    if len(streams) != 1:
        listed = ", ".join(sorted(beside)[:10]) or "nothing else"
        raise ExportError(f"{path}: wanted the parameters of {program.name} beside it, got {listed}")
    return streams[0]


def _program(entry: TarEntry) -> _Parsed | None:
    """A program file; None for any other file. Raises: ExportError if only the name is a program's."""
    name = PurePosixPath(entry.name)
    expected = name.name in PARAMS_NAMES or name.suffix == ".pdmodel"
    head = entry.read(256)
    if looks_like_pir(head):
        data = entry.read(MAX_PROGRAM_BYTES + 1)
        return _Parsed("pir", data, parse_pir(data, f"{entry.path}: {entry.name}").parameters)
    # Field 1, blocks, comes first in what protobuf writes; the check also spares loading Paddle for a train model.
    if looks_like_variable(head) or not (expected or (head[:1] == b"\x0a" and entry.size <= MAX_PROGRAM_BYTES)):
        return None
    data = entry.read(MAX_PROGRAM_BYTES + 1)
    try:
        return _Parsed("binary", data, declared_shapes(parse_program(data, f"{entry.path}: {entry.name}")))
    except ExportError:
        if expected:
            raise
        return None


def _is_stream(entry: TarEntry) -> bool:
    """Whether the file is, or was to be, variables: an empty one has no content to tell, `labels.txt` is none."""
    head = entry.read(16)
    return looks_like_variable(head) if head else not PurePosixPath(entry.name).suffix[1:].isalpha()


def _separate(entries: Sequence[TarEntry]) -> dict[str, Variable]:
    named = sorted((PurePosixPath(entry.name).name, entry) for entry in entries)
    return {name: read_variable(entry.path, name, entry.offset, entry.size) for name, entry in named}


def _folder_entries(folder: Path, *, deep: bool = True) -> list[TarEntry]:
    entries = []
    try:
        for root, folders, names in os.walk(folder):
            folders[:] = sorted(folders) if deep else []
            for name in sorted(names):
                path = Path(root, name)
                relative = path.relative_to(folder).as_posix()
                if not _is_leftover(relative) and path.is_file():
                    entries.append(TarEntry(relative, path, 0, path.stat().st_size))
            if len(entries) > MAX_MEMBERS:
                raise ExportError(f"{folder}: wanted at most {MAX_MEMBERS} files, got more")
    except OSError as error:
        raise ExportError(f"{folder}: {error}") from error
    return entries


def _is_leftover(name: str) -> bool:
    """Hidden files, and what macOS and old tar programs leave beside real ones."""
    return any(part.startswith((".", "PaxHeaders", "__MACOSX")) for part in PurePosixPath(name).parts)


def _unrecognised(path: Path, entries: Sequence[TarEntry]) -> ExportError:
    listed = ", ".join(entry.name for entry in entries[:5]) + (", ..." if len(entries) > 5 else "")
    return ExportError(
        f"{path}: wanted Paddle variable files, or a program (model, __model__, *.pdmodel, *.json of Paddle 3) with "
        f"its parameters, in a folder or a tar; got {f'{len(entries)} other files: {listed}' if entries else 'no file'}"
    )


def _by_name(entries: Sequence[TarEntry]) -> dict[str, TarEntry]:
    return {entry.name: entry for entry in entries}


def _tar_name(path: Path, entries: Sequence[TarEntry]) -> str:
    folders = {PurePosixPath(entry.name).parts[0] for entry in entries if "/" in entry.name}
    ending = next((ending for ending in sorted(TAR_ENDINGS, key=len, reverse=True) if path.name.endswith(ending)), "")
    return folders.pop() if len(folders) == 1 else path.name.removesuffix(ending)


def _folder_name(path: Path) -> str:
    path = path.resolve()
    return path.parent.name if path.name == PROGRAM_FOLDER else path.name


def _whole(path: Path) -> TarEntry:
    return TarEntry("", path, 0, path.stat().st_size)


def _sha256(entry: TarEntry) -> str:
    digest = hashlib.sha256()
    with open_binary(entry.path) as file:
        file.seek(entry.offset)
        left = entry.size
        while left and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
