"""Who gets in, for how long, and what does a guesser learn?"""

import asyncio
from typing import Literal

import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs

from app.domain.decision import Decision
from app.domain.role import Role
from app.errors import Forbidden, InvalidInput
from app.services import passwords
from app.services.users import first_link
from app.services.verdicts import Verdict
from app.store import sessions, users
from app.store import tables as t
from tests.services.plane import Stage

PASSWORD = "correct horse battery"
HERE = "192.0.2.1"


async def invited(stage: Stage, name: str = "ada", *roles: str) -> str:
    """The token of a link for a new user."""
    by = stage.principal("admin")
    await stage.services.users.create(name=name, roles=list(roles or ["reviewer"]), actors=[], by=by)
    return await linked(stage, name)


async def linked(stage: Stage, name: str = "ada") -> str:
    made = await stage.services.users.link(name, by=stage.principal("admin"))
    return str(made["path"]).removeprefix("/sign-in/")


async def joined(stage: Stage, name: str = "ada", *roles: str) -> str:
    """The session of a new user who has chosen a password."""
    token = await stage.services.sign_in.by_link(await invited(stage, name, *roles), address=HERE)
    return await stage.services.sign_in.change_password(
        await session(stage, token), old="", new=PASSWORD, address=HERE
    )


async def session(stage: Stage, token: str) -> sessions.Session:
    found = await stage.services.sign_in.session(token, is_used=True)
    assert found is not None
    return found


async def is_in(stage: Stage, token: str) -> bool:
    return await stage.services.sign_in.session(token, is_used=False) is not None


async def enters(stage: Stage, name: str = "ada", password: str = PASSWORD, *, address: str = HERE) -> bool:
    try:
        await stage.services.sign_in.by_password(name, password, address=address)
    except Forbidden:
        return False
    return True


async def test_who_signs_in_is_who_they_are_everywhere(any_stage: Stage) -> None:
    await joined(any_stage, "ada", "reviewer", "operator")
    token = await any_stage.services.sign_in.by_password("ada", PASSWORD, address=HERE)
    principal = (await session(any_stage, token)).principal
    assert principal.name == "ada"
    assert principal.key_id.startswith("u_")
    assert principal.roles == {Role.REVIEWER, Role.OPERATOR}


async def test_a_link_opens_once_and_within_its_hour(any_stage: Stage) -> None:
    link = await invited(any_stage)
    await any_stage.services.sign_in.by_link(link, address=HERE)
    late = await linked(any_stage)
    any_stage.clock.passes(minutes=60)
    for spent in (link, late, "never"):
        with pytest.raises(Forbidden):
            await any_stage.services.sign_in.by_link(spent, address=HERE)


async def test_no_secret_is_kept_as_it_is(stage: Stage) -> None:
    link = await invited(stage)
    token = await stage.services.sign_in.by_link(link, address=HERE)
    await stage.services.sign_in.change_password(
        await session(stage, token), old="", new=PASSWORD, address=HERE
    )
    kept = b"".join(path.read_bytes() for path in stage.files.policies_dir.parent.glob("*.db*"))
    assert not [each for each in (link, token, PASSWORD) if each.encode() in kept]


@pytest.mark.parametrize("new", ["eleven char", "x" * 1_001, "ADA LOVELACE"])
async def test_a_password_that_is_none_is_refused(stage: Stage, new: str) -> None:
    token = await stage.services.sign_in.by_link(await invited(stage, "ada lovelace"), address=HERE)
    with pytest.raises(InvalidInput, match="new password"):
        await stage.services.sign_in.change_password(
            await session(stage, token), old="", new=new, address=HERE
        )


async def test_a_new_password_needs_the_old_one_unless_a_link_let_in(stage: Stage) -> None:
    use = stage.services.sign_in
    token = await joined(stage)
    with pytest.raises(InvalidInput, match="present password"):
        await use.change_password(
            await session(stage, token), old="wrong", new="something else", address=HERE
        )
    again = await use.by_link(await linked(stage), address=HERE)
    await use.change_password(await session(stage, again), old="", new="something else", address=HERE)
    assert await enters(stage, password="something else")
    assert not await enters(stage)


