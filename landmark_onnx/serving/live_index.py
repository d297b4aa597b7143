"""Indexes that are served while others change them: each request has one state, and a new state takes its place."""

import dataclasses
import hashlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from landmark_onnx.embedding.manifest import ModelIdentity
from landmark_onnx.errors import LandmarkError
from landmark_onnx.images.ids import IdRule
from landmark_onnx.recognition.landmark_labels import FOLDERS, LandmarkLabels
from landmark_onnx.search.answers import StoredRow
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.index import Index
from landmark_onnx.search.manifest import FILE, IndexManifest
from landmark_onnx.search.open import AnyIndex, open_index
from landmark_onnx.search.qdrant import QdrantIndex
from landmark_onnx.serving.id_table import IdTable

INTERVAL = 1.0
"""Seconds between two looks at an index."""
RETRY = 30.0
"""Seconds until a state that was refused is tried again."""

Stamp: TypeAlias = tuple[tuple[int, ...] | None, ...]
"""What the files that matter look like from outside; None: there is no such file."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Snapshot:
    """One state of an index, with what requests need of it; two of them are never equal.

    name: of the index. rows: as many as there are. generation: of its files, which adding rows keeps, and removing does
    not; 0 of an index in Qdrant. digest: another one for whatever else is in the index, "" of one in Qdrant. table:
    where ids are, None of one in Qdrant, which knows. labels: landmarks, None if nobody gave any. labelled: which state
    of their file.
    """

    name: str
    index: AnyIndex
    rows: int
    generation: int = 0
    digest: str = ""
    table: IdTable | None = None
    labels: LandmarkLabels | None = None
    labelled: Stamp = ()

    @property
    def ensemble(self) -> Ensemble:
        """What its vectors are made of."""
        return self.index.ensemble

    def landmark(self, name: str) -> str | None:
        """The landmark of an image; without labels each is a landmark of its own, called by its id."""
        return self.labels.landmark(name) if self.labels else name

    @property
    def labels_name(self) -> str | None:
        """Where landmarks are from: a file without its folder, or a word for it; None without labels."""
        return os.path.basename(self.labels.labels) if self.labels else None  # noqa: PTH119  # of a word too

    def find(self, name: str) -> StoredRow | None:
        """The row of the image with this id, None if there is none. Raises: SearchError if a server does not answer."""
        if isinstance(self.index, Index):
            row = self.table.find(name) if self.table else None
            return None if row is None else StoredRow(self.index.vectors[row], self.index.sources[row])
        assert isinstance(self.index, QdrantIndex)
        return self.index.find(name)

    def facts(self) -> dict[str, Any]:
        """JSON-ready data for clients, without a path."""
        approximate = self.index.manifest.approximate if isinstance(self.index, Index) else None
        return {
            "name": self.name,
            "rows": self.rows,
            "generation": self.generation,
            **self.ensemble.facts(),
            "models": [model.name for model in self.ensemble.models],
            "approximate": approximate.describe() if approximate else None,
            "labels": self.labels_name,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelSource:
    """Where landmarks are from: a CSV or a word, and a rule for ids, as `LandmarkLabels.read` takes them."""

    labels: str
    rule: IdRule | None = None


class IndexEvents(Protocol):
    """Who wants to know of an index's states; called by its thread, and once by who opens it."""

    def index_opened(self, index: str, rows: int, generation: int) -> None:
        """A state is served from now on."""

    def index_reloaded(self, index: str, outcome: Literal["ok", "refused"]) -> None:
        """A new state was found."""


