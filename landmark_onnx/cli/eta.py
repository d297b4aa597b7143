"""How fast it goes, and how long it will take."""

import collections
import time
from collections.abc import Callable

WINDOW = 60.0
"""Seconds that the rate is taken over: what was slow an hour ago says little of the next."""


class Pace:
    """Turns counts into words: done, of all, a second, time left."""

    def __init__(self, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """done: from before, which says nothing of the rate."""
        self._clock = clock
        self._seen = collections.deque([(clock(), done)])

    def words(self, done: int, total: int) -> str:
        """So many are done now: `1,024 of 4,132,914, 3.1/s, 15 d 9 h left`."""
        now = self._clock()
        if now - self._seen[-1][0] >= WINDOW / 60:
            self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW:
            self._seen.popleft()
        begin, before = self._seen[0]
        text = f"{done:,} of {total:,}"
        if now <= begin or done <= before:
            return text
        rate = (done - before) / (now - begin)
        return f"{text}, {rate:,.{1 if rate < 100 else 0}f}/s, {duration((total - done) / rate)} left"


def duration(seconds: float) -> str:
    """The two largest units of a time, rounded down: `15 d 9 h`, `3 h 7 min`, `2 min 5 s`, `41 s`."""
    left = int(seconds)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        parts.append((left // size, unit))
        left %= size
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{count} {unit}" for count, unit in parts[:2])