async def test_wrong_passwords_lock_for_longer_and_longer_and_a_right_one_begins_anew(
    any_stage: Stage,
) -> None:
    await joined(any_stage)
    for attempt in range(4):
        assert not await enters(any_stage, password="wrong", address=f"a{attempt}")
    assert await enters(any_stage)
    for attempt in range(5):
        assert not await enters(any_stage, password="wrong", address=f"b{attempt}")
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60):
        any_stage.clock.passes(seconds=60 * minutes - 1)
        assert not await enters(any_stage), minutes
        any_stage.clock.passes(seconds=1)
        assert not await enters(any_stage, password="wrong")
    any_stage.clock.passes(minutes=60)
    assert await enters(any_stage)


async def test_a_refusal_is_the_same_for_unknown_disabled_locked_and_wrong(stage: Stage) -> None:
    await joined(stage)
    await joined(stage, "bob")
    await stage.services.users.disable("bob", by=stage.principal("admin"))
    said = set()
    for name, password in [
        ("nobody", PASSWORD),
        ("bob", PASSWORD),
        *[("ada", "wrong")] * 6,
        ("ada", PASSWORD),
    ]:
        with pytest.raises(Forbidden) as refused:
            await stage.services.sign_in.by_password(name, password, address=HERE)
        said.add((refused.value.code, str(refused.value)))
    assert len(said) == 1


async def test_an_unknown_name_costs_a_guesser_as_much(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 -- the library's
            asked.append(str(hash).rsplit("$", 2)[0])
            return super().verify(hash, password)

    await joined(stage)
    monkeypatch.setattr(passwords, "_hasher", Counting())
    for name in ("ada", "nobody"):
        assert not await enters(stage, name, "wrong password")
    known, unknown = asked
    assert known == unknown, "the same parameters, so the same time"


async def test_a_password_kept_by_older_parameters_is_hashed_anew(stage: Stage) -> None:
    await joined(stage)
    old = PasswordHasher(time_cost=1, memory_cost=1024).hash(PASSWORD)
    [ada] = [user for user in stage.services.users.all() if user["name"] == "ada"]
    await stage.ledger.run(lambda tx: users.change(tx, ada["id"], password_hash=old))
    assert await enters(stage)
    with stage.database.read() as connection:
        found = users.find(connection, name="ada")
    assert found is not None
    assert found.password_hash is not None
    assert not PasswordHasher().check_needs_rehash(found.password_hash)
    assert await enters(stage)


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 100_000, "\ud800", "u_0"])
async def test_a_name_that_nobody_can_have_is_refused_as_any_other(any_stage: Stage, name: str) -> None:
    assert not await enters(any_stage, name)


async def test_every_way_in_and_out_is_in_the_log_without_its_secrets(stage: Stage) -> None:
    use = stage.services.sign_in
    with capture_logs() as log:
        link = await invited(stage)
        token = await use.by_link(link, address=HERE)
        fresh = await use.change_password(await session(stage, token), old="", new=PASSWORD, address=HERE)
        await enters(stage, "typed by mistake", PASSWORD)
        for _ in range(5):
            await enters(stage, password="a wrong one")
        await use.by_key(stage.keys["caller"][1], address=HERE)
        await use.out(await session(stage, fresh))
        await stage.services.users.disable("ada", by=stage.principal("admin"))
    told = [str(line["event"]) for line in log]
    assert [event for event in told if event != "sign_in_failed"] == [
        *("user_created", "user_changed", "signed_in", "user_changed"),
        *("sign_in_locked", "signed_in", "signed_out", "user_changed"),
    ]
    assert told.count("sign_in_failed") == 6
    for secret in (link, token, fresh, PASSWORD, "a wrong one", "typed by mistake", stage.keys["caller"][1]):
        assert secret not in str(log)


