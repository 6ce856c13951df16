"""Are counts summed, and is none lost when they are compacted?"""

import pytest
from sqlalchemy import func, select

from app.errors import StoreUnavailable
from app.store.counters import compact, minute_of, totals, totals_of_all
from app.store.course import days_served
from app.store.database import Database
from app.store.journal import Journal
from app.store.ledger import Ledger
from app.store.tables import evidence_counters
from app.store.transaction import CounterKey, transaction
from tests.store.samples import MINUTE, NOW_US, add_rollout, decision

DAY = 24 * 60
TODAY = MINUTE // DAY


def count(
    database: Database,
    *counts: tuple[int, int],
    instance: str = "test",
    metric: str = "decisions",
    label: str = "allow",
) -> None:
    """Add n at a number of minutes before now, for each (minutes, n)."""
    with transaction(database, instance, now_us=NOW_US) as tx:
        for ago, n in counts:
            tx.count(CounterKey("write", "v1", 1, MINUTE - ago, metric, label), n)


def summed(database: Database) -> dict[tuple[str, str], int]:
    """What all counters of the epoch add up to, minute by minute."""
    c = evidence_counters.c
    query = select(c.metric, c.label, func.sum(c.n)).where(
        c.rollout == "write", c.version == "v1", c.epoch == 1
    )
    with database.read() as connection:
        return {
            (metric, label): int(n)
            for metric, label, n in connection.execute(query.group_by(c.metric, c.label))
        }


def total(database: Database) -> dict[tuple[str, str], int]:
    with database.read() as connection:
        return totals(connection, "write", 1, version="v1")


def rows(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(evidence_counters)).scalar_one())


def test_counts_of_one_key_are_summed_over_transactions_and_instances(database: Database) -> None:
    count(database, (0, 1), (0, 2), (1, 4))
    count(database, (0, 8))
    count(database, (0, 16), instance="other")
    count(database, (0, 32), label="deny")
    with database.read() as connection:
        assert totals(connection, "write", 1, version="v1") == {
            ("decisions", "allow"): 31,
            ("decisions", "deny"): 32,
        }
        assert totals(connection, "write", 2, version="v1") == {}


def test_totals_are_the_sum_of_all_counters_before_and_after_compaction(database: Database) -> None:
    count(database, *[(ago, 1) for ago in range(0, 6 * DAY, 97)])
    count(database, (0, 5), (300, -2), (3 * DAY, 7), instance="other", label="deny")
    before = total(database)
    assert before == summed(database)
    for _ in range(2):
        with transaction(database, "other", now_us=NOW_US) as tx:
            compact(tx, NOW_US)
            tx.count(CounterKey("write", "v1", 1, MINUTE - 400, "decisions", "allow"), 0)
        assert total(database) == summed(database) == before


async def test_what_the_journal_kept_is_in_the_totals_once(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: object) -> None:
        raise StoreUnavailable("drill")

    ledger = Ledger(database, journal, "test")
    monkeypatch.setattr(database, "write", away)
    receipts = [await ledger.append(decision()) for _ in range(3)]
    monkeypatch.undo()
    ledger.close()
    assert all(receipt.journaled for receipt in receipts)
    assert total(database) == summed(database) == {("decisions", "allow"): 3}


def test_totals_of_all_are_those_of_the_current_epochs(database: Database) -> None:
    add_rollout(database, "write", epoch=1)
    add_rollout(database, "read", epoch=7)
    add_rollout(database, "deploy", epoch=2)
    count(database, (0, 5))
    with transaction(database, "test", now_us=NOW_US) as tx:
        tx.count(CounterKey("deploy", "v1", 1, MINUTE, "decisions", "allow"), 9)
        tx.count(CounterKey("deploy", "v1", 2, MINUTE, "decisions", "deny"), 3)
    with database.read() as connection:
        assert totals_of_all(connection) == {
            "write": {("decisions", "allow"): 5},
            "read": {},
            "deploy": {("decisions", "deny"): 3},
        }


@pytest.mark.parametrize("is_compacted", [False, True], ids=["minutes", "compacted"])
def test_days_are_days_in_utc(database: Database, *, is_compacted: bool) -> None:
    since_midnight = MINUTE % DAY
    ago = (0, 1), (since_midnight, 2), (since_midnight + 1, 4), (since_midnight + 5 * DAY, 8)
    count(database, *ago, metric="observation", label="ok")
    count(database, (0, 60), metric="served_s", label="all")
    count(database, (0, 9), metric="observation", label="not_observed")
    if is_compacted:
        with transaction(database, "test", now_us=NOW_US) as tx:
            compact(tx, NOW_US)
    with database.read() as connection:
        assert days_served(connection, "write", 1, version="v1") == {
            TODAY - 5: (8, 0),
            TODAY - 1: (4, 0),
            TODAY: (3, 60),
        }


def test_compaction_keeps_every_count_and_few_rows(database: Database) -> None:
    recent = [(ago, 1) for ago in range(100)]
    hours = [(ago, 1) for ago in range(300, 600)]
    days = [(ago, 1) for ago in range(5 * DAY, 6 * DAY, 7)]
    count(database, *recent, *hours, *days)
    count(database, *days, instance="other")
    with database.read() as connection:
        before = totals(connection, "write", 1, version="v1")
    for _ in range(2):
        with transaction(database, "test", now_us=NOW_US) as tx:
            compact(tx, NOW_US)
        with database.read() as connection:
            assert totals(connection, "write", 1, version="v1") == before
        assert rows(database) <= len(recent) + 7 + 2 * 2


def test_compaction_leaves_the_last_two_hours_alone(database: Database) -> None:
    count(database, *[(ago, 1) for ago in range(121)])
    with transaction(database, "test", now_us=NOW_US) as tx:
        compact(tx, NOW_US)
    assert rows(database) == 121


def test_a_late_count_finds_its_compacted_hour(database: Database) -> None:
    count(database, (400, 1))
    for _ in range(2):
        with transaction(database, "test", now_us=NOW_US) as tx:
            compact(tx, NOW_US)
        count(database, (400, 1))
    with transaction(database, "test", now_us=NOW_US) as tx:
        compact(tx, NOW_US)
    with database.read() as connection:
        assert totals(connection, "write", 1, version="v1") == {("decisions", "allow"): 3}
    assert rows(database) == 1


def test_a_minute_is_counted_from_the_epoch() -> None:
    assert (minute_of(0), minute_of(59_999_999), minute_of(60_000_000)) == (0, 0, 1)
