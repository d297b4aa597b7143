import dataclasses
import math
import statistics
import threading
import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from landmark_onnx.inference.scheduler import Scheduler
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx_bench.compare import apart
from landmark_onnx_bench.interleaved import file_bytes, groups
from landmark_onnx_bench.loadgen import MODULE, SampleStage, generate
from landmark_onnx_bench.single_stream import single_stream
from landmark_onnx_bench.statistics import Ratio, Window, percentile, settled, stable, summary
from landmark_onnx_bench.targets import Contestant, Scenario, Workload
from stored import with_data

SECONDS = st.floats(1e-6, 1e3)
LISTS = st.lists(SECONDS, min_size=1, max_size=60)


def window(cost: float, rate: float | None = None) -> Window:
    """Ten queries of one image that each take `cost` seconds."""
    return Window(images=10, seconds=10 / rate if rate else 10 * cost, latencies=(cost,) * 10)


@given(LISTS, st.integers(0, 100))
def test_a_percentile_is_the_nearest_rank(values, percent):
    rank = next(n for n in range(1, len(values) + 1) if n * 100 >= percent * len(values))
    assert percentile(values, percent) == sorted(values)[rank - 1]


@given(LISTS, st.sampled_from([25, 50, 75]))
def test_a_percentile_is_numpys_inverted_cdf(values, percent):
    assert percentile(values, percent) == np.percentile(values, percent, method="inverted_cdf")


def test_no_values_have_no_percentile():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@given(st.lists(SECONDS, min_size=1, max_size=8))
def test_three_windows_within_ten_percent_are_stable(costs):
    last = costs[-3:]
    wanted = len(last) == 3 and all(a <= 1.10 * b for a in last for b in last)
    assume(all(abs(a / b - 1.10) > 1e-9 for a in last for b in last))
    assert stable([window(cost) for cost in costs]) is wanted


def test_latency_alone_does_not_make_windows_stable():
    assert stable([window(1.0)] * 3)
    assert not stable([window(1.0), window(1.0), window(1.0, rate=0.8)])
    assert not stable([window(1.0), window(1.0), window(1.2, rate=1.0)])


def test_only_the_last_three_windows_count_once_they_are_stable():
    unstable = [window(5.0), window(1.0), window(1.01)]
    assert settled(unstable) == unstable
    assert settled([*unstable, window(1.02)]) == [window(1.0), window(1.01), window(1.02)]
    assert summary([*unstable, window(1.02)])["p99_ms"] == 1020
    assert summary(unstable)["p99_ms"] == 5000


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=30))
def test_ratios_are_of_windows_of_one_round(pairs):
    ours, theirs = zip(*pairs, strict=True)
    ratio, inverse = Ratio.of(ours, theirs), Ratio.of(theirs, ours)
    each = [a / b for a, b in pairs]
    assert ratio.median == statistics.median(each)
    assert math.isclose(ratio.geometric, float(np.prod(np.array(each, np.longdouble)) ** (1 / len(each))), rel_tol=1e-6)
    assert math.isclose(ratio.geometric * inverse.geometric, 1, rel_tol=1e-9)
    assert math.isclose(ratio.low * inverse.high, 1, rel_tol=1e-9)
    assert ratio.low <= ratio.median <= ratio.high
    assert ratio.rounds == len(pairs)


@given(st.lists(SECONDS, min_size=1, max_size=20), st.floats(0.01, 100), st.floats(0.1, 10))
def test_what_the_machine_does_to_both_leaves_the_ratio_alone(costs, load, true_ratio):
    theirs = [cost * load for cost in costs]
    assert math.isclose(Ratio.of([cost * true_ratio for cost in theirs], theirs).median, true_ratio, rel_tol=1e-9)


@pytest.mark.parametrize("lengths", [(0, 0), (2, 3)])
def test_ratios_need_the_same_rounds(lengths):
    with pytest.raises(ValueError, match=r"no round|shorter|longer"):
        Ratio.of([1.0] * lengths[0], [1.0] * lengths[1])


def test_two_runs_are_apart_by_chance_as_rarely_as_said():
    random = np.random.default_rng(0)
    for before, after in ((3, 3), (5, 4)):
        runs = [apart(*np.split(random.random(before + after), [before])) for _ in range(20_000)]
        assert abs(np.mean(runs) - 2 / math.comb(before + after, after)) < 0.008


def contestant(tmp_path, number, size):
    path = tmp_path / f"{number}.onnx"
    path.write_bytes(bytes(size))
    shared = {"runtime": "landmark-onnx", "card": {}, "provider": "cpu", "precision": "fp32"}
    return Contestant(label=str(number), path=str(path), threads=1, batch_size=1, **shared)


def test_contestants_that_do_not_fit_meet_the_first_one_by_one(tmp_path):
    a, b, c = (contestant(tmp_path, number, 1000) for number in range(3))
    (tmp_path / "2.onnx.data").write_bytes(bytes(3000))
    enough = 4 * 6000 / 0.8
    assert groups([a, b, c], None) == groups([a, b, c], enough) == [[a, b, c]]
    assert groups([a, b, c], enough - 10) == [[a, b], [a, c]]
    assert groups([a, b], 0) == [[a, b]]


