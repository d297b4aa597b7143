"""MLPerf's own load generator (package mlcommons-loadgen) as the one who asks."""

import collections
import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from landmark_onnx.errors import MissingExtraError
from landmark_onnx.extras import extra
from landmark_onnx.files.workfolders import temporary_folder
from landmark_onnx.inference.admission import QueueLimits
from landmark_onnx.inference.scheduler import Scheduler
from landmark_onnx_bench.single_stream import Responder
from landmark_onnx_bench.statistics import Window
from landmark_onnx_bench.targets import Scenario, Workload

PACKAGE = "mlcommons-loadgen"
MODULE = "mlperf_loadgen"
"""Not mlcommons_loadgen: in release 6.0 that is an empty package, which takes the other's place when it is imported."""

HASTE = 4
"""How much faster than its warm-up a contestant may become: the load generator makes its queries beforehand, by the
latency that it is told to expect, and a window ends early where it runs out of them."""

_SAMPLE = re.compile(r'"sample_seq":\d+,"query_seq":(\d+),"sample_idx":\d+,"issue_start_ns":-?\d+,"complete_ns":(\d+)')


class Clock:
    """When the first query came and the last answer went."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def query(self) -> None:
        """A query came."""
        self.first = self.first or time.perf_counter()

    def answer(self) -> None:
        """An answer went."""
        self.last = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Between the two."""
        return self.last - self.first


@dataclasses.dataclass(frozen=True, slots=True)
class SampleStage:
    """A contestant as a server runs it: an item is the index of a sample; that it is answered is all that counts."""

    responder: Responder
    batch_size: int
    name: str = "contestant"

    def kind(self, item: int) -> Hashable:
        """All samples are alike: the contestant sorts them itself."""
        return None

    def room(self, item: int) -> int:
        """How many run together."""
        return self.batch_size

    def run_batch(self, items: Sequence[int]) -> list[None]:
        """Raises: what answering raises."""
        collections.deque(self.responder(items), maxlen=0)
        return [None] * len(items)


def installed() -> bool:
    """Whether the load generator is here; it is not imported for that."""
    return importlib.util.find_spec(MODULE) is not None


def harness() -> str:
    """What asks the queries: the load generator with its version, or "built-in" where it is not installed."""
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}" if installed() else "built-in"


def check_scenario(scenario: Scenario) -> None:
    """Raises: MissingExtraError for one that needs the load generator, where it is not installed."""
    if scenario is not Scenario.SINGLE_STREAM and not installed():
        raise MissingExtraError(f"scenario {scenario} needs {PACKAGE}, which", "bench")


def generate(work: Workload, answer: Responder, batch_size: int, samples: int, rate: float) -> Window:
    """One window of the load generator, asking for `samples` samples by their index.

    rate: images per second of the warm-up, by which it makes its queries beforehand. Raises: MissingExtraError.
    """
    with extra("bench", what=PACKAGE):
        lg = importlib.import_module(MODULE)
    settings = _settings(lg, work, batch_size, rate)
    clock, counted = Clock(), [0]

    def complete(ids: list[int]) -> None:
        clock.answer()
        counted[0] += len(ids)
        lg.QuerySamplesComplete([lg.QuerySampleResponse(identity, 0, 0) for identity in ids])

    with temporary_folder() as folder:
        with _system(lg, work.scenario, answer, batch_size, clock, complete) as system:
            library = lg.ConstructQSL(samples, samples, lambda indices: None, lambda indices: None)
            try:
                lg.StartTestWithLogSettings(system, library, settings, _logs(lg, folder), "")
            finally:
                lg.DestroyQSL(library)
        latencies = _latencies((folder / "mlperf_log_trace.json").read_text(encoding="utf-8"))
    return Window(images=counted[0], seconds=clock.seconds, latencies=latencies)


