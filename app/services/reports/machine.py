"""How much of this machine do the server and its model take?"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from app.engines.model.memory import memory_limit

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Resources:
    """Bytes and CPU seconds; None where they cannot be known here. The worker is the default model's."""

    data_bytes: int | None
    disk_left_bytes: int | None
    server_bytes: int | None
    worker_bytes: int | None
    worker_cpu_s: float | None
    memory_limit_bytes: int


def resources(data_dir: Path | None, worker: int | None) -> Resources:
    return Resources(
        data_bytes=None if data_dir is None else _size(data_dir),
        disk_left_bytes=None if data_dir is None else shutil.disk_usage(data_dir).free,
        server_bytes=_resident(os.getpid()),
        worker_bytes=None if worker is None else _resident(worker),
        worker_cpu_s=None if worker is None else _cpu_s(worker),
        memory_limit_bytes=memory_limit(),
    )


def _size(directory: Path) -> int:
    """Files that go away meanwhile are none."""
    sizes = 0
    for path in directory.rglob("*"):
        try:
            sizes += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return sizes


def _resident(pid: int) -> int | None:
    """The second figure of /proc/PID/statm (proc(5)), in pages."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def _cpu_s(pid: int) -> float | None:
    """User and system time, fields 14 and 15 of /proc/PID/stat (proc(5)); the name before them may hold blanks."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS
    except (OSError, ValueError, IndexError):
        return None
