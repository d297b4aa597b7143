"""What serving may cost, in turns on one machine: the service, the same model without it, and LitServe around it.

    python benchmarks/scripts/serving/must_hold.py -o benchmarks/results/MACHINE/serving --rival-python PATH
    python benchmarks/scripts/serving/must_hold.py --only one --width 0.0625 --rounds 1 --images 40 -o out/dry

The model in this process, fed with the same bytes, is what the service is held against; every window of one stands
beside a window of the other, and a ratio is the median of the rounds' ratios. PATH is a Python with litserve and this
package's dependencies: an environment of its own.
"""

import argparse
import asyncio
import dataclasses
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from harness import WORK, Report, Server, loop_facts, network, photos, say
from load import PATH, Run, arrivals, closed, opened
from wire import BODIES, BOUNDARY, OTHER, Connection, raw, request

from landmark_onnx import Retriever
from landmark_onnx_bench.statistics import Ratio, digits, percentile

COLUMNS = ("figure", "wanted", "measured", "holds", "detail")
Row = tuple[str, str, object, str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Bench:
    """Who takes part, and for how long."""

    model: Retriever
    port: int
    rival: Server | None
    images: int
    rounds: int

    def stream(self, images: Sequence[bytes]) -> float:
        """Images a second of the model alone."""
        start = time.perf_counter()
        done = sum(1 for _ in self.model.stream(images[number % len(images)] for number in range(self.images)))
        return done / (time.perf_counter() - start)

    def served(self, port: int, requests: Sequence[bytes], clients: int = 64) -> Run:
        """The same images by clients of the service."""
        return asyncio.run(closed(port, requests, clients, self.images))

    def rivalling(self, rival: Server, images: Sequence[bytes]) -> Run:
        """The same images by clients of a rival, which is let go on for as long as that takes."""
        rival.pause(signal.SIGCONT)
        run = self.served(rival.port, [raw("/predict", image) for image in images])
        rival.pause()
        return run

    def rate(self) -> float:
        """Images a second that the service reaches."""
        return self.served(self.port, [raw(PATH, image) for image in photos(16)]).rate


def throughput(bench: Bench) -> Iterator[Row]:
    """64 clients by each kind of body, and LitServe, beside `Model.stream` on the same bytes."""
    one, eight = photos(32), photos(32, shapes=8)
    bodies = {kind: [body(PATH, image) for image in one] for kind, body in BODIES.items()}
    shaped = [raw(PATH, image) for image in eight]
    rival = bench.rival
    windows: dict[str, Callable[[], float | Run]] = {
        "stream": lambda: bench.stream(one),
        **{kind: lambda kind=kind: bench.served(bench.port, bodies[kind]) for kind in bodies},  # type: ignore[misc]
        "stream of eight shapes": lambda: bench.stream(eight),
        "eight shapes": lambda: bench.served(bench.port, shaped),
        **({"LitServe": lambda: bench.rivalling(rival, one)} if rival else {}),
    }
    runs: dict[str, list[Run]] = {name: [] for name in windows}
    rates: dict[str, list[float]] = {name: [] for name in windows}
    for turn in range(bench.rounds):
        for name in list(windows)[:: -1 if turn % 2 else 1]:
            done = windows[name]()
            rates[name].append(done.rate if isinstance(done, Run) else done)
            runs[name] += [done] if isinstance(done, Run) else []
            say(f"round {turn}, {name}: {rates[name][-1]:.2f} images/s")
    for name, than, least in (
        ("raw", "stream", 0.95),
        ("multipart", "stream", 0.93),
        ("json", "stream", 0.85),
        ("eight shapes", "stream of eight shapes", 0.90),
        ("raw", "LitServe", 1.0),
    ):
        title = f"throughput of 64 clients, {name} / {than}"
        if than not in rates:
            yield title, f">= {least}", "not had", "**no**", "no Python with litserve was given (--rival-python)"
            continue
        ratio = Ratio.of(rates[name], rates[than])
        detail = f"{ratio.low:.3f} to {ratio.high:.3f} in {ratio.rounds} rounds; {_median(rates[name])} against "
        yield _row(title, ">=", least, ratio.median, f"{detail}{_median(rates[than])} images/s; {_others(runs[name])}")
    yield from _tails(bench, runs)


def _tails(bench: Bench, runs: Mapping[str, Sequence[Run]]) -> Iterator[Row]:
    """p99 of 64 clients: by the rate and the longest batch, and beside LitServe."""
    found = [shot for run in runs["raw"] for shot in run.seconds(200)]
    rate = statistics.median(run.rate for run in runs["raw"])
    limit, p99 = 1.5 * 64 / rate + 4 / rate, percentile(found, 99)
    yield _row(
        "p99 of 64 clients, s", "<=", limit, p99, f"1.5 x 64 / rate + a batch; p50 {percentile(found, 50):.3f} s"
    )
    if "LitServe" in runs:
        theirs = percentile([shot for run in runs["LitServe"] for shot in run.seconds(200)], 99)
        yield _row("p99 of 64 clients / LitServe", "<=", 1.0, p99 / theirs, f"{p99:.3f} against {theirs:.3f} s")


def one_client(bench: Bench) -> Iterator[Row]:
    """Latency of a lone client beside one call of the model, ten of each in turns."""
    images = photos(10)
    alone: list[float] = []
    served: list[float] = []
    for _ in range(bench.rounds * 2):
        for image in images:
            start = time.perf_counter()
            bench.model(image)
            alone.append(time.perf_counter() - start)
        run = asyncio.run(closed(bench.port, [raw(PATH, image) for image in images], 1, len(images)))
        served += run.seconds(200)
    p50, own, p99 = percentile(served, 50), percentile(alone, 50), percentile(served, 99)
    detail = f"1.05 x {1000 * own:.2f} ms + 3 ms; p50 / one call {p50 / own:.3f}; {len(served)} of each"
    yield _row("p50 of one client, ms", "<=", 1000 * (1.05 * own + 0.003), 1000 * p50, detail)
    yield _row(
        "p99 / p50 of one client", "<=", 1.5, p99 / p50, f"p99 of one call / its p50: {percentile(alone, 99) / own:.3f}"
    )


def open_loop(bench: Bench) -> Iterator[Row]:
    """Arrivals at shares of what the service can do."""
    images = photos(16)
    requests, rate = [raw(PATH, image) for image in images], bench.rate()
    start = time.perf_counter()
    for image in images:
        bench.model(image)
    own = (time.perf_counter() - start) / len(images)
    for share, most in ((0.5, 3), (0.8, 6)):
        seconds = 2 * bench.images / rate
        run = asyncio.run(opened(bench.port, requests, share * rate, seconds))
        p99, queued = percentile(run.seconds(200), 99), percentile(_in_turn(share * rate, seconds, own), 99)
        detail = f"{queued / own:.2f} if the same arrivals ran one at a time; {_others([run])}"
        yield _row(f"open loop at {share} of the rate: p99 / one call", "<=", most, p99 / own, detail)
    run = asyncio.run(opened(bench.port, requests, 2 * rate, 4 * bench.images / rate))
    refused = [*run.seconds(429), *run.seconds(503)] or [0.0]
    yield _row("open loop at twice the rate: answers of 200 / rate", ">=", 0.9, run.rate / rate, _others([run]))
    yield _row(
        "open loop at twice the rate: p99 of 200, s", "<=", 60.0, percentile(run.seconds(200), 99), "the deadline"
    )
    yield _row(
        "open loop at twice the rate: p99 of refusals, ms",
        "<=",
        50.0,
        1000 * percentile(refused, 99),
        f"{len(refused)}",
    )


def _in_turn(rate: float, seconds: float, own: float) -> list[float]:
    """Latencies of a server that takes `own` seconds for each of `arrivals`, one at a time in their order."""
    free, found = 0.0, []
    for moment in arrivals(rate, seconds):
        free = max(free, moment) + own
        found.append(free - moment)
    return found


def fairness(bench: Bench) -> Iterator[Row]:
    """A client with an image at a time beside one that keeps two requests of 32 images under way."""
    images = photos(32)
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'.encode()
    form = b"".join(part + image + b"\r\n" for image in images) + f"--{BOUNDARY}--\r\n".encode()
    greedy = request(PATH, form, f"multipart/form-data; boundary={BOUNDARY}")

    async def polite(count: int) -> list[float]:
        connection, seconds = Connection(bench.port, source=OTHER), []
        for number in range(count):
            start = time.perf_counter()
            assert (await connection.ask(raw(PATH, images[number % 32]))).status == 200
            seconds.append(time.perf_counter() - start)
        connection.close()
        return seconds

    async def beside() -> list[float]:
        crowd = asyncio.create_task(closed(bench.port, [greedy], 2, 1 << 20))
        await asyncio.sleep(20 * own)
        seconds = await polite(40)
        crowd.cancel()
        return seconds

    own = percentile(asyncio.run(polite(20)), 50)
    batch = 4 / bench.rate()
    p99 = percentile(asyncio.run(beside()), 99)
    detail = f"own {1000 * own:.0f} ms + two batches of {1000 * batch:.0f} ms"
    yield _row("p99 beside 64 images of another client, ms", "<=", 1000 * (own + 2 * batch), 1000 * p99, detail)


PARTS: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    "throughput": throughput,
    "one": one_client,
    "open": open_loop,
    "fair": fairness,
}


