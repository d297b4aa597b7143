"""What clients, time and signals do to `landmark-onnx serve`, one kind at a time.

    python benchmarks/scripts/serving/faults.py hangups -o benchmarks/results/MACHINE/serving
    python benchmarks/scripts/serving/faults.py memory --count 4000 -o out/dry

hangups: clients that leave at each stage of a request, 50 at once; what the model computes after it is counted by
/metrics. slow: clients that send or read hardly at all, from their start to when the server closes. memory: resident
bytes over many requests of 40 shapes, 5 % of them damaged, 2 % of the clients gone. sigterm: the signal at random
moments under twice the load that the server can take; each request that it had read is answered.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness import SEED, WORK, Report, Server, loop_facts, network, photos, say
from load import PATH, Polite, Run, closed, opened
from wire import HOST, OTHER, Connection, raw, read_answer, request

from landmark_onnx_bench.statistics import digits, percentile

MIB = 1 << 20
BATCH = 4
WAVE = 50
STAGES = ("header", "body", "queue", "run", "answer")
SMALL = 224
"""Short side of the network's images where their number counts and not their size."""


async def metric(connection: Connection, name: str) -> float:
    """The sum of a metric's values, whatever their labels."""
    text = (await connection.ask(request("/metrics", method="GET"))).body.decode()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(f"landmark_onnx_{name}"))
    return sum(float(value) for key, value in lines if key.partition("{")[0] == f"landmark_onnx_{name}")


