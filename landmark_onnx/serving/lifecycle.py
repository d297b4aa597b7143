"""From when the service starts until it ends: what it is doing, and who is told."""

from collections.abc import Callable


class Lifecycle:
    """The one state that the server, its guard and the routes share.

    ready: set by the service once every model has answered. draining: no more than what was accepted is answered.
    accepted, answered, abandoned: requests whose header was read, those that got their answer, and those whose client
    left before. connections: open ones. url: where the server listens, once it does. on_hangup: called at SIGHUP, one
    after another, in a thread.
    """

    def __init__(self) -> None:
        self.ready = False
        self.draining = False
        self.accepted = 0
        self.answered = 0
        self.abandoned = 0
        self.connections = 0
        self.url: str | None = None
        self.on_hangup: list[Callable[[], None]] = []
        self._stopping = False
        self._begin: Callable[[], None] | None = None

    def stop(self) -> None:
        """Begin to end, as SIGTERM does; from any thread or handler of a signal, any number of times, at any time."""
        self._stopping = True
        self._call()

    def call_at_stop(self, begin: Callable[[], None]) -> None:
        """Let `stop` call this, now if it was called already; two threads may call it twice."""
        self._begin = begin
        if self._stopping:
            self._call()

    def _call(self) -> None:
        # No lock: a signal's handler could wait for the very thread that it has interrupted.
        begin, self._begin = self._begin, None
        if begin:
            begin()
