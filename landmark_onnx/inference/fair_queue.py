"""A queue of several clients in which each has its share, whatever the others have sent.

Start-time fair queueing: Goyal, Vin, Cheng, "Start-time Fair Queueing: A Scheduling Algorithm for Integrated Services
Packet Switching Networks", 1996. A client's next number is max(V, its last number) + cost, where V is the number of
what ran last, so that who has sent little comes before the rest of what another has piled up.
"""

import collections
import dataclasses
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(slots=True)
class _Client(Generic[T]):
    """last: its highest number. open: joined, and did not leave. inside: taken, and not released.

    waiting: number, size of a batch, item; in the order of their numbers.
    """

    last: float = 0.0
    open: int = 0
    inside: int = 0
    waiting: collections.deque[tuple[float, int, T]] = dataclasses.field(default_factory=collections.deque)


class FairQueue(Generic[T]):
    """Items by their number, of which only so many are inside at once: taken, and not released.

    window: how many at least; it grows to four batches of the largest that comes. Not safe under threads by itself.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._inside = 0
        self._now = 0.0
        self._clients: dict[str, _Client[T]] = {}

    def number(self, client: str, cost: float) -> float:
        """What the next item of a client would get. cost: in seconds of the device."""
        known = self._clients.get(client)
        return max(self._now, known.last if known else 0.0) + cost

    def open(self, client: str) -> int:
        """How many of a client joined and did not leave."""
        known = self._clients.get(client)
        return known.open if known else 0

    def join(self, client: str, cost: float) -> float:
        """Count an item of a client in, waiting or not, and number it."""
        number = self.number(client, cost)
        known = self._clients.setdefault(client, _Client())
        known.last = number
        known.open += 1
        return number

    def put(self, client: str, number: float, batch: int, item: T) -> None:
        """Have an item that joined wait for its turn. batch: how many of its kind run together."""
        self._window = max(self._window, 4 * batch)
        self._clients[client].waiting.append((number, batch, item))

    def take(self) -> T | None:
        """The item of the lowest number among clients that are not over their share; None if there is none.

        A client's share is the window by the number of clients, but two batches at least: one that runs, and one that
        gets ready meanwhile.
        """
        if self._inside >= self._window:
            return None
        share = self._window // max(1, len(self._clients))
        heads = (each for each in self._clients.values() if each.waiting)
        able = [each for each in heads if each.inside < max(share, 2 * each.waiting[0][1])]
        if not able:
            return None
        client = min(able, key=lambda each: each.waiting[0][0])
        client.inside += 1
        self._inside += 1
        return client.waiting.popleft()[2]

    def ran(self, number: float) -> None:
        """An item of that number has come to its run."""
        self._now = max(self._now, number)

    def remove(self, client: str, item: T) -> None:
        """Take out an item that waits."""
        waiting = self._clients[client].waiting
        del waiting[next(at for at, entry in enumerate(waiting) if entry[2] is item)]

    def release(self, client: str) -> None:
        """An item that was taken is no longer inside."""
        self._clients[client].inside -= 1
        self._inside -= 1

    def leave(self, client: str) -> None:
        """Count an item out. A client that has none left is forgotten, with its numbers."""
        known = self._clients[client]
        known.open -= 1
        if not known.open:
            del self._clients[client]
