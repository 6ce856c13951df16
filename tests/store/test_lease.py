"""Is there one leader, and one run of a job?"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.store.database import Database
from app.store.lease import Lease, acquire, claim_run, release, renew
from app.store.transaction import transaction
from tests.store.samples import NOW_US

TTL_S = 10.0
LATER_US = NOW_US + 10_000_000


def taken(database: Database, owner: str, *, now_us: int = NOW_US) -> Lease | None:
    with transaction(database, owner, now_us=now_us) as tx:
        return acquire(tx, "leader", owner, ttl_s=TTL_S, now_us=now_us)


def renewed(database: Database, lease: Lease, *, now_us: int) -> Lease | None:
    with transaction(database, lease.owner, now_us=now_us) as tx:
        return renew(tx, lease, ttl_s=TTL_S, now_us=now_us)


def claimed(database: Database, owner: str, *, scheduled_us: int = NOW_US) -> bool:
    with transaction(database, owner, now_us=NOW_US) as tx:
        return claim_run(tx, "guardrails", scheduled_us, owner)


def test_a_held_lease_is_nobody_elses(database: Database) -> None:
    assert taken(database, "a") == Lease("leader", "a", 1, LATER_US)
    assert taken(database, "b", now_us=LATER_US - 1) is None


def test_an_expired_lease_goes_to_the_next_with_a_higher_token(database: Database) -> None:
    taken(database, "a")
    assert taken(database, "b", now_us=LATER_US) == Lease("leader", "b", 2, LATER_US + 10_000_000)


def test_an_owner_that_was_overtaken_can_neither_renew_nor_release(database: Database) -> None:
    old = taken(database, "a")
    assert old is not None
    new = taken(database, "b", now_us=LATER_US)
    assert new is not None
    assert renewed(database, old, now_us=LATER_US + 1) is None
    with transaction(database, "a", now_us=NOW_US) as tx:
        release(tx, old)
    assert renewed(database, new, now_us=LATER_US + 1) is not None


def test_a_renewed_lease_lasts_longer(database: Database) -> None:
    lease = taken(database, "a")
    assert lease is not None
    assert renewed(database, lease, now_us=NOW_US + 5_000_000) == Lease("leader", "a", 1, NOW_US + 15_000_000)
    assert taken(database, "b", now_us=LATER_US) is None


def test_a_released_lease_is_free_at_once(database: Database) -> None:
    lease = taken(database, "a")
    assert lease is not None
    with transaction(database, "a", now_us=NOW_US) as tx:
        release(tx, lease)
    assert taken(database, "b") == Lease("leader", "b", 2, LATER_US)


def test_a_restarted_owner_gets_a_new_token(database: Database) -> None:
    taken(database, "a")
    again = taken(database, "a")
    assert again is not None
    assert again.fencing_token == 2


@pytest.mark.parametrize("contest", [taken, claimed], ids=["lease", "run"])
def test_of_many_at_once_one_wins(database: Database, contest: object) -> None:
    assert callable(contest)
    start = threading.Barrier(8)

    def contend(number: int) -> object:
        start.wait()
        return contest(database, f"owner-{number}")

    with ThreadPoolExecutor(8) as pool:
        assert sum(map(bool, pool.map(contend, range(8)))) == 1


def test_a_run_is_claimed_once_and_the_next_one_anew(database: Database) -> None:
    assert claimed(database, "a")
    assert not claimed(database, "b")
    assert not claimed(database, "a")
    assert claimed(database, "b", scheduled_us=NOW_US + 1)


def test_claims_of_long_ago_are_forgotten(database: Database) -> None:
    assert claimed(database, "a")
    assert claimed(database, "a", scheduled_us=NOW_US + 25 * 3_600_000_000)
    assert claimed(database, "b")