def _row(figure: str, sign: str, limit: float, measured: float, detail: str) -> Row:
    """sign: ">=" or "<="."""
    holds = measured >= limit if sign == ">=" else measured <= limit
    wanted = f"{sign} {digits(limit):g}"
    return figure, wanted, digits(measured), "yes" if holds else "**no**", detail


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f}"


def _others(runs: Sequence[Run]) -> str:
    """Whatever was not 200, and what the load itself took."""
    other = sum(len(run.shots) - len(run.seconds(200)) for run in runs)
    total = sum(len(run.shots) for run in runs)
    return f"{other} of {total} not 200; the load took {sum(run.own for run in runs):.1f} s of a core"


def main() -> None:
    """Measure, then write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=WORK, help="where models are made")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--width", type=float, default=0.5, help="of the network, 1 as released")
    parser.add_argument("--images", type=int, default=128, help="of a window")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4, help="of all")
    parser.add_argument("--rival-python", type=Path, help="with litserve")
    options = parser.parse_args()
    path, size = network(options.work, options.width), str(options.batch_size)
    report, ticks = Report(options.output, "must_hold", "What serving may cost"), options.work / "ticks.json"
    rival = None
    if options.rival_python:
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[3])
        script = str(Path(__file__).with_name("rival.py"))
        rival = Server(options.work, command=[str(options.rival_python), script, str(path), size])
        rival.pause()
    rows: list[Row] = []
    with Server(options.work, "-m", str(path), "--batch-size", size, ticks=ticks) as server:
        bench = Bench(
            Retriever(path, batch_size=options.batch_size), server.port, rival, options.images, options.rounds
        )
        bench.stream(photos(16))
        bench.served(server.port, [raw(PATH, image) for image in photos(16)])
        if rival:
            bench.rivalling(rival, photos(16))
        for name in options.only:
            say(f"== {name}")
            rows += PARTS[name](bench)
    if rival:
        rival.stop()
    facts = [f"network of width {options.width:g}, random weights; batches of {size}", loop_facts(ticks)]
    report.write(COLUMNS, rows, facts)


if __name__ == "__main__":
    main()
