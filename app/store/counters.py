"""How much evidence is there, without counting a single row of the ledger?"""

from collections import defaultdict

from sqlalchemy import BigInteger, Connection, and_, cast, delete, func, select

from app.store.tables import evidence_counters, evidence_totals, rollouts
from app.store.transaction import CounterKey, Transaction

Totals = dict[tuple[str, str], int]  # (metric, label) -> n

BASELINE = ("model", "pair")  # the metrics that later answers are held against

_HOUR, _DAY = 60, 24 * 60  # minutes
_US_PER_MINUTE = 60 * 1_000_000

c = evidence_counters.c
total = evidence_totals.c
_sum_of_totals = cast(func.sum(total.n), BigInteger)


def minute_of(us: int) -> int:
    """The minute that an event counts in."""
    return us // _US_PER_MINUTE


def totals(connection: Connection, rollout: str, epoch: int, *, version: str) -> Totals:
    """Everything counted of a version in one epoch, over all instances."""
    query = select(total.metric, total.label, _sum_of_totals).where(
        total.rollout == rollout, total.version == version, total.epoch == epoch
    )
    rows = connection.execute(query.group_by(total.metric, total.label))
    return {(metric, label): n for metric, label, n in rows}


def totals_of_all(connection: Connection) -> dict[str, Totals]:
    """The totals of every rollout's active version in its current epoch, empty ones included, in one query."""
    r = rollouts.c
    of_active = and_(total.rollout == r.name, total.version == r.version, total.epoch == r.epoch)
    current = rollouts.outerjoin(evidence_totals, of_active)
    query = select(r.name, total.metric, total.label, _sum_of_totals).select_from(current)
    found: dict[str, Totals] = {}
    for name, metric, label, n in connection.execute(query.group_by(r.name, total.metric, total.label)).all():
        of_rollout = found.setdefault(name, {})
        if metric is not None:
            of_rollout[metric, label] = n
    return found


def latest_answers(connection: Connection, rollout: str, *, version: str) -> dict[str, int]:
    """A version's answers by decision, and its pairs, in the last epoch of the rollout in which it gave any."""
    of_version = and_(total.rollout == rollout, total.version == version, total.metric.in_(BASELINE))
    last = select(func.max(total.epoch)).where(of_version).scalar_subquery()
    query = select(total.label, _sum_of_totals).where(of_version, total.epoch == last).group_by(total.label)
    return {label: int(n) for label, n in connection.execute(query)}


def compact(tx: Transaction, now_us: int) -> None:
    """Fold minutes older than 2 hours into hours, hours older than 2 days into days; no count is lost.

    Rows are taken out and added back by what the deletion returns, so a count that another instance
    adds meanwhile is either in what was taken or stays. Totals know no minutes and stay as they are.
    """
    now = minute_of(now_us)
    _fold(tx, older_than=now - 2 * _DAY, into=_DAY)
    _fold(tx, older_than=now - 2 * _HOUR, into=_HOUR)


def _fold(tx: Transaction, *, older_than: int, into: int) -> None:
    fine = delete(evidence_counters).where(c.minute < older_than - older_than % into, c.minute % into != 0)
    columns = (c.instance, c.rollout, c.version, c.epoch, c.minute, c.metric, c.label, c.n)
    coarse: dict[tuple[str, CounterKey], int] = defaultdict(int)
    for instance, rollout, version, epoch, minute, metric, label, n in tx.connection.execute(
        fine.returning(*columns)
    ):
        key = CounterKey(rollout, version, epoch, minute - minute % into, metric, label)
        coarse[instance, key] += n
    tx.add_counts((instance, key, n) for (instance, key), n in coarse.items())