async def test_an_address_that_guesses_waits_whatever_it_guesses(stage: Stage) -> None:
    for _ in range(30):
        with pytest.raises(Forbidden, match="no such API key"):
            await stage.services.sign_in.by_key("pg_guess", address="198.51.100.7")
    with pytest.raises(Forbidden, match="too many attempts"):
        await stage.services.sign_in.by_key(stage.keys["caller"][1], address="198.51.100.7")
    await stage.services.sign_in.by_key(stage.keys["caller"][1], address=HERE)
    stage.clock.passes(minutes=5)
    await stage.services.sign_in.by_key(stage.keys["caller"][1], address="198.51.100.7")


async def test_a_session_ends_when_nobody_is_seen_and_in_the_end_anyway(any_stage: Stage) -> None:
    idle, busy = await joined(any_stage), await joined(any_stage, "bob")
    for _ in range(27):
        any_stage.clock.passes(hours=6)
        await session(any_stage, busy)
    assert not await is_in(any_stage, idle)
    any_stage.clock.passes(hours=6)
    assert not await is_in(any_stage, busy), "seven days are over"


async def test_a_page_that_keeps_itself_fresh_keeps_nobody_signed_in(stage: Stage) -> None:
    token = await joined(stage)
    for _ in range(7):
        assert await is_in(stage, token)
        stage.clock.passes(minutes=70)
    assert not await is_in(stage, token)


async def test_looking_often_is_written_once_a_minute(stage: Stage) -> None:
    token = await joined(stage)
    seen = set()
    for _ in range(12):
        stage.clock.passes(seconds=10)
        await session(stage, token)
        seen.add((await session(stage, token)).seen_us)
    assert len(seen) == 3


@pytest.mark.parametrize("act", ["disable", "roles", "password"])
async def test_what_takes_from_a_user_ends_their_sessions_at_once(any_stage: Stage, act: str) -> None:
    token, by = await joined(any_stage), any_stage.principal("admin")
    if act == "disable":
        await any_stage.services.users.disable("ada", by=by)
        assert not await enters(any_stage)
    elif act == "roles":
        await any_stage.services.users.change_roles("ada", roles=["auditor"], by=by)
    else:
        other = await any_stage.services.sign_in.by_password("ada", PASSWORD, address=HERE)
        fresh = await any_stage.services.sign_in.change_password(
            await session(any_stage, other), old=PASSWORD, new="something else", address=HERE
        )
        assert await is_in(any_stage, fresh)
        assert not await is_in(any_stage, other)
    assert not await is_in(any_stage, token)


async def test_signing_out_ends_one_session_or_all_others(stage: Stage) -> None:
    use, here, there = stage.services.sign_in, await joined(stage), ""
    there = await use.by_password("ada", PASSWORD, address=HERE)
    third = await use.by_password("ada", PASSWORD, address=HERE)
    await use.out(await session(stage, third))
    assert (await is_in(stage, here), await is_in(stage, there), await is_in(stage, third)) == (
        True,
        True,
        False,
    )
    assert await use.out_elsewhere(await session(stage, here)) == 1
    assert (await is_in(stage, here), await is_in(stage, there)) == (True, False)


async def test_the_session_of_a_key_ends_with_the_key(stage: Stage) -> None:
    principal, key = stage.keys["operator"]
    token = await stage.services.sign_in.by_key(key, address=HERE)
    assert (await session(stage, token)).principal == principal
    await stage.services.administration.revoke_key(principal.key_id, by=stage.principal("admin"))
    assert not await is_in(stage, token)


async def test_retention_forgets_what_has_run_out(any_stage: Stage) -> None:
    await invited(any_stage, "bob")
    token = await joined(any_stage)
    any_stage.clock.passes(hours=7)
    kept = await any_stage.services.sign_in.by_password("ada", PASSWORD, address=HERE)
    any_stage.clock.passes(hours=2)
    await any_stage.services.sign_in.forget(now_us=any_stage.services.now_us())
    assert (any_stage.rows(t.sessions), any_stage.rows(t.sign_in_links)) == (1, 0)
    assert (await is_in(any_stage, token), await is_in(any_stage, kept)) == (False, True)


