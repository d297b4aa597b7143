"""An index whose rows a Qdrant server keeps, for more of them than one machine holds.

A folder says where: `qdrant.json` has address, collection and ensemble. A row is a point: vector, id, source and
position, and as key a UUID made of the id, so that whatever is sent twice is there once. The server takes rows as they
come: a change that is killed leaves those sent so far; the same command with --replace completes it.
"""

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from landmark_onnx.errors import SearchError
from landmark_onnx.files.documents import read_json
from landmark_onnx.files.structure import DocumentError
from landmark_onnx.search.answers import Answer, Hit, StoredRow
from landmark_onnx.search.contents import remedy
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.exact import SPARE, check_queries
from landmark_onnx.search.qdrant_place import FILE, Place
from landmark_onnx.search.qdrant_server import asking, connect
from landmark_onnx.search.texts import absent
from landmark_onnx.types import Float32

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from landmark_onnx.embedding.feature_folder import Batch
    from landmark_onnx.search.queries import Queries
    from landmark_onnx.search.rerank.state import Step

POINTS_AT_ONCE = 256
"""Half a megabyte of 512 values each: servers refuse requests of more than 32."""
QUERIES_AT_ONCE = 32
KEYS = uuid.UUID("5d0f3c9e-2b1a-4f0e-9d53-6a1f8c7e4b20")
"""The namespace of the points' UUIDs."""


