"""How is a new row named, so that names sort by time?"""

import secrets
import time
import uuid


def new_id() -> str:
    """A UUID version 7 (RFC 9562, 5.7): 48 bits of milliseconds, then chance; sorts by creation."""
    ms = time.time_ns() // 1_000_000
    value = (ms << 80) | (7 << 76) | (secrets.randbits(12) << 64) | (2 << 62) | secrets.randbits(62)
    return str(uuid.UUID(int=value))
