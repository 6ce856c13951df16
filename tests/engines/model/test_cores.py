import os
from pathlib import Path

import pytest

from app.engines.model.cores import cpu_quota, thread_count


def files(root: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("contents", "own", "quota"),
    [
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, "0::/a/b", 1.5),
        ({"a/b/cpu.max": "50000 100000", "a/cpu.max": "150000 100000"}, "0::/a/b", 0.5),
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"cpu/x/cpu.cfs_quota_us": "200000", "cpu/x/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/x", 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/\n2:memory:/y", None),
        ({}, "0::/gone", None),
    ],
    ids=["parent's", "own", "v2 unlimited", "v1", "v1 unlimited", "unreadable"],
)
def test_the_smallest_quota_on_the_way_to_the_root_counts(
    tmp_path: Path, contents: dict[str, str], own: str, quota: float | None
) -> None:
    files(tmp_path / "cgroup", contents)
    (tmp_path / "self").write_text(own)
    assert cpu_quota(tmp_path / "self", tmp_path / "cgroup") == quota


def test_threads_never_exceed_the_cores_that_are_allowed() -> None:
    allowed = len(os.sched_getaffinity(0))
    assert 1 <= thread_count(None) <= allowed
    assert thread_count(1000) == thread_count(None)
    assert thread_count(1) == 1
