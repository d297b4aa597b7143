"""Requests that no client should send, seeded, each with the statuses that may answer it, and a polite client beside.

    python benchmarks/scripts/serving/hostile.py -o benchmarks/results/MACHINE/serving

What must hold: each request is answered with one of its statuses, or by an end of the connection where the protocol
leaves that open; none with 500; the server lives, its memory stays in its limits, and the polite client is answered.
"""

import argparse
import asyncio
import collections
import random
import time
from collections.abc import Iterator
from pathlib import Path

from harness import SEED, WORK, Report, Server, index, loop_facts, network, say
from hostile_cases import JPEG, KINDS, MIB, Case
from load import Polite
from wire import send_all

BUDGET = 256 + 512
"""MiB of bodies and of decoded pixels that the server may hold."""


class Storm:
    """What came back of what was sent. wrong: a line for each answer that was not expected."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
        self.wrong: list[str] = []

    async def run(self, cases: Iterator[tuple[str, Case]], senders: int) -> None:
        """Send all of it."""
        await asyncio.gather(*(self._send(cases) for _ in range(senders)))

    async def _send(self, cases: Iterator[tuple[str, Case]]) -> None:
        for kind, case in cases:
            statuses = await send_all(self._port, case.chunks, answers=case.answers, ends=case.ends)
            self.answers[kind].update(statuses)
            if not case.statuses.issuperset(statuses):
                start = next(iter(case.chunks), b"")
                self.wrong.append(f"{kind}: {statuses}, wanted {sorted(case.statuses)}: {start[:400]!r}")


def main() -> None:
    """Send, then write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=WORK, help="where models are made")
    parser.add_argument("--width", type=float, default=0.0625, help="of the network, 1 as released")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--senders", type=int, default=8, help="at once")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    given = parser.parse_args()
    dice = random.Random(given.seed)  # noqa: S311  # no secret
    cases = ((kind, KINDS[kind](dice)) for kind in dice.choices(given.only, k=given.count))
    model = network(given.work, given.width)
    report, ticks = Report(given.output, "hostile", "Hostile requests"), given.work / "ticks.json"
    places = f"places={index(given.work, model)}"
    with Server(given.work, "-m", str(model), "-i", places, ticks=ticks) as server:
        with Polite(server.port, JPEG) as alone:
            time.sleep(10)
        before, storm = server.facts(), Storm(server.port)
        with Polite(server.port, JPEG) as polite:
            asyncio.run(storm.run(cases, given.senders))
        after = server.facts()
    facts = [
        f"{len(storm.wrong)} answers not expected; {sum(each[500] for each in storm.answers.values())} of 500",
        f"before {before}; after {after}; exit {server.process.returncode}",
        f"peak {after['peak'] / MIB:.0f} MiB, wanted at most {before['rss'] / MIB + 1.1 * BUDGET:.0f}",
        f"polite client: {len(polite.seconds)} requests, {len(polite.others)} not 200; p99 {polite.p99} ms, alone "
        f"{alone.p99} ms; wanted at most 3 times",
        f"seed {given.seed}, {given.senders} at once",
        loop_facts(ticks),
    ]
    rows = [(kind, found.total(), dict(sorted(found.items()))) for kind, found in sorted(storm.answers.items())]
    report.write(["kind", "answers", "statuses (0: closed)"], rows, facts)
    for line in {line[:60]: line[:500] for line in sorted(storm.wrong)}.values():
        say(line)


if __name__ == "__main__":
    main()
