"""Is this instance the one that acts for all?"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import structlog

from app.domain.clock import to_us
from app.errors import PhasegateError
from app.observability import LEADER, Event
from app.store.lease import LEADERSHIP, Lease, acquire, claim_run, release, renew
from app.store.ledger import Ledger

log = structlog.get_logger()

LEASE_S = 10.0


class Leadership:
    """Holds the leader's lease while it can; who cannot renew it does not lead."""

    def __init__(self, ledger: Ledger, instance: str, *, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._instance = instance
        self._now = now
        self._lease: Lease | None = None

    @property
    def leads(self) -> bool:
        return self._lease is not None and to_us(self._now()) < self._lease.expires_us

    async def hold(self) -> None:
        """Take or renew the lease; a database that is away costs the leadership, not the server."""
        now_us, lease = to_us(self._now()), self._lease
        try:
            if lease is not None:
                self._lease = await self._ledger.run(
                    lambda tx: renew(tx, lease, ttl_s=LEASE_S, now_us=now_us)
                )
            else:
                self._lease = await self._ledger.run(
                    lambda tx: acquire(tx, LEADERSHIP, self._instance, ttl_s=LEASE_S, now_us=now_us)
                )
        except PhasegateError:
            return
        if (lease is None) != (self._lease is None):
            log.info(Event.LEASE_LOST if self._lease is None else Event.LEASE_TAKEN, owner=self._instance)
        LEADER.set(self._lease is not None)

    async def let_go(self) -> None:
        """Let the next one lead at once; where the database is away, the lease ends by itself."""
        lease, self._lease = self._lease, None
        if lease is not None:
            with suppress(PhasegateError):
                await self._ledger.run(lambda tx: release(tx, lease))

    async def claims(self, job: str, *, every_s: int) -> bool:
        """Whether this run of a job, by the grid of its interval, is this instance's."""
        slot_us = to_us(self._now()) // (every_s * 1_000_000) * every_s * 1_000_000
        return await self._ledger.run(lambda tx: claim_run(tx, job, slot_us, self._instance))