async def hang_up(port: int, image: bytes, stage: str, own: float) -> tuple[float, float]:
    """A wave of clients that leave; seconds until nothing waits, and images that were computed after it."""
    whole = raw(PATH, image)
    cut = {"header": 40, "body": len(whole) // 2}.get(stage, len(whole))
    clients = [Connection(port) for _ in range(WAVE)]
    watch = Connection(port, source=OTHER)
    await metric(watch, "queue_images")
    streams = await asyncio.gather(*(client.send(whole[:cut]) for client in clients))
    if stage == "run":
        await asyncio.sleep(own * BATCH * 1.5)
    elif stage == "answer":
        await asyncio.wait([asyncio.ensure_future(each.read(1)) for each, _ in streams], return_when="FIRST_COMPLETED")
    else:
        await asyncio.sleep(0.02)
    start = time.perf_counter()
    for client in clients:
        client.close(abort=True)
    before = await metric(watch, "batch_images_sum")
    while await metric(watch, "queue_images"):
        await asyncio.sleep(0.005)
    seconds = time.perf_counter() - start
    await asyncio.sleep(own * BATCH * 3)
    after = await metric(watch, "batch_images_sum")
    watch.close()
    return seconds, after - before


def hangups(options: argparse.Namespace) -> None:
    """1,000 clients in waves of 50, then as many beside a polite client."""
    model, (image,) = network(options.work, 0.25), photos(1)
    report, ticks, rows = Report(options.output, "hangups", "Clients that hang up"), options.work / "ticks.json", []
    waves = -(-(options.count or 1000) // WAVE // 5)

    with Server(options.work, "-m", str(model), "--batch-size", str(BATCH), ticks=ticks) as server:
        own = percentile(asyncio.run(closed(server.port, [raw(PATH, image)], 1, 20)).seconds(200), 50)
        for stage in STAGES:
            found = [asyncio.run(hang_up(server.port, image, stage, own)) for _ in range(waves)]
            seconds, computed = max(each for each, _ in found), max(each for _, each in found)
            rows.append((stage, waves * WAVE, digits(seconds), computed, seconds <= 1 and computed <= BATCH))
        with Polite(server.port, image) as polite:
            for stage in STAGES * waves:
                asyncio.run(hang_up(server.port, image, stage, own))
        left = asyncio.run(metric(Connection(server.port), "disconnects_total"))
    facts = [
        f"batches of {BATCH}, an image alone takes {1000 * own:.0f} ms; wanted: 1 s, a batch",
        f"polite client beside as many again: {len(polite.seconds)} requests, {len(polite.others)} not 200, p99 "
        f"{polite.p99} ms",
        f"disconnects_total {left:g}; exit {server.process.returncode}",
        loop_facts(ticks),
    ]
    report.write(["stage", "clients", "longest until the queue is empty, s", "most images after", "holds"], rows, facts)


async def crawl(port: int, start: bytes, *, slowly: bytes = b"", pause: float = 1.0) -> tuple[float, int]:
    """Send `start`, then a byte every `pause` seconds, reading only what has to be; seconds to the end, and a status.

    Without `slowly` nothing is read until the server has gone.
    """
    begun, status = time.perf_counter(), 0
    reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 10)
    if not slowly:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    answer = asyncio.create_task(read_answer(reader)) if slowly else None
    with contextlib.suppress(OSError):
        writer.write(start)
        while not writer.is_closing() and not (answer and answer.done()) and time.perf_counter() - begun < 150:
            writer.write(slowly or b"\r\n")
            await asyncio.sleep(pause)
    if answer:
        with contextlib.suppress(OSError, EOFError, asyncio.TimeoutError):
            status = (await asyncio.wait_for(answer, 1)).status
    writer.transport.abort()
    return time.perf_counter() - begun, status


def slow(options: argparse.Namespace) -> None:
    """200 of each kind at once, beside a polite client."""
    model, (image,) = network(options.work, 0.0625), photos(1)
    count = options.count or 200
    report, ticks, rows = Report(options.output, "slow", "Clients that are slow"), options.work / "ticks.json", []
    body = raw(PATH, image)
    reading = request("/openapi.json", method="GET") * 400
    starts = {"header": (body[:20], b"x"), "body": (body[:5000], b"x"), "reader": (reading, b"")}

    async def crawling(port: int, kind: str) -> list[tuple[float, int]]:
        start, slowly = starts[kind]
        return await asyncio.gather(*(crawl(port, start, slowly=slowly) for _ in range(count)))

    with Server(options.work, "-m", str(model), ticks=ticks) as server:
        with Polite(server.port, image) as alone:
            time.sleep(10)
        for kind in starts:
            with Polite(server.port, image) as polite:
                found = asyncio.run(crawling(server.port, kind))
            times = [seconds for seconds, _ in found]
            statuses = sorted({status for _, status in found})
            rows.append((kind, count, digits(min(times)), digits(max(times)), statuses, polite.p99, len(polite.others)))
        facts = [f"polite p99 alone {alone.p99} ms; wanted at most 1.2 times", f"server {server.facts()}"]
    columns = [
        "kind",
        "clients",
        "first closed, s",
        "last closed, s",
        "statuses (0: closed)",
        "polite p99 ms",
        "not 200",
    ]
    report.write(columns, rows, [*facts, loop_facts(ticks)])


async def mixed(port: int, requests: Sequence[bytes], count: int, dice: random.Random) -> Run:
    """Requests by eight clients, of which 2 % leave before their answer."""

    async def vanish(whole: bytes) -> None:
        client = Connection(port)
        await client.send(whole)
        await asyncio.sleep(dice.uniform(0, 0.05))
        client.close(abort=True)

    gone = [vanish(dice.choice(requests)) for _ in range(count // 50)]
    run, *_ = await asyncio.gather(closed(port, dice.choices(requests, k=len(requests)), 8, count - len(gone)), *gone)
    return run


def memory(options: argparse.Namespace) -> None:
    """Resident bytes each 2,000 requests."""
    model, dice = network(options.work, 0.0625, size=SMALL), random.Random(SEED)  # noqa: S311  # no secret
    images = photos(400, shapes=40, side=240)
    for number in range(0, len(images), 20):
        images[number] = images[number][: dice.randrange(20, len(images[number]))]
    requests, rows = [raw(PATH, image) for image in images], []
    report, step = Report(options.output, "memory", "Memory over many requests"), 2000
    with Server(options.work, "-m", str(model)) as server:
        for done in range(step, (options.count or 50_000) + 1, step):
            run = asyncio.run(mixed(server.port, requests, step, dice))
            time.sleep(0.5)
            facts = server.facts()
            rows.append((done, round(facts["rss"] / MIB, 1), facts["threads"], facts["descriptors"], run.statuses))
            say(f"{rows[-1]}, {run.rate:.0f}/s")
    first, last = rows[0], rows[-1]
    holds = last[1] <= max(1.05 * first[1], first[1] + 64) and last[2:4] == first[2:4]
    grown = f"{last[1] - first[1]:+.1f} MiB ({last[1] / first[1]:.3f}) from {first[0]} to {last[0]} requests"
    facts = [f"{grown}; wanted at most 5 % or 64 MiB, threads and descriptors equal: {'holds' if holds else '**no**'}"]
    report.write(["requests", "resident MiB", "threads", "descriptors", "statuses"], rows, facts)


def sigterm(options: argparse.Namespace) -> None:
    """One server after another, each ended at a random moment."""
    model, dice = network(options.work, 0.0625, size=SMALL), random.Random(SEED)  # noqa: S311  # no secret
    requests = [raw(PATH, image) for image in photos(16)]
    report, rows = Report(options.output, "sigterm", "SIGTERM under load"), []
    rate = 0.0

    async def ended(server: Server, moment: float) -> tuple[Run, float, float]:
        load = asyncio.create_task(opened(server.port, requests, 2 * rate, moment + 1))
        await asyncio.sleep(moment)
        sent = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(server.process.wait, 60)
        seconds = time.perf_counter() - sent
        return await load, sent, seconds

    for number in range(options.count or 50):
        with Server(options.work, "-m", str(model), "--log", "json") as server:
            rate = rate or asyncio.run(closed(server.port, requests, 16, 400)).rate
            run, sent, seconds = asyncio.run(ended(server, dice.uniform(0.3, 2.5)))
            lost = [shot for shot in run.shots if shot.status == 0 and shot.sent < sent - 0.1]
            late = sum(shot.status == 0 for shot in run.shots) - len(lost)
            last = json.loads(server.words().strip().splitlines()[-1])
            counts = [last.get(name) for name in ("accepted", "answered", "abandoned")]
        rows.append((number, server.process.returncode, digits(seconds), run.statuses, len(lost), late, *counts))
        say(str(rows[-1]))
    lost, codes = sum(row[4] for row in rows), sorted({row[1] for row in rows})
    took = [row[2] for row in rows]
    equal = sum(row[6] == row[7] for row in rows)
    facts = [
        f"accepted = answered in {equal} of {len(rows)} runs, by the server's own count",
        f"exit codes {codes}; {lost} lost of those sent whole 0.1 s before the signal or sooner; at twice {rate:.0f}/s",
        f"from the signal to the end: median {statistics.median(took)} s, longest {max(took)} s, wanted at most 30",
    ]
    columns = ("run", "exit", "seconds", "statuses (0: no answer)", "lost", "later", "accepted", "answered", "gone")
    report.write(columns, rows, facts)


KINDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    each.__name__: each for each in (hangups, slow, memory, sigterm)
}


def main() -> None:
    """Run one kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=WORK, help="where models are made")
    parser.add_argument("--count", type=int, help="of clients, requests or signals; by default that of the kind")
    options = parser.parse_args()
    KINDS[options.kind](options)


if __name__ == "__main__":
    main()
