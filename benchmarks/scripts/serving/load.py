"""Load on `landmark-onnx serve`: clients that each wait for their answer, or arrivals that wait for nobody.

    python benchmarks/scripts/serving/load.py --clients 64 --images 400 --body multipart
    python benchmarks/scripts/serving/load.py --rate 8 --seconds 30

Closed: N clients, each on a connection of its own, send the next image when the last is answered. Open: arrivals of a
Poisson process, whose latency counts from the moment they were due, so that a server which falls behind hides nothing
(no coordinated omission). The processor's seconds of this program are written down: on few cores it takes a share.
"""

import argparse
import asyncio
import collections
import dataclasses
import itertools
import multiprocessing
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from harness import SEED, WORK, Report, Server, loop_facts, network, photos
from wire import BODIES, OTHER, Connection, raw

from landmark_onnx_bench.statistics import digits, percentile

PATH = "/v1/embed"
MOST_CONNECTIONS = 400
"""Of open load; a server takes 512 by default."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shot:
    """A request. due, sent, ended: seconds of one clock; status: 0 where the connection ended without an answer."""

    due: float
    sent: float
    ended: float
    status: int

    @property
    def seconds(self) -> float:
        """From when it should have been sent to its answer."""
        return self.ended - self.due


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What a load has met. own: processor seconds of this process."""

    shots: Sequence[Shot]
    own: float

    @property
    def rate(self) -> float:
        """Answers of 200 a second, from the first request to the last answer."""
        return len(self.seconds(200)) / (max(s.ended for s in self.shots) - min(s.due for s in self.shots))

    def seconds(self, status: int) -> list[float]:
        """Latencies of the answers with this status."""
        return [shot.seconds for shot in self.shots if shot.status == status]

    @property
    def statuses(self) -> dict[int, int]:
        """How many answers have each."""
        return dict(sorted(collections.Counter(shot.status for shot in self.shots).items()))

    def cells(self) -> list[object]:
        """Those of COLUMNS."""
        answered = self.seconds(200) or [float("nan")]
        times = [digits(1000 * percentile(answered, percent)) for percent in (50, 90, 99)]
        return [digits(self.rate), *times, self.statuses, round(self.own, 2)]


COLUMNS = ("answers of 200 / s", "p50 ms", "p90 ms", "p99 ms", "statuses", "load's CPU s")


async def fire(connection: Connection, request: bytes, due: float) -> Shot:
    """Send one request, and see what comes."""
    try:
        status = (await connection.ask(request)).status
    except (OSError, EOFError):
        status = 0
    return Shot(due, connection.sent, time.perf_counter(), status)


async def closed(port: int, requests: Sequence[bytes], clients: int, images: int) -> Run:
    """`images` requests, of which `clients` are under way at any moment until the last have been sent."""
    own, left = time.process_time(), itertools.islice(itertools.cycle(requests), images)
    shots: list[Shot] = []

    async def client() -> None:
        connection = Connection(port)
        for request in left:
            shot = await fire(connection, request, time.perf_counter())
            shots.append(shot)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return Run(shots, time.process_time() - own)


def arrivals(rate: float, seconds: float, seed: int = SEED) -> Iterator[float]:
    """Moments of a Poisson process from 0 to `seconds`."""
    clock = random.Random(seed)  # noqa: S311  # no secret
    moment = clock.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += clock.expovariate(rate)


async def opened(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Run:
    """Requests at their moments, on whatever connection is free, until all are answered."""
    own, start = time.process_time(), time.perf_counter() + 0.1
    idle: list[Connection] = []
    gate = asyncio.Semaphore(MOST_CONNECTIONS)

    async def one(request: bytes, due: float) -> Shot:
        async with gate:
            connection = idle.pop() if idle else Connection(port)
            shot = await fire(connection, request, due)
            idle.append(connection)
        return shot

    tasks = []
    for moment, request in zip(arrivals(rate, seconds), itertools.cycle(requests), strict=False):
        await asyncio.sleep(max(0.0, start + moment - time.perf_counter()))
        tasks.append(asyncio.create_task(one(request, start + moment)))
    shots = await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return Run(shots, time.process_time() - own)


class Polite:
    """A client in a process of its own that asks for one image after another while the block lasts.

    seconds: of each answer, once the block has ended. others: statuses that were not 200.
    """

    def __init__(self, port: int, image: bytes, pause: float = 0.02) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_ask_politely, args=(there, port, raw(PATH, image), pause), daemon=True)
        self.seconds: list[float] = []
        self.others: list[int] = []

    def __enter__(self) -> Self:
        self._process.start()
        self._here.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._here.send(None)
        self.seconds, self.others = self._here.recv()
        self._process.join()

    @property
    def p99(self) -> float:
        """In milliseconds."""
        return digits(1000 * percentile(self.seconds, 99))


def _ask_politely(pipe: Any, port: int, request: bytes, pause: float) -> None:
    async def ask() -> list[Shot]:
        connection, shots = Connection(port, source=OTHER), []
        await fire(connection, request, 0)
        pipe.send(None)
        while not pipe.poll():
            shots.append(await fire(connection, request, time.perf_counter()))
            await asyncio.sleep(pause)
        return shots

    shots = asyncio.run(ask())
    pipe.send(([shot.seconds for shot in shots], [shot.status for shot in shots if shot.status != 200]))


def main() -> None:
    """One load on one server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=WORK / "results")
    parser.add_argument("--work", type=Path, default=WORK, help="where models are made")
    parser.add_argument("--width", type=float, default=0.5, help="of the network, 1 as released")
    parser.add_argument("--body", choices=list(BODIES), default="raw")
    parser.add_argument("--shapes", type=int, default=1, help="of images")
    parser.add_argument("--clients", type=int, default=64, help="that wait for their answers")
    parser.add_argument("--images", type=int, default=400, help="that they send in all")
    parser.add_argument("--rate", type=float, help="arrivals a second, in place of clients")
    parser.add_argument("--seconds", type=float, default=30.0, help="of arrivals")
    options = parser.parse_args()
    model = network(options.work, options.width)
    requests = [BODIES[options.body](PATH, image) for image in photos(min(64, options.images), options.shapes)]
    report = Report(options.output, "load", "Load")
    ticks = options.work / "ticks.json"
    with Server(options.work, "-m", str(model), ticks=ticks) as server:
        asyncio.run(closed(server.port, requests, 4, 8))
        if options.rate:
            run = asyncio.run(opened(server.port, requests, options.rate, options.seconds))
            name = f"open, {options.rate:g} a second"
        else:
            run = asyncio.run(closed(server.port, requests, options.clients, options.images))
            name = f"closed, {options.clients} clients"
        facts = server.facts()
    report.write(["load", *COLUMNS], [[name, *run.cells()]], [f"server: {facts}", loop_facts(ticks)])


if __name__ == "__main__":
    main()
