"""Who makes users, and what may nobody do to their own account?"""

import pytest

from app.domain.phase import Phase
from app.errors import Conflict, Forbidden, InvalidInput, NotFound
from app.store.approvals import standing
from tests.services.plane import Stage
from tests.services.test_approvals import advised
from tests.services.test_sign_in import joined, linked, session

__all__ = ["advised"]


@pytest.mark.parametrize(
    ("name", "roles", "actors", "field"),
    [
        (" ", ["reviewer"], [], "name"),
        ("a\x00b", ["reviewer"], [], "name"),
        ("a/b", ["reviewer"], [], "name"),
        ("u_1", ["reviewer"], [], "name"),
        ("x" * 81, ["reviewer"], [], "name"),
        ("ada", [], [], "roles"),
        ("ada", ["king"], [], "roles"),
        ("ada", ["reviewer"], [" "], "actors"),
        ("ada", ["reviewer"], ["x" * 201], "actors"),
    ],
)
async def test_a_user_that_makes_no_sense_is_refused(
    stage: Stage, name: str, roles: list[str], actors: list[str], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await stage.services.users.create(name=name, roles=roles, actors=actors, by=stage.principal("admin"))
    assert [each for each, _ in refused.value.fields] == [field]


async def test_a_name_is_one_user(any_stage: Stage) -> None:
    await joined(any_stage)
    with pytest.raises(Conflict, match="'ada'"):
        await joined(any_stage)
    with pytest.raises(NotFound):
        await linked(any_stage, "bob")


async def test_nobody_disables_promotes_or_unburdens_themselves(stage: Stage) -> None:
    token, use = await joined(stage, "ada", "admin"), stage.services.users
    ada = (await session(stage, token)).principal
    await use.add_actor("ada@here", by=ada)
    await use.change_actors("ada", actors=["ada@here", "ada@home"], by=ada)
    for act in (
        use.disable("ada", by=ada),
        use.change_roles("ada", roles=["admin", "reviewer"], by=ada),
        use.change_actors("ada", actors=["ada@home"], by=ada),
    ):
        with pytest.raises(Forbidden, match="another admin"):
            await act
    changed = await use.change_actors("ada", actors=[], by=stage.principal("admin"))
    assert changed["actors"] == []


async def test_a_disabled_user_comes_back_only_when_enabled(stage: Stage) -> None:
    token, use, by = await joined(stage), stage.services.users, stage.principal("admin")
    link = await linked(stage)
    assert (await use.disable("ada", by=by))["disabled_at"] is not None
    with pytest.raises(Conflict, match="disabled"):
        await linked(stage)
    with pytest.raises(Forbidden):
        await stage.services.sign_in.by_link(link, address="x")
    assert await stage.services.sign_in.session(token, is_used=True) is None
    assert (await use.enable("ada", by=by))["disabled_at"] is None
    await stage.services.sign_in.by_link(await linked(stage), address="x")


async def test_what_a_user_did_bears_their_name(any_stage: Stage) -> None:
    token = await joined(any_stage, "ada", "operator")
    ada = (await session(any_stage, token)).principal
    made = await any_stage.services.levers.hold("read", by=ada, reason="a look")
    assert made["actor_name"] == "ada"
    assert made["sentence"] == "ada held read: a look"
    assert any_stage.services.rollouts.transitions("read", limit=1)[0]["actor_name"] == "ada"


async def test_the_word_of_a_user_stands_until_they_are_disabled(advised: Stage) -> None:
    token = await joined(advised, "ada", "approver")
    ada = (await session(advised, token)).principal
    await advised.services.approvals.approve(
        "read",
        to=Phase.ENFORCED,
        reason="seen",
        expected_revision=advised.state("read").revision,
        by=ada,
    )
    assert word_of(advised) == ["ada"]
    await advised.services.users.disable("ada", by=advised.principal("admin"))
    assert word_of(advised) == []


def word_of(stage: Stage) -> list[str]:
    with stage.database.read() as connection:
        return [each.name for each in standing(connection)]
