"""Which one process leads, and which run of a job is taken already?"""

from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.store.tables import job_runs, leases
from app.store.transaction import Transaction

LEADERSHIP = "leader"  # the lease of the one instance that acts for all

_US = 1_000_000
_RUNS_KEPT_US = 24 * 3_600 * _US

c = leases.c


@dataclass(frozen=True, slots=True)
class Lease:
    """Held until `expires_us`. The token grows with every holder: a late act of an old one is told by it."""

    name: str
    owner: str
    fencing_token: int
    expires_us: int


def acquire(tx: Transaction, name: str, owner: str, *, ttl_s: float, now_us: int) -> Lease | None:
    """Take the lease where nobody else holds it, in one compare-and-set; else None."""
    expires_us = now_us + round(ttl_s * _US)
    first = _insert(tx, leases).values(name=name, owner=owner, expires_us=expires_us, fencing_token=1)
    taken = first.on_conflict_do_update(
        index_elements=[c.name],
        set_={"owner": owner, "expires_us": expires_us, "fencing_token": c.fencing_token + 1},
        where=(c.expires_us <= now_us) | (c.owner == owner),
    )
    token = tx.connection.execute(taken.returning(c.fencing_token)).scalar()
    return None if token is None else Lease(name, owner, token, expires_us)


def held(connection: Connection, name: str, *, now_us: int) -> Lease | None:
    """Who holds a lease now, or None where nobody does."""
    found = connection.execute(select(leases).where(c.name == name, c.expires_us > now_us)).mappings().first()
    return None if found is None else Lease(**found)


def renew(tx: Transaction, lease: Lease, *, ttl_s: float, now_us: int) -> Lease | None:
    """Hold on to it; None where somebody else has taken it meanwhile."""
    expires_us = now_us + round(ttl_s * _US)
    held = update(leases).where(_same(lease)).values(expires_us=expires_us)
    return replace(lease, expires_us=expires_us) if tx.connection.execute(held).rowcount else None


def release(tx: Transaction, lease: Lease) -> None:
    """Let the next one have it at once; nothing happens where it is somebody else's already."""
    tx.connection.execute(update(leases).where(_same(lease)).values(expires_us=0))


def claim_run(tx: Transaction, job: str, scheduled_us: int, owner: str) -> bool:
    """Whether this run of the job is ours: the first to ask for a scheduled time has it."""
    runs = job_runs.c
    old = and_(runs.job == job, runs.scheduled_us < scheduled_us - _RUNS_KEPT_US)
    tx.connection.execute(delete(job_runs).where(old))
    run = _insert(tx, job_runs).values(job=job, scheduled_us=scheduled_us, owner=owner)
    return tx.connection.execute(run.on_conflict_do_nothing().returning(runs.job)).first() is not None


def _same(lease: Lease) -> ColumnElement[bool]:
    return and_(c.name == lease.name, c.owner == lease.owner, c.fencing_token == lease.fencing_token)


def _insert(tx: Transaction, table: Table) -> sqlite.Insert | postgresql.Insert:
    if tx.connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)
