"""How is a new row named, so that names sort by time?"""

import time

from app.store.chance import take

_LOW_62 = (1 << 62) - 1


def new_id() -> str:
    """A UUID version 7 (RFC 9562, 5.7): 48 bits of milliseconds, then chance; sorts by creation."""
    ms = time.time_ns() // 1_000_000
    chance = int.from_bytes(take(10), "big")
    value = (ms << 80) | (7 << 76) | ((chance >> 68) << 64) | (2 << 62) | (chance & _LOW_62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
