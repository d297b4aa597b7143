"""`landmark-onnx` with its event loop watched: python held_loop.py FILE serve ...

At the end FILE is written: {"counts": {nanoseconds: callbacks that took at most these}, "busy": how many took more than
50 ms of the processor, "longest": [[ns, ns of the processor, what], ..]}. Where it is not said, nanoseconds are the
clock's: what other threads or processes took of the processor is in them.
"""

import asyncio
import heapq
import json
import sys
import time
from pathlib import Path

LONGEST = 20


def main() -> None:
    """Watch every callback, then be the command."""
    path, run = Path(sys.argv.pop(1)), asyncio.Handle._run
    counts: dict[int, int] = {}
    busy = 0
    longest: list[tuple[int, int, str]] = []

    def timed(handle: asyncio.Handle) -> None:
        nonlocal busy
        start, used = time.perf_counter_ns(), time.thread_time_ns()
        run(handle)
        spent, used = time.perf_counter_ns() - start, time.thread_time_ns() - used
        busy += used > 50_000_000
        shift = max(0, spent.bit_length() - 4)
        most = ((spent >> shift) + 1) << shift
        counts[most] = counts.get(most, 0) + 1
        if spent > 5_000_000:
            owner = getattr(handle._callback, "__self__", handle)
            what = owner.get_coro().__qualname__ if isinstance(owner, asyncio.Task) else repr(owner)[:80]
            (heapq.heappush if len(longest) < LONGEST else heapq.heappushpop)(longest, (spent, used, what))

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    from landmark_onnx.cli import main as command

    try:
        command()
    finally:
        path.write_text(json.dumps({"counts": counts, "busy": busy, "longest": sorted(longest, reverse=True)}))


if __name__ == "__main__":
    main()