def test_a_contestant_weighs_what_it_loads(tmp_path):
    model = with_data(tmp_path / "big.onnx")
    weights = external_data(model)
    a = dataclasses.replace(contestant(tmp_path, 0, 1), path=str(model))
    assert file_bytes(a) == model.stat().st_size + weights.stat().st_size
    weights.unlink()
    assert file_bytes(a) == model.stat().st_size
    reduced = model.with_name("big.int8.onnx")
    reduced.write_bytes(bytes(500))
    assert file_bytes(dataclasses.replace(a, precision="int8")) == 500


class Asked:
    """What answers, and remembers each batch that it was asked for."""

    def __init__(self, size, pause=0.0):
        self.size, self.pause, self.batches = size, pause, []

    def __call__(self, samples):
        for at in range(0, len(samples), self.size):
            time.sleep(self.pause)
            self.batches.append(list(samples[at : at + self.size]))
            yield len(self.batches[-1])

    @property
    def images(self):
        return sum(map(len, self.batches))


@pytest.fixture
def loadgen():
    """MLPerf's own load generator."""
    pytest.importorskip(MODULE)
    return generate


@pytest.fixture(params=["plain", "loadgen"])
def ask(request):
    """What asks one query after another: the load generator, or the plain windows."""
    if request.param == "loadgen":
        return request.getfixturevalue("loadgen")
    return lambda *asked: single_stream(*asked[:-1])


@pytest.mark.parametrize("size", [1, 3])
def test_single_stream_asks_one_query_after_another(ask, size):
    asked = Asked(size)
    found = ask(Workload(queries=7), asked, size, 12, 1000.0)
    assert found.images == asked.images == 7 * size
    assert len(found.latencies) == 7
    assert all(len(batch) == size for batch in asked.batches)
    assert all(0 <= sample < 12 for batch in asked.batches for sample in batch)
    assert 0 < sum(found.latencies) <= found.seconds * 1.5 + 0.01


def test_single_stream_goes_on_for_the_time_asked(ask):
    found = ask(Workload(seconds=0.2), Asked(1, 0.001), 1, 4, 1000.0)
    assert 0.15 < found.seconds < 5
    assert found.images > 1


@pytest.mark.parametrize("size", [1, 4])
def test_offline_asks_everything_at_once(loadgen, size):
    asked = Asked(size)
    found = loadgen(Workload(scenario=Scenario.OFFLINE, queries=5), asked, size, 8, 100.0)
    assert found.images == asked.images == 5 * size
    assert len(found.latencies) == 1
    assert found.cost == pytest.approx(found.latencies[0] / (5 * size))


def test_offline_asks_for_as_much_as_fits_the_time(loadgen):
    found = loadgen(Workload(scenario=Scenario.OFFLINE, seconds=0.5), Asked(4), 4, 8, 100.0)
    assert found.images == 48


def test_server_asks_at_random_times_and_runs_together_what_waits(loadgen):
    asked = Asked(4)
    found = loadgen(Workload(scenario=Scenario.SERVER, queries=200, target_qps=2000), asked, 4, 8, 1.0)
    assert found.images == asked.images == len(found.latencies) == 200
    assert 0.03 < found.seconds < 5
    assert max(map(len, asked.batches)) <= 4
    assert min(found.latencies) >= 0


def test_a_batch_of_waiting_queries_is_no_larger_than_asked():
    gate, asked = threading.Event(), []

    def answer(samples):
        gate.wait(5)
        asked.append(list(samples))
        yield len(samples)

    stage = SampleStage(answer, 3)
    with Scheduler() as scheduler:
        futures = [scheduler.submit_ready(stage, 10 + query) for query in range(8)]
        gate.set()
        assert scheduler.drain(5)
    assert all(future.done() for future in futures)
    assert max(map(len, asked)) == 3
    assert [sample for batch in asked for sample in batch] == list(range(10, 18))


def broken(samples):
    raise ValueError("broken")
    yield


@pytest.mark.parametrize("scenario", list(Scenario))
def test_what_answering_raises_comes_out(loadgen, scenario):
    work = Workload(scenario=scenario, queries=2, target_qps=1000)
    with pytest.raises(ValueError, match="broken"):
        loadgen(work, broken, 1, 4, 100.0)


def test_what_answering_raises_comes_out_of_a_plain_window():
    with pytest.raises(ValueError, match="broken"):
        single_stream(Workload(queries=2), broken, 1, 4)


def test_samples_are_drawn_from_all_and_the_same_each_time():
    windows = [Asked(1), Asked(1)]
    for asked in windows:
        single_stream(Workload(queries=1200), asked, 1, 8)
    drawn = [sample for batch in windows[0].batches for sample in batch]
    assert set(drawn) == set(range(8))
    assert windows[0].batches == windows[1].batches
