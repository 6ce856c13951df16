"""Is this the password, and is it one at all?"""

import asyncio
from dataclasses import dataclass
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST, LONGEST = 12, 1_000
_AT_ONCE = 2  # each takes 64 MiB

_hasher = PasswordHasher()  # argon2id with the library's defaults, RFC 9106 section 4


@dataclass(frozen=True, slots=True)
class Checked:
    """`renewed` is a hash by the parameters of today, where the one that is kept has others."""

    is_right: bool
    renewed: str | None = None


class Passwords:
    """Hashes on threads of their own, a few at once."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def check(self, kept: str | None, given: str) -> Checked:
        """Takes as long where nothing is kept, so that time tells nobody which names exist."""
        async with self._turns:
            return await asyncio.to_thread(_check, kept, given)

    async def hash(self, password: str) -> str:
        async with self._turns:
            return await asyncio.to_thread(_hasher.hash, password)


def flaw_of(password: str, *, name: str) -> str | None:
    """What keeps this from being the password of a user."""
    if not SHORTEST <= len(password) <= LONGEST:
        return f"must be {SHORTEST} to {LONGEST:,} characters"
    return "must not be the name" if password.casefold() == name.casefold() else None


def _check(kept: str | None, given: str) -> Checked:
    decoy = _decoy()  # made before the first answer of all, be the name known or not
    try:
        _hasher.verify(kept or decoy, given[:LONGEST])
    except (VerificationError, InvalidHashError):
        return Checked(is_right=False)
    if kept is None:
        return Checked(is_right=False)
    return Checked(True, _hasher.hash(given) if _hasher.check_needs_rehash(kept) else None)


@cache
def _decoy() -> str:
    return _hasher.hash("nobody's password")