async def test_nobody_judges_what_their_actor_asked_be_they_user_or_key(stage: Stage) -> None:
    token = await joined(stage)
    principal = (await session(stage, token)).principal
    document = await stage.decide(actor="ada@here")
    await stage.until(lambda: stage.review(document["id"]))
    review = stage.queue()[0]["id"]
    await stage.services.users.add_actor("ada@here", by=principal)
    principal = (await session(stage, token)).principal
    assert principal.actors == {"ada@here"}
    own = stage.services.reviews
    assert own.list(principal, status="open", rollout=None, kind=None, limit=9, offset=0) == []
    with pytest.raises(Forbidden):
        await own.judge(review, Verdict(Decision.ALLOW), principal)


async def test_nobody_judges_what_any_actor_of_theirs_asked(stage: Stage) -> None:
    """What a key says of its holder's actors is said of the user who has one of them."""
    key, by = ["ada@here", "ada@work"], stage.principal("admin")
    await stage.services.administration.create_key(
        name="ada's laptop", roles=["caller"], actors=key, expires_us=None, by=by
    )
    await stage.services.users.create(name="ada", roles=["reviewer"], actors=["ada@here"], by=by)
    token = await stage.services.sign_in.by_link(await linked(stage), address=HERE)
    await stage.decide(actor="ada@work")
    await stage.decide(actor="somebody else")
    await stage.until(lambda: len(stage.queue()) == 2)
    principal, own = (await session(stage, token)).principal, stage.services.reviews
    [seen] = own.list(principal, status="open", rollout=None, kind=None, limit=9, offset=0)
    assert seen["situation"]["actor_id"] == "somebody else"
    [other] = [each["id"] for each in stage.queue() if each["id"] != seen["id"]]
    with pytest.raises(Forbidden, match="nobody judges"):
        await own.judge(other, Verdict(Decision.ALLOW), principal)


async def test_the_first_start_makes_an_admin_and_a_link_until_somebody_has_come(any_stage: Stage) -> None:
    now_us = any_stage.services.now_us

    async def path() -> str | None:
        return await any_stage.ledger.run(lambda tx: first_link(tx, now_us=now_us()))

    first, second = await path(), await path()
    assert first is not None
    assert second not in (None, first)
    assert [(each["name"], each["roles"]) for each in any_stage.services.users.all()] == [
        ("admin", ["admin"])
    ]
    with pytest.raises(Forbidden, match="this link was used"):
        await any_stage.services.sign_in.by_link(first.removeprefix("/sign-in/"), address=HERE)
    assert second is not None
    await any_stage.services.sign_in.by_link(second.removeprefix("/sign-in/"), address=HERE)
    assert await path() is None


async def test_a_new_link_ends_those_before_it_of_that_user_alone(any_stage: Stage) -> None:
    use = any_stage.services.sign_in
    first, others = await invited(any_stage), await invited(any_stage, "bob")
    second = await linked(any_stage)
    with pytest.raises(Forbidden):
        await use.by_link(first, address=HERE)
    for link in (second, others):
        await use.by_link(link, address=HERE)


async def test_a_link_lets_one_in_of_two_who_come_at_once(any_stage: Stage) -> None:
    link, use = await invited(any_stage), any_stage.services.sign_in
    both = (use.by_link(link, address=HERE), use.by_link(link, address=HERE))
    came = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(isinstance(each, Forbidden) for each in came) == [False, True]


async def test_who_is_signed_out_while_their_password_changes_does_not_change_it(stage: Stage) -> None:
    here = await session(stage, await joined(stage))
    await stage.services.sign_in.out(here)
    with pytest.raises(Forbidden, match="signed out"):
        await stage.services.sign_in.change_password(here, old=PASSWORD, new="something else", address=HERE)
    assert await enters(stage)


async def test_a_link_is_printed_again_where_whoever_came_left_without_a_password(stage: Stage) -> None:
    link = await stage.ledger.run(lambda tx: first_link(tx, now_us=stage.services.now_us()))
    assert link is not None
    token = await stage.services.sign_in.by_link(link.removeprefix("/sign-in/"), address=HERE)
    await stage.services.sign_in.out(await session(stage, token))
    assert await stage.ledger.run(lambda tx: first_link(tx, now_us=stage.services.now_us())) is not None
