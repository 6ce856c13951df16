"""How are a new row and a server named, and where do unguessable bytes come from?"""

import os
import secrets
import socket
import threading
import time
from pathlib import Path

_POOL_BYTES = 8_192
_LOW_62 = (1 << 62) - 1

_local = threading.local()


def take(n: int) -> bytes:
    """`n` bytes of the system's entropy, at most 64, that nobody else gets.

    Asking the kernel for each salt and id costs a sixth of a decision: it is asked for a pool at a time.
    """
    pool: bytes = getattr(_local, "pool", b"")
    at: int = getattr(_local, "at", 0)
    if at + n > len(pool):
        pool, at = os.urandom(_POOL_BYTES), 0
        _local.pool = pool
    _local.at = at + n
    return pool[at : at + n]


def new_id() -> str:
    """A UUID version 7 (RFC 9562, 5.7 and 6.2 method 3); sorts by creation.

    48 bits of milliseconds, 12 of their fraction (a quarter of a microsecond), then chance.
    """
    ms, ns = divmod(time.time_ns(), 1_000_000)
    chance = int.from_bytes(take(8), "big")
    value = (ms << 80) | (7 << 76) | ((ns * 4096 // 1_000_000) << 64) | (2 << 62) | (chance & _LOW_62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def instance_name(data_dir: Path) -> str:
    """The name kept in the data directory, made at the first start.

    It names this server's hash chain and counters, so it outlives a change of port or host name. A data
    directory that is copied for a second server must be copied without the file `instance`.
    """
    path = data_dir / "instance"
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(name + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return name
