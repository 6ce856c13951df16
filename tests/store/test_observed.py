"""Is a situation evidence once in a window, and does no actor bring more than its share?"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

import pytest
from sqlalchemy import func, select

from app.domain.admission import Claim
from app.store.counters import totals
from app.store.database import Database
from app.store.observed import (
    ACTORS_AT_MOST,
    WHOLE_EPOCH,
    Asked,
    Window,
    claim_all,
    forget,
    windows,
)
from app.store.tables import observed_by, observed_situations
from app.store.transaction import transaction
from tests.store.samples import MINUTE, NOW_US

WINDOW = Window("read", "v1", 1, 500)


def asked(
    number: int, *, actor: str = "a", key: str = "k", share: float = 0.05, window: Window = WINDOW
) -> Asked:
    return Asked(window, number.to_bytes(8, "big"), actor, key, share, MINUTE)


@dataclass
class Claims:
    """Claims in transactions of their own, or many in one."""

    database: Database
    instance: str = "test"
    made: Counter[Claim] = field(default_factory=Counter)

    def __call__(self, *requests: Asked) -> list[Claim]:
        with transaction(self.database, self.instance, now_us=NOW_US) as tx:
            claims = claim_all(tx, requests)
        self.made.update(claims)
        return claims


@pytest.fixture
def claims(database: Database) -> Claims:
    return Claims(database)


def kept(database: Database) -> tuple[int, int]:
    with database.read() as connection:
        situations, of_whom = (
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (observed_situations, observed_by)
        )
    return situations, of_whom


def test_a_situation_is_admitted_once_in_a_window_whoever_asks(claims: Claims) -> None:
    assert claims(asked(1)) == [Claim.ADMITTED]
    assert claims(asked(1), asked(1, actor="b", key="l")) == [Claim.REPEATED] * 2
    elsewhere = [
        WINDOW._replace(number=501),
        WINDOW._replace(epoch=2),
        WINDOW._replace(version="v2"),
        WINDOW._replace(rollout="write"),
    ]
    assert claims(*(asked(1, window=window) for window in elsewhere)) == [Claim.ADMITTED] * 4


def test_claims_of_one_transaction_know_of_each_other_and_keep_their_order(claims: Claims) -> None:
    later = WINDOW._replace(number=501)
    many = [asked(1, window=later), asked(1), asked(1), asked(2), asked(1, window=later)]
    assert claims(*many) == [
        Claim.ADMITTED,
        Claim.ADMITTED,
        Claim.REPEATED,
        Claim.ADMITTED,
        Claim.REPEATED,
    ]


def test_an_actor_has_three_and_then_its_share_of_the_window(claims: Claims) -> None:
    assert claims(*map(asked, range(5))) == [Claim.ADMITTED] * 3 + [Claim.CAPPED] * 2
    claims(*(asked(100 + number, actor=f"b{number}") for number in range(76)))
    assert claims(asked(10)) == [Claim.ADMITTED], "four of eighty are 5 %"
    assert claims(asked(11)) == [Claim.CAPPED]


def test_what_was_capped_for_one_actor_is_admitted_for_another(claims: Claims) -> None:
    claims(*map(asked, range(3)))
    assert claims(asked(7), asked(7, actor="b")) == [Claim.CAPPED, Claim.ADMITTED]


def test_one_key_may_ask_for_everybody_where_there_are_few(claims: Claims) -> None:
    claims(*(asked(number, actor=f"a{number}", key=f"k{number % 2}") for number in range(200)))
    assert claims.made == {Claim.ADMITTED: 200}


def test_where_many_keys_are_active_none_has_more_than_its_share(claims: Claims) -> None:
    """Whoever has a key can invent actors."""
    claims(*(asked(number, actor=f"a{number}", key=f"k{number}") for number in range(20)))
    minted = [asked(100 + number, actor=f"m{number}", key="k0") for number in range(20)]
    assert Counter(claims(*minted)) == {Claim.ADMITTED: 2, Claim.CAPPED: 18}


def test_a_share_of_one_caps_nobody(claims: Claims) -> None:
    assert set(claims(*(asked(number, share=1.0) for number in range(50)))) == {Claim.ADMITTED}


def test_different_actors_are_counted_over_windows_and_no_more_than_a_hundred(
    database: Database, claims: Claims
) -> None:
    def actors() -> int:
        with database.read() as connection:
            return totals(connection, "read", 1, version="v1").get(("actors", "all"), 0)

    claims(*map(asked, range(5)), asked(1, actor="repeats"))
    assert actors() == 1
    claims(asked(1, window=WINDOW._replace(number=501)), asked(9, actor="b"))
    assert actors() == 2
    claims(*(asked(100 + number, actor=f"c{number}") for number in range(120)))
    assert actors() == ACTORS_AT_MOST


def test_two_servers_share_what_they_admit(database: Database, claims: Claims) -> None:
    other = Claims(database, "other")
    assert [*claims(asked(1)), *other(asked(1)), *other(asked(2)), *claims(asked(3)), *other(asked(4))] == [
        Claim.ADMITTED,
        Claim.REPEATED,
        Claim.ADMITTED,
        Claim.ADMITTED,
        Claim.CAPPED,
    ]


def test_servers_that_claim_at_once_neither_lock_each_other_out_nor_exceed_the_caps(
    database: Database,
) -> None:
    """Each asks in another order, in two windows; what one admits the others know."""
    other_window = WINDOW._replace(rollout="write")
    requests = [
        asked(number, actor=f"a{number % 7}", window=window)
        for number in range(30)
        for window in (WINDOW, other_window)
    ]
    first = Claims(database, "first")
    first(*requests[:2])
    servers = [Claims(database, f"server-{number}") for number in range(3)]

    def serve(server: Claims, seed: int) -> None:
        mixed = Random(seed).sample(requests, len(requests))  # an order, not a secret
        for start in range(0, len(mixed), 10):
            server(*mixed[start : start + 10])

    with ThreadPoolExecutor(len(servers)) as threads:
        for done in [threads.submit(serve, server, seed) for seed, server in enumerate(servers)]:
            done.result()
    with database.read() as connection:
        by = {
            (row.rollout, row.who): row.n
            for row in connection.execute(select(observed_by).where(observed_by.c.time_window != WHOLE_EPOCH))
        }
    for rollout in ("read", "write"):
        assert {by[rollout, f"actor:a{number}"] for number in range(7)} == {3}
        assert by[rollout, "all"] == 21
    assert kept(database)[0] == 42
    assert sum(server.made[Claim.ADMITTED] for server in (first, *servers)) == 42


def test_a_window_is_forgotten_whole_and_no_other(database: Database, claims: Claims) -> None:
    later = WINDOW._replace(number=501)
    claims(*(asked(number, actor=f"a{number}") for number in range(30)), asked(1, window=later))
    epoch = WINDOW._replace(number=WHOLE_EPOCH)
    with database.read() as connection:
        assert set(windows(connection)) == {WINDOW, later, epoch}
    steps = 0
    is_left = True
    while is_left:
        with transaction(database, "test", now_us=NOW_US) as tx:
            is_left = forget(tx, WINDOW)
        steps += 1
    assert steps == 4, "situations, who asked them, their sum, and nothing"
    with database.read() as connection:
        assert set(windows(connection)) == {later, epoch}
    assert kept(database) == (1, 4 + 32)