class LiveIndex:
    """An index as it is now. `start` has a thread look for a new state each second, which `close` ends.

    An index in Qdrant has one state: its server answers with the rows that it has by then, and how many these are is
    counted once. An approximate index is read before a new state is served: a graph as a whole, compressed rows mapped.
    """

    def __init__(
        self, name: str, folder: Path, *, labels: LabelSource | None = None, events: IndexEvents | None = None
    ) -> None:
        """Open it. Raises: SearchError, TableError, MissingExtraError."""
        self.name = name
        self._folder = folder
        self._source = labels
        self._events = events
        self._models: Sequence[ModelIdentity] | None = None
        self._wake = threading.Condition()
        self._asked = self._closed = False
        self._retry = float("inf")
        self._thread: threading.Thread | None = None
        self._stamp = self._look()
        read = LandmarkLabels.read(labels.labels, labels.rule) if labels else None
        self._serve(self._opened(open_index(folder), read, self._stamp[1:]))

    @property
    def current(self) -> Snapshot:
        """The state that new requests get."""
        return self._current

    def serve_with(self, models: Sequence[ModelIdentity]) -> None:
        """Tell which models are loaded: new states of others are refused. Raises: SearchError if this one is."""
        self._check(self._current.ensemble, models)
        self._models = models

    def start(self) -> None:
        """Look for new states from now on."""
        if isinstance(self._current.index, Index):
            self._thread = threading.Thread(target=self._watch, name=f"index {self.name}", daemon=True)
            self._thread.start()

    def reload(self) -> None:
        """Have the thread look now, whatever the files look like from outside; as a hang-up signal asks for."""
        with self._wake:
            self._asked = True
            self._wake.notify()

    def close(self, timeout: float | None = None) -> None:
        """End the thread, and leave a server. timeout: seconds to wait for it, by default as long as it takes."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread:
            self._thread.join(timeout)
        self._current.index.close()

    def refresh(self, *, force: bool = False) -> None:
        """Look at the files, and if they are new, or by `force`, open what is there: what the thread does.

        A state that cannot be opened, or is of other models, is logged and refused: the former one stays.
        """
        stamp = self._look()
        if stamp == self._stamp and not force and time.monotonic() < self._retry:
            return
        try:
            fresh = self._fresh(stamp[1:])
        except (LandmarkError, OSError) as error:
            logger.warning("index %s: its new state is refused, and the former served on: %s", self.name, error)
            self._refuse(stamp)
        except Exception:
            logger.exception("index %s: its new state cannot be opened, and the former is served on", self.name)
            self._refuse(stamp)
        else:
            self._stamp, self._retry = stamp, float("inf")
            if fresh is not None:
                self._serve(fresh)
                self._tell("ok")

    def _watch(self) -> None:
        while True:
            with self._wake:
                if not (self._asked or self._closed):
                    self._wake.wait(INTERVAL)
                if self._closed:
                    return
                asked, self._asked = self._asked, False
            self.refresh(force=asked)

    def _refuse(self, stamp: Stamp) -> None:
        self._stamp, self._retry = stamp, time.monotonic() + RETRY
        self._tell("refused")

    def _serve(self, fresh: Snapshot) -> None:
        self._current = fresh
        logger.info("index %s: %s", self.name, fresh.index.describe())
        if self._events:
            self._events.index_opened(self.name, fresh.rows, fresh.generation)

    def _tell(self, outcome: Literal["ok", "refused"]) -> None:
        if self._events:
            self._events.index_reloaded(self.name, outcome)

    def _look(self) -> Stamp:
        csv = [Path(self._source.labels)] if self._source and self._source.labels != FOLDERS else []
        return tuple(_stamp(path) for path in (self._folder / FILE, *csv))

    def _fresh(self, labelled: Stamp) -> Snapshot | None:
        """The state that is there, None if it is the one served. Raises: LandmarkError, OSError."""
        index, labels = open_index(self._folder), self._current.labels
        if labelled != self._current.labelled and self._source:
            labels = LandmarkLabels.read(self._source.labels, self._source.rule)
        elif isinstance(index, Index) and digest(index.manifest) == self._current.digest:
            return None
        self._check(index.ensemble, self._models)
        return self._opened(index, labels, labelled)

    def _check(self, ensemble: Ensemble, models: Sequence[ModelIdentity] | None) -> None:
        if models is not None:
            ensemble.check(models, f"index {self.name}", "the loaded models")

    def _opened(self, index: AnyIndex, labels: LandmarkLabels | None, labelled: Stamp) -> Snapshot:
        """Make what requests need. Raises: SearchError, TableError if no id has a landmark, MissingExtraError."""
        index.check()
        if labels and (warning := labels.check(index.ids, f"index {self.name}")):
            logger.warning("%s", warning)
        fresh = Snapshot(self.name, index, len(index), labels=labels, labelled=labelled)
        if not isinstance(index, Index):
            return fresh
        index.load()
        generation, state = index.manifest.generation, digest(index.manifest)
        return dataclasses.replace(fresh, generation=generation, digest=state, table=IdTable(index.ids))


def digest(manifest: IndexManifest) -> str:
    """16 hexadecimal digits that say which state this is: of what is in each of its files, whatever made them."""
    whitening = manifest.ensemble.whitening
    facts = (manifest.generation, sorted(manifest.files.items()), manifest.ensemble.members, manifest.approximate)
    text = repr((*facts, whitening.file if whitening else None))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino, state.st_size
