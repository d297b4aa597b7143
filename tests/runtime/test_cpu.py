import os
from pathlib import Path

import pytest

from landmark_onnx.runtime import cpu as cores


@pytest.fixture
def groups(tmp_path):
    """Writes files of a cgroup tree and says who belongs where; answers the quota then."""

    def make(membership, files):
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        own = tmp_path / "membership"
        if membership is not None:
            own.write_text(membership)
        return cores.cpu_quota(tmp_path / "cgroup", own)

    return make


@pytest.mark.parametrize(
    ("membership", "files", "wanted"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        (None, {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/host/path/of/the/container\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "100000 100000", "a/cpu.max": "200000 100000"}, 1.0),
        ("0::/a\n", {"b/cpu.max": "100000 100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("4:cpu,cpuacct:/x\n1:name=systemd:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "-1\n"}, None),
        (
            "4:cpu,cpuacct:/x\n3:memory:/x\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
    ],
)
def test_the_quota_of_a_cgroup(membership, files, wanted, groups):
    assert groups(membership, files) == wanted


@pytest.mark.parametrize(("quota", "wanted"), [(None, 8), (0.5, 1), (1.5, 2), (3.0, 3), (20.0, 8)])
def test_a_part_of_a_core_counts_as_one(quota, wanted, monkeypatch):
    monkeypatch.setattr(cores, "affinity", lambda: 8)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert cores.available_cores() == wanted


def test_affinity_comes_before_the_number_of_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 9}, raising=False)
    assert cores.affinity() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores.affinity() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.affinity() == 1


def test_here():
    assert 1 <= cores.available_cores() <= (os.cpu_count() or 1)
    assert isinstance(cores.CGROUPS, Path)
