"""Where do unguessable bytes come from, many times a second?"""

import os
import threading

_POOL_BYTES = 8_192

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