class QdrantIndex:
    """An open index. Every call raises SearchError if the server does not answer, or refuses."""

    def __init__(self, folder: Path, place: Place, client: "QdrantClient | None" = None) -> None:
        """client: what asks the server, by default one for the place's address."""
        self.folder = folder
        self.place = place
        self._client = client or connect(place.url)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The index that qdrant.json in `folder` names. Raises: SearchError, MissingExtraError."""
        return cls(folder, Place.read(folder))

    @property
    def ensemble(self) -> Ensemble:
        """What the vectors are made of."""
        return self.place.ensemble

    def __len__(self) -> int:
        with asking(self.place.url):
            return self._client.count(self.place.collection, exact=True).count

    def answer(
        self, queries: "Queries", top: int, *, steps: "Sequence[Step]" = (), approximate: bool = False
    ) -> Iterator[Answer]:
        """The neighbours of each query; scored again in float64, as an embedded index does. Raises: SearchError.

        approximate: by the server's graph. The server decides which rows are candidates, SPARE more than wanted.
        """
        self._check_steps(steps)
        check_queries(queries.vectors, self.ensemble.dim, top)
        for start in range(0, len(queries.names), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            found = self._ask(queries.vectors[part], top + SPARE, approximate=approximate)
            rows = zip(queries.names[part], queries.sources[part], queries.vectors[part], found, strict=True)
            for name, source, vector, points in rows:
                yield Answer(name, source, _hits(vector, points, top), queries.are_ids)

    def find(self, name: str) -> StoredRow | None:
        """The row of the image with this id, None if there is none."""
        with asking(self.place.url):
            points = self._client.retrieve(
                self.place.collection, ids=[_key(name)], with_payload=["source"], with_vectors=True
            )
        rows = [(np.array(point.vector, np.float32), point.payload) for point in points]
        return next((StoredRow(vector, payload["source"]) for vector, payload in rows if payload), None)

    def check(self, *, steps: "Sequence[Step]" = (), approximate: bool = False) -> None:
        """Raises: SearchError for steps, or if the server does not answer, or has lost the collection."""
        self._check_steps(steps)
        with asking(self.place.url):
            there = self._client.collection_exists(self.place.collection)
        if not there:
            url, collection = self.place.url, self.place.collection
            raise SearchError(f"{url}: has no collection {collection}; {remedy(self.folder, url=url)}")

    def add(self, batches: "Iterable[Batch]", *, replace: bool = False) -> None:
        """Send rows. Raises: SearchError at the first ids that are there already, unless `replace`."""
        sent = self.place.following
        try:
            for batch in batches:
                vectors = self.ensemble(batch.vectors)
                for start in range(0, len(batch.ids), POINTS_AT_ONCE):
                    part = slice(start, start + POINTS_AT_ONCE)
                    if not replace:
                        self._check_new(batch.ids[part])
                    self._send(batch.ids[part], batch.sources[part], vectors[part], sent)
                    sent += len(batch.ids[part])
        finally:
            self.place = dataclasses.replace(self.place, following=sent)
            self.place.write(self.folder)

    def remove(self, ids: Collection[str]) -> None:
        """Delete rows. Raises: SearchError if an id is not there, and then removes none."""
        unwanted = sorted(set(ids))
        if missing := sorted(set(unwanted) - self._there(unwanted)):
            raise absent(self.folder, len(missing), unwanted, missing[0], self.ids)
        with asking(self.place.url):
            for start in range(0, len(unwanted), POINTS_AT_ONCE):
                keys: list[Any] = [_key(name) for name in unwanted[start : start + POINTS_AT_ONCE]]
                self._client.delete(self.place.collection, points_selector=keys, wait=True)

    def verify(self, on_done: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Raises: SearchError."""
        raise SearchError(f"{self.folder}: its rows are in Qdrant, which checks its files itself: no SHA-256 is here")

    def close(self) -> None:
        """Leave the server."""
        self._client.close()

    def describe(self) -> str:
        """What there is, in a line."""
        return f"{len(self):,} rows of {self.ensemble.describe()}, in {self.place.collection} of {self.place.url}"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        place = {"qdrant": self.place.url, "collection": self.place.collection}
        return {"index": str(self.folder), "rows": len(self), **place, **self.ensemble.facts()}

    def _check_steps(self, steps: "Sequence[Step]") -> None:
        if steps:
            raise SearchError(f"{self.folder}: its vectors are in Qdrant, and steps need them here; leave out --step")

    def _ask(self, vectors: Float32, limit: int, *, approximate: bool) -> list[Any]:
        with asking(self.place.url):
            from qdrant_client import models

            # The embedded mode is exact always, and warns of parameters.
            served = self.place.url.startswith("http")
            requests = [
                models.QueryRequest(
                    query=vector.tolist(),
                    limit=limit,
                    with_payload=True,
                    with_vector=True,
                    params=models.SearchParams(exact=not approximate) if served else None,
                )
                for vector in vectors
            ]
            return [answer.points for answer in self._client.query_batch_points(self.place.collection, requests)]

    def _send(self, ids: Sequence[str], sources: Sequence[str], vectors: Float32, position: int) -> None:
        with asking(self.place.url):
            from qdrant_client import models

            payloads = [
                {"id": name, "source": source, "position": position + at}
                for at, (name, source) in enumerate(zip(ids, sources, strict=True))
            ]
            points = models.Batch(ids=[_key(name) for name in ids], vectors=vectors.tolist(), payloads=payloads)
            self._client.upsert(self.place.collection, points=points, wait=True)

    def _check_new(self, ids: Sequence[str]) -> None:
        there = self._there(ids)
        if there or len(set(ids)) < len(ids):
            found = sorted(there) or sorted({name for name in ids if ids.count(name) > 1})
            raise SearchError(
                f"{self.folder}: {len(found)} ids are in the index already, or appear twice, such as {found[0]}; "
                "the rows before them were sent; --replace sends all, and puts the new ones in their place"
            )

    @property
    def ids(self) -> Iterator[str]:
        """The ids, in no order, fetched a page at a time as they are asked for."""
        following = None
        while True:
            with asking(self.place.url):
                page, following = self._client.scroll(
                    self.place.collection, limit=POINTS_AT_ONCE, offset=following, with_payload=["id"]
                )
            yield from (point.payload["id"] for point in page if point.payload)
            if following is None:
                return

    def _there(self, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that the server has."""
        found: set[str] = set()
        with asking(self.place.url):
            for start in range(0, len(ids), POINTS_AT_ONCE):
                keys = [_key(name) for name in ids[start : start + POINTS_AT_ONCE]]
                points = self._client.retrieve(self.place.collection, ids=keys, with_payload=["id"])
                found |= {point.payload["id"] for point in points if point.payload}
        return found


def build(
    folder: Path,
    place: Place,
    batches: "Iterable[Batch]",
    *,
    replace: bool = False,
    client: "QdrantClient | None" = None,
) -> QdrantIndex:
    """Make the collection of `place` of `batches`, and the folder that names it.

    replace: a collection of that name is deleted first. Raises: SearchError if there is one and not `replace`, if an id
    appears twice, or if the server does not answer; MissingExtraError.
    """
    url, collection = place.url, place.collection
    client = client or connect(url)
    check_build(folder, client, url=url, collection=collection, replace=replace)
    with asking(url):
        from qdrant_client import models

        if client.collection_exists(collection):
            client.delete_collection(collection)
        client.create_collection(
            collection,
            vectors_config=models.VectorParams(size=place.ensemble.dim, distance=models.Distance.DOT, on_disk=True),
        )
    folder.mkdir(parents=True, exist_ok=True)
    index = QdrantIndex(folder, place, client)
    index.add(batches)
    return index


def check_build(folder: Path, client: "QdrantClient", *, url: str, collection: str, replace: bool) -> None:
    """What `build` can refuse before the work. Raises: SearchError."""
    if (folder / "index.json").exists():
        raise SearchError(f"{folder}: has an index in its own files; name another folder")
    if (folder / FILE).exists():
        if not replace:
            raise SearchError(f"{folder}: has an index in Qdrant; add to it (index add), or --replace it")
        _check_ours(folder / FILE)
    with asking(url):
        if client.collection_exists(collection) and not replace:
            raise SearchError(f"{url}: has a collection {collection}; name another (--collection), or --replace it")


def _check_ours(path: Path) -> None:
    """Raises: SearchError unless a file is a `Place`'s, of whatever version."""
    with contextlib.suppress(DocumentError, TypeError):
        if read_json(path).keys() >= {"url", "collection", "ensemble"}:
            return
    raise SearchError(f"{path}: of no index, or too damaged to be replaced; delete it, or name another folder")


def _hits(vector: Float32, points: Sequence[Any], top: int) -> list[Hit]:
    """The candidates scored in float64: falling score, then rising position."""
    if not points:
        return []
    rows = np.array([point.vector for point in points], np.float32).astype(np.float64)
    scores = (rows * vector.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = np.lexsort(([point.payload["position"] for point in points], -scores))[:top].tolist()
    payloads = [points[at].payload for at in order]
    return [
        Hit(rank, payload["id"], float(scores[at]), payload["source"])
        for rank, (at, payload) in enumerate(zip(order, payloads, strict=True), 1)
    ]


def _key(name: str) -> str:
    return str(uuid.uuid5(KEYS, name))
