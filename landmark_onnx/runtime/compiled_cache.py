"""What a runtime makes of a model for this very machine, in the store: rebuilt when stale or broken, never trusted.

`machine/STEM-HASH/KEY/` holds the files of one entry and a manifest: the facts that it was made for, and the size and
hashes of each file. An entry appears whole by a rename. Without one, for whatever reason, a model loads as it is.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from landmark_onnx.errors import ModelFileError, reason_of
from landmark_onnx.files.atomic import atomic_write, publish
from landmark_onnx.files.documents import read_json
from landmark_onnx.files.hashing import block_hash, blocks, intact
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.modelfile.metadata import read_seal
from landmark_onnx.runtime.cpu import available_cores, cpu_model
from landmark_onnx.store.catalogue import home

logger = logging.getLogger(__name__)

S = TypeVar("S")

VARIABLE = "LANDMARK_ONNX_MACHINE_CACHE"
"""Set to 0 it turns the cache off."""

LEAST_BYTES = 4 << 20
"""Smaller models load in no time anyway."""
KEPT = 4
"""Entries of one file: it may run on several providers, under several versions, on machines that share a store."""
SPARE = 256 << 20
"""Bytes that are to stay free on the disk."""
MANIFEST = "entry.json"


def folder() -> Path:
    """Where every entry is."""
    return home() / "machine"


def folder_of(model: Path) -> Path:
    """Where the entries of one model file are."""
    place = hashlib.sha256(os.fsencode(model.resolve())).hexdigest()
    return folder() / f"{model.stem}-{place[:12]}"


def entry_of(model: Path, **facts: Any) -> "CacheEntry | None":
    """The entry, there or not, of a model file for what runs it; None for a file that is not to have any.

    facts: JSON-ready; all that an entry depends on beside the file and the CPU: the runtime and its version, its
    options, its device. A file without a seal has no entry, for nothing tells whether it is still the same.
    """
    if os.environ.get(VARIABLE, "").strip().lower() in ("0", "off", "no", "false") or model.suffix != ".onnx":
        return None
    try:
        seal, weights = read_seal(model), external_data(model)
        files = [path.stat() for path in (model, weights) if path]
    except (ModelFileError, OSError) as error:
        logger.info("%s: not kept in a form for this machine: %s", model, error)
        return None
    if seal is None or sum(status.st_size for status in files) < LEAST_BYTES:
        why = "it has no seal" if seal is None else "it is small"
        logger.info("%s: not kept in a form for this machine: %s", model, why)
        return None
    versions = [[status.st_size, status.st_mtime_ns] for status in files]
    name, features = cpu_model()
    whole = {"file": {"seal": seal.sha256, "versions": versions}, "cpu": [name, sorted(features)], **facts}
    key = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    return CacheEntry(folder_of(model) / key[:24], whole)


@dataclasses.dataclass(frozen=True, slots=True)
class CacheEntry:
    """A folder, which may not be there yet, and the facts that what is in it must have been made for."""

    path: Path
    facts: Mapping[str, Any]

    def load(self, start: Callable[[Path], S], *, meanwhile: Sequence[str] = ()) -> S | None:
        """What `start` makes of the folder, None if the entry is missing, stale or broken.

        meanwhile: names of files that are hashed while `start` is at work, because broken ones crash no runtime.
        """
        started = self._started(start, meanwhile)
        logger.info("%s: %s", self.path, "not there, or not to be used" if started is None else "used")
        return started

    def _started(self, start: Callable[[Path], S], meanwhile: Sequence[str]) -> S | None:
        files = self._files()
        if files is None:
            return None
        before = [name for name in files if name not in meanwhile]
        with ThreadPoolExecutor(min(4, available_cores())) as pool:
            if not all(check.result() for check in self._checks(files, before, pool)):
                return None
            rest = self._checks(files, [name for name in files if name in meanwhile], pool)
            try:
                started = start(self.path)
            except Exception:  # runtimes' exceptions have no public base class; a load without the entry tells
                logger.info("%s: cannot be loaded", self.path, exc_info=True)
                return None
            if not all(check.result() for check in rest):
                return None
        with contextlib.suppress(OSError):
            os.utime(self.path / MANIFEST)
        return started

    def build(self, write: Callable[[Path], None]) -> str:
        """Have `write` fill a new folder, and put it in place; answers why that did not work, or nothing.

        Where another process is building, this one does without. Older entries of the same file are dropped.
        """
        try:
            with self._alone():
                if self._files() is None or self.load(lambda _: True) is None:
                    self._build(write)
                    self._drop_others()
        except Exception as error:  # a runtime's exceptions have no public base class, and nothing here is needed
            logger.info("%s: cannot be made", self.path, exc_info=True)
            return reason_of(error)
        return ""

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path | None]:
        """The folder for a runtime that reads and writes there as it likes; None where it cannot be written.

        What is not listed, or not as it was, is removed before; what is there in the end is listed.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._alone())
                self._clean()
            except (OSError, RuntimeError) as error:
                logger.info("%s: cannot be used: %s", self.path, error)
                yield None
                return
            yield self.path
            with contextlib.suppress(OSError):
                _write_manifest(self.path, self.facts)
                self._drop_others()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Raises: OSError in a folder that cannot be written, RuntimeError if another process has the lock."""
        import filelock

        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path.parent / ".lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise RuntimeError("another process is preparing this model") from None
        try:
            yield
        finally:
            lock.release()

    def _files(self) -> dict[str, dict[str, Any]] | None:
        """The manifest's files, None unless it was made for these facts and each is there in its size."""
        try:
            manifest = read_json(self.path / MANIFEST)
            files: dict[str, dict[str, Any]] = manifest["files"]
            whole = manifest["facts"] == _plain(self.facts) and all(
                (self.path / name).stat().st_size == file["size"] and len(file["sha256"]) == blocks(file["size"])
                for name, file in files.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return files if whole else None

    def _checks(
        self, files: Mapping[str, Mapping[str, Any]], names: Sequence[str], pool: ThreadPoolExecutor
    ) -> list[Future[bool]]:
        """Whether each block of those files is what the manifest says."""
        return [
            pool.submit(intact, self.path / name, number, digest)
            for name in names
            for number, digest in enumerate(files[name]["sha256"])
        ]

    def _build(self, write: Callable[[Path], None]) -> None:
        self._need_space()
        for leftover in self.path.parent.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.tmp")
        temporary.mkdir()
        try:
            write(temporary)
            _write_manifest(temporary, self.facts)
            if self.path.exists():
                shutil.rmtree(self.path)
            publish(temporary, self.path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _need_space(self) -> None:
        wanted = 2 * sum(size for size, _ in self.facts["file"]["versions"]) + SPARE
        free = shutil.disk_usage(self.path.parent).free
        if free < wanted:
            raise OSError(f"{self.path.parent}: {free / 1e9:.1f} GB free, wanted {wanted / 1e9:.1f}")

    def _clean(self) -> None:
        files = self._files() or {}
        self.path.mkdir(exist_ok=True)
        for path in self.path.iterdir():
            listed = files.get(path.name, {"sha256": [""]})["sha256"]
            if not all(intact(path, number, digest) for number, digest in enumerate(listed)):
                path.unlink()

    def _drop_others(self) -> None:
        """Keep the entries of the file as it is now, and of these the ones used last."""
        kept = []
        for other in self.path.parent.iterdir():
            if other.name.startswith("."):
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                manifest = read_json(other / MANIFEST)
                if manifest["facts"]["file"] == _plain(self.facts["file"]):
                    kept.append(((other / MANIFEST).stat().st_mtime_ns, other))
                    continue
            shutil.rmtree(other, ignore_errors=True)
        for _, other in sorted(kept)[:-KEPT]:
            shutil.rmtree(other, ignore_errors=True)


def _write_manifest(path: Path, facts: Mapping[str, Any]) -> None:
    """List what is in a folder, once it is on the disk."""
    files = {}
    for file in sorted(path.iterdir()):
        if file.name == MANIFEST:
            continue
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        size = file.stat().st_size
        files[file.name] = {"size": size, "sha256": [block_hash(file, number) for number in range(blocks(size))]}
    with atomic_write(path / MANIFEST) as handle:
        handle.write(json.dumps({"facts": facts, "files": files}, indent=1).encode())


def _plain(facts: Mapping[str, Any]) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(facts))
