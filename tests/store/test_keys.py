"""Are keys known by their hash alone, and is there one admin key?"""

import pytest
from sqlalchemy import select

from app.domain.role import Role
from app.errors import NotFound, SettingsError
from app.store.database import Database
from app.store.keys import ApiKey, active, create, ensure_admin, everyone, revoke
from app.store.people import fingerprint
from app.store.tables import api_keys
from app.store.transaction import transaction
from tests.store.samples import NOW_US

PRESET = "correct horse battery staple, as it were"


def made(database: Database, *, expires_us: int | None = None) -> tuple[ApiKey, str]:
    with transaction(database, "test", now_us=NOW_US) as tx:
        return create(
            tx,
            name="ci",
            roles=[Role.CALLER, Role.REVIEWER],
            actors=["alice"],
            created_by="k0",
            now_us=NOW_US,
            expires_us=expires_us,
        )


def bootstrap(database: Database, preset: str | None = None, *, now_us: int = NOW_US) -> str | None:
    with transaction(database, "test", now_us=now_us) as tx:
        found = ensure_admin(tx, preset, now_us=now_us)
    return found[1] if found else None


def known(database: Database) -> dict[str, ApiKey]:
    with database.read() as connection:
        return active(connection)


def end(database: Database, key_id: str, *, now_us: int = NOW_US) -> ApiKey:
    with transaction(database, "test", now_us=now_us) as tx:
        return revoke(tx, key_id, now_us=now_us)


def test_a_key_is_found_by_the_hash_of_all_of_it(database: Database) -> None:
    key, plaintext = made(database)
    assert plaintext.startswith(f"pg_{key.id}_")
    assert known(database) == {fingerprint(plaintext): key}
    assert fingerprint(plaintext[:-1]) not in known(database)
    assert key.roles == {Role.CALLER, Role.REVIEWER}
    assert key.actors == {"alice"}


def test_no_plaintext_is_stored(database: Database) -> None:
    _, plaintext = made(database)
    secret = plaintext.split("_", 2)[2]
    with database.read() as connection:
        (row,) = connection.execute(select(api_keys)).all()
    assert secret not in repr(row)


def test_every_key_is_another(database: Database) -> None:
    assert len({made(database)[1] for _ in range(20)}) == 20


def test_a_revoked_key_is_unknown_at_once_and_stays_revoked(database: Database) -> None:
    key, plaintext = made(database)
    assert end(database, key.id).revoked_us == NOW_US
    assert end(database, key.id, now_us=NOW_US + 1).revoked_us == NOW_US
    assert fingerprint(plaintext) not in known(database)
    with database.read() as connection:
        (listed,) = everyone(connection)
    assert not listed.is_active(NOW_US + 1)


def test_a_key_that_is_not_there_cannot_be_revoked(database: Database) -> None:
    with pytest.raises(NotFound, match="no key 'k9'"):
        end(database, "k9")


def test_a_key_expires(database: Database) -> None:
    key, _ = made(database, expires_us=NOW_US + 5)
    assert (key.is_active(NOW_US + 4), key.is_active(NOW_US + 5)) == (True, False)


def test_the_first_admin_key_is_made_once(database: Database) -> None:
    plaintext = bootstrap(database)
    assert plaintext is not None
    assert known(database)[fingerprint(plaintext)].roles == {Role.ADMIN}
    assert bootstrap(database) is None
    assert bootstrap(database, PRESET) is None


def test_a_preset_is_the_whole_credential(database: Database) -> None:
    assert bootstrap(database, PRESET) == PRESET
    assert known(database)[fingerprint(PRESET)].roles == {Role.ADMIN}


def test_keys_of_other_roles_do_not_count_as_admin(database: Database) -> None:
    made(database)
    assert bootstrap(database) is not None


def test_a_revoked_preset_does_not_come_back(database: Database) -> None:
    bootstrap(database, PRESET)
    (key,) = known(database).values()
    end(database, key.id)
    with pytest.raises(SettingsError, match="revoked"):
        bootstrap(database, PRESET)
    assert bootstrap(database) is not None