@contextlib.contextmanager
def _system(
    lg: Any, scenario: Scenario, answer: Responder, batch_size: int, clock: Clock, complete: Callable[[list[int]], None]
) -> Iterator[Any]:
    """The system under test. Raises, at its end, what answering raised: an error must not cross the C++ between."""
    errors: list[BaseException] = []

    def offline(queries: list[Any]) -> None:
        clock.query()
        waiting = [query.id for query in queries]
        try:
            for number in answer([query.index for query in queries]):
                complete(waiting[:number])
                del waiting[:number]
        except Exception as error:
            errors.append(error)
            complete(waiting)

    def serve(queries: list[Any]) -> None:
        clock.query()
        for query in queries:
            scheduler.submit_ready(stage, query.index).add_done_callback(functools.partial(answered, query.id))

    def answered(query: int, future: Future[Any]) -> None:
        if error := future.exception():
            errors.append(error)
        complete([query])  # whatever came of it: the other side counts answers, and would wait for ever

    stage = SampleStage(answer, batch_size)
    with Scheduler(limits=QueueLimits(images=sys.maxsize, client_share=1)) as scheduler:
        system = lg.ConstructSUT(serve if scenario is Scenario.SERVER else offline, lambda: None)
        try:
            yield system
        finally:
            lg.DestroySUT(system)
            scheduler.drain()
    if errors:
        raise errors[0]


def _settings(lg: Any, work: Workload, batch_size: int, rate: float) -> Any:
    settings = lg.TestSettings()
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = 0 if work.queries else round(work.seconds * 1000)
    settings.min_query_count = settings.max_query_count = work.queries
    settings.min_query_count = work.queries or 1
    _SCENARIOS[work.scenario](lg, settings, work, batch_size, rate)
    return settings


def _single_stream(lg: Any, settings: Any, work: Workload, batch_size: int, rate: float) -> None:
    expected = max(1, round(1e9 * batch_size / (rate * HASTE)))
    if batch_size == 1:
        settings.scenario = lg.TestScenario.SingleStream
        settings.single_stream_expected_latency_ns = expected
    else:
        settings.scenario = lg.TestScenario.MultiStream
        settings.multi_stream_expected_latency_ns = expected
        settings.multi_stream_samples_per_query = batch_size


def offline_count(work: Workload, batch_size: int, rate: float) -> int:
    """Images of the one query that keeps a contestant of `rate` images per second busy for the window."""
    wanted = work.queries * batch_size if work.queries else rate * work.seconds
    return max(1, round(wanted / batch_size)) * batch_size


def _offline(lg: Any, settings: Any, work: Workload, batch_size: int, rate: float) -> None:
    settings.scenario = lg.TestScenario.Offline
    settings.offline_expected_qps = rate
    # It would make the query larger by a tenth than the duration asks for; all of it is one query.
    settings.min_duration_ms = 0
    settings.min_query_count = offline_count(work, batch_size, rate)
    settings.max_query_count = 0


def _server(lg: Any, settings: Any, work: Workload, batch_size: int, rate: float) -> None:
    settings.scenario = lg.TestScenario.Server
    settings.server_target_qps = work.target_qps


_SCENARIOS: Mapping[Scenario, Callable[[Any, Any, Workload, int, float], None]] = {
    Scenario.SINGLE_STREAM: _single_stream,
    Scenario.OFFLINE: _offline,
    Scenario.SERVER: _server,
}


def _logs(lg: Any, folder: Path) -> Any:
    output = lg.LogOutputSettings()
    output.outdir = str(folder)
    logs = lg.LogSettings()
    logs.log_output = output
    logs.enable_trace = True  # the only log with every latency
    return logs


def _latencies(trace: str) -> tuple[float, ...]:
    """Seconds of each query, from when it was due to its last answer."""
    last: dict[int, int] = {}
    for query, complete in _SAMPLE.findall(trace):
        last[int(query)] = max(last.get(int(query), 0), int(complete))
    return tuple(nanoseconds / 1e9 for _, nanoseconds in sorted(last.items()))
