"""The CPU: its name and features, and how many of its cores this process may keep busy."""

import contextlib
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
CPUINFO = Path("/proc/cpuinfo")


def cpu_model(cpuinfo: Path = CPUINFO) -> tuple[str, frozenset[str]]:
    """The CPU's name, and its features as Linux calls them, none where no such file tells."""
    model, features = platform.processor() or platform.machine(), set[str]()
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                features.update(value.split())
            elif key.strip() == "model name":
                model = value.strip()
    return model, frozenset(features)


def default_threads() -> int:
    """Threads for a runtime to start, 0 for its own choice: one a core, which it knows better where none is denied."""
    allowed = available_cores()
    return allowed if allowed < (os.cpu_count() or 1) else 0


def available_cores() -> int:
    """The cores that this process may keep busy, at least 1: a part of one in a quota counts as one.

    More threads than these wait for each other, and in a container until its next period.
    """
    quota = cpu_quota()
    cores = affinity()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def affinity() -> int:
    """The cores that the scheduler may put this process on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """The cores that the tightest CPU quota over this process amounts to, None without one.

    Source: Linux Documentation/admin-guide/cgroup-v2.rst, cpu.max; scheduler/sched-bwc.rst, cpu.cfs_quota_us.
    """
    return min(_quotas(cgroups, membership), default=None)


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """The quotas of this process's groups and of those above, which bind it as well."""
    for folder in _groups(cgroups, membership):
        with contextlib.suppress(OSError, ValueError):
            share, period = map(int, (folder / "cpu.max").read_text(encoding="ascii").split())
            yield share / period
        with contextlib.suppress(OSError, ValueError):
            share = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
            if share > 0:  # -1 is no limit
                yield share / int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))


def _groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """The folders of this process's groups, and of those above.

    In a container the path may be the host's, which is not there: the root of what is mounted is then the own group.
    """
    lines = []
    with contextlib.suppress(OSError):
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / controllers
        own = root / path.lstrip("/")
        yield from (own, *(parent for parent in own.parents if parent.is_relative_to(root)))
