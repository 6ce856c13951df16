"""Which cores may the worker use, and how many threads does that make?"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def leave_the_first_core() -> None:
    """Keep this process off the first of its cores, which is the web process's, where it has two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])


def thread_count(configured: int | None) -> int:
    """At most what affinity and the container's CPU quota allow; llama.cpp sees neither."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota(_OWN_CGROUP, _CGROUPS)
    if quota is not None:
        allowed = min(allowed, max(math.floor(quota), 1))
    return allowed if configured is None else min(configured, allowed)


def cpu_quota(own_cgroup: Path, cgroups: Path) -> float | None:
    """The smallest quota, in cores, on the way from this process's cgroup to the root; None without one."""
    return min(
        (quota for folder in cgroup_folders(own_cgroup, cgroups, "cpu") if (quota := _quota(folder))),
        default=None,
    )


def cgroup_folders(own_cgroup: Path, cgroups: Path, controller: str) -> Iterator[Path]:
    """Where a controller's limits lie, from this process's cgroup up to the root; version 1 and 2."""
    for entry in content_of(own_cgroup).splitlines():
        _, controllers, path = entry.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups / controller if controllers else cgroups
        own = root / path.lstrip("/")
        yield own
        yield from (parent for parent in own.parents if parent.is_relative_to(root))


def _quota(folder: Path) -> float | None:
    second = content_of(folder / "cpu.max").split()  # cgroup v2: "quota period", quota may be "max"
    first = [content_of(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    quota, period = second if len(second) == 2 else first
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def content_of(path: Path) -> str:
    """What a file of the kernel says; nothing where it is not there."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
