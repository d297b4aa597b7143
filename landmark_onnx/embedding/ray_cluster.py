"""The same job on a Ray cluster: a shard is the unit of work, and each worker holds the models for as long as it lives.

Workers write their shards where one process would, so a shard that is made twice, because a worker died after it, is
one file with the same rows; and a job that began on one machine may go on on many, or the other way round.
"""

import contextlib
import dataclasses
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.embedding.extract import Extractor
from landmark_onnx.embedding.job import FinishedShard, Job, Work
from landmark_onnx.errors import FeatureError, LandmarkError
from landmark_onnx.extras import extra
from landmark_onnx.images.decode import ReadOptions
from landmark_onnx.images.decode import logger as images_log
from landmark_onnx.model import Retriever
from landmark_onnx.runtime.providers import ProviderRequest

LOCAL = "local"
LOCAL_WORKERS = 2
STORE_BYTES = 80 << 20
"""Of a local cluster's object store, about the least that Ray takes: what passes through it are numbers of shards."""

CONNECT_SECONDS = 10.0

GPU_PROVIDERS = frozenset({"cuda", "tensorrt"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerModel:
    """How a worker loads a model: the arguments of `Retriever`. path: as every machine of the cluster sees it."""

    path: Path
    provider: ProviderRequest
    threads: int
    batch_size: int
    reading: ReadOptions
    card: ModelCard | None

    def load(self) -> Retriever:
        """The model."""
        return Retriever(
            self.path,
            provider=self.provider,
            threads=self.threads,
            batch_size=self.batch_size,
            max_pixels=self.reading.max_pixels,
            damaged=self.reading.damaged,
            card=self.card,
        )


class ShardMaker:
    """A worker: loads the models once, then makes shards by their numbers."""

    def __init__(self, job: Job, recipes: Sequence[WorkerModel]) -> None:
        self._job = job
        models = {retriever.card.name: retriever for retriever in (recipe.load() for recipe in recipes)}
        self._extractor = Extractor(manifest=job.manifest, models=models)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """{"number": shards} -> the fields of the `FinishedShard` of each, or why it could not be made, and warnings.

        An error goes as data: raised, it would come out of Ray in a stack of its own. So do warnings of images, a list
        in JSON: what a worker logs is seen by nobody.
        """
        answers = [self._make(int(number)) for number in batch["number"]]
        return {key: [answer[key] for answer in answers] for key in answers[0]}

    def _make(self, number: int) -> dict[str, Any]:
        made, reason = FinishedShard(number, 0, ""), ""
        with _warnings() as warnings:
            try:
                made = self._job.make(number, self._extractor)
            except LandmarkError as error:
                reason = str(error)
        return {**dataclasses.asdict(made), "error": reason, "warnings": json.dumps(warnings)}


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """What is said of images meanwhile, in a list that grows."""
    handler = _Kept()
    images_log.addHandler(handler)
    try:
        yield handler.messages
    finally:
        images_log.removeHandler(handler)


def on_ray(address: str, recipes: Sequence[WorkerModel], workers: int = 0) -> Work:
    """Work on the cluster at `address`, or on one that is started here for the time ("local").

    workers: copies of the models; 0 for one on each machine, or on each GPU where the models run on GPUs.
    Raises, when it works: MissingExtraError; FeatureError if there is no such cluster, or the work fails there.
    """

    def work(job: Job, numbers: Sequence[int], on_done: Callable[[int], None]) -> Iterator[FinishedShard]:
        if not numbers:
            return
        everywhere = dataclasses.replace(job, folder=job.folder.resolve(), plan=job.plan.resolve())
        count = workers or (LOCAL_WORKERS if address == LOCAL else 0)
        with _cluster(address, count) as ray:
            for made in _made(ray, everywhere, numbers, recipes, count):
                on_done(job.rows(made.number))
                yield made

    return work


def _made(
    ray: Any, job: Job, numbers: Sequence[int], recipes: Sequence[WorkerModel], workers: int
) -> Iterator[FinishedShard]:
    gpu = any(recipe.provider.name.lower() in GPU_PROVIDERS for recipe in recipes)
    machines = sum(node["Alive"] for node in ray.nodes())
    count = workers or (int(ray.cluster_resources().get("GPU", 0)) if gpu else machines) or 1
    # A block for each shard: a worker that dies costs one shard, not a block of them.
    rows = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
    # Ray Data restarts an actor that died, and gives its work to another, as often as it takes.
    made = rows.map_batches(
        ShardMaker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(count, len(numbers))),
        fn_constructor_args=(job, recipes),
        num_cpus=1,
        num_gpus=1 if gpu else None,
    )
    try:
        for row in made.iter_rows():
            for warning in json.loads(row["warnings"]):
                images_log.warning("%s", warning)
            if row["error"]:
                raise FeatureError(f"the work failed on the cluster: {row['error']}")
            yield FinishedShard(int(row["number"]), int(row["failed"]), str(row["sha256"]))
    except ray.exceptions.RayError as error:
        raise FeatureError(f"the work failed on the cluster: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """What a worker raised, our own error if there is one: Ray puts its stack before it, and advice after it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    own = [line.partition(": ")[2] for line in lines if line.startswith(f"{LandmarkError.__module__}.")]
    return (own or lines)[-1]


@contextlib.contextmanager
def _cluster(address: str, workers: int) -> Iterator[Any]:
    """Ray, connected, saying nothing and reporting to nobody; disconnected in the end."""
    ray = _load_ray()
    settings: dict[str, Any] = {"address": address, "logging_level": "ERROR", "log_to_driver": False}
    if address == LOCAL:
        settings |= {"num_cpus": workers, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    _reach(address)
    try:
        ray.init(**settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FeatureError(f"--ray {address}: no Ray cluster answers there: {reason}") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def check_cluster(address: str) -> None:
    """What can be said before the work. Raises: MissingExtraError; FeatureError if nobody listens there."""
    _load_ray()
    _reach(address)


def _load_ray() -> Any:
    # Ray reads these when it is imported or started.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with extra("ray", what="ray"):
        import ray
        import ray.data
    return ray


def _reach(address: str) -> None:
    """Ray tries an address for minutes before it gives up: ask whether anybody listens there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise FeatureError(f"--ray {address}: no Ray cluster answers there: {error}") from error
