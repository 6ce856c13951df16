"""Laws of the answers that are given from memory."""

import asyncio
from collections.abc import Hashable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisory import Advisory, Outcome
from app.domain.decision import Decision
from app.domain.situation import Situation, parse_situation
from app.engines.model.cache import Remembering, question_of
from app.engines.model.prompt import write
from app.engines.model.supervisor import ModelSupervisor
from app.engines.model.wire import Priority
from tests.engines.model.conftest import situation, until

SCOPE = ("read", 1, True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from([0.0, 1.0, 0.5]) | st.text("a;, :\n\ud800", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab ", max_size=2), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
RAW = st.fixed_dictionaries(
    {
        "action_type": st.sampled_from(["read", "write"]),
        "actor_role": st.sampled_from(["developer", "admin"]),
        "actor_id": st.sampled_from(["ann", "bob"]),
        "t3_tensor": st.fixed_dictionaries(
            {name: st.sampled_from([0.8, 0.801, 0.9]) for name in ("competence", "reliability", "integrity")}
        ),
    },
    optional={
        "resource": st.text("a:\n", max_size=2),
        "recent_history": st.text("a;", max_size=2) | st.lists(st.text("a;", max_size=2), max_size=2),
        "identity_metrics": st.dictionaries(st.sampled_from(["level", "b", "a"]), VALUES, max_size=2),
        "details": VALUES,
        "a b": VALUES,
        "A-B": VALUES,
    },
)
LEGACY = st.none() | st.sampled_from(list(Decision))


class Counting(Remembering):
    """A model that counts what it is asked, and waits while it may not answer."""

    is_ready = True

    def __init__(
        self, *, outcome: Outcome = Outcome.OK, shows_legacy: bool = False, entries: int = 4096
    ) -> None:
        super().__init__(entries=entries)
        self.outcome, self.shows_legacy = outcome, shows_legacy
        self.asked = self.restarts = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    @property
    def _life(self) -> Hashable:
        return self.restarts

    async def _compute(self, *_: object) -> Advisory:
        self.asked += 1
        await self.may_answer.wait()
        return Advisory("one", self.outcome, latency_ms=12.0, decision=Decision.ALLOW)


async def ask(
    model: Remembering,
    asked: Situation | None = None,
    *,
    scope: Hashable = SCOPE,
    legacy: Decision | None = None,
) -> Advisory:
    return await model.advise(
        asked or situation(),
        priority=Priority.BINDING,
        deadline_s=30.0,
        legacy=legacy,
        scope=scope,
    )


@given(RAW, RAW, LEGACY, LEGACY)
def test_two_questions_share_a_key_only_where_the_model_reads_the_same(
    one: dict[str, object], other: dict[str, object], said: Decision | None, also: Decision | None
) -> None:
    first, second = parse_situation(one), parse_situation(other)
    if question_of(first, said) == question_of(second, also):
        assert write(first, legacy=said) == write(second, legacy=also)


def test_neither_the_order_of_members_nor_who_asks_makes_another_question() -> None:
    one = situation(details={"a": 1, "b": 2}, actor_id="ann")
    other = situation(details={"b": 2, "a": 1}, actor_id="bob")
    assert question_of(one, None) == question_of(other, None)


async def test_a_remembered_answer_is_the_computed_one_to_the_bit(model: ModelSupervisor) -> None:
    asked = situation(resource="repo:web", details="reads the change log")
    computed, remembered = await ask(model, asked), await ask(model, asked)
    assert (computed.cached, remembered.cached) == (False, True)
    assert replace(remembered, cached=False, latency_ms=computed.latency_ms) == computed
    assert remembered.latency_ms < computed.latency_ms
    again = await ask(model, asked, scope=None)
    assert (again.cached, again.probabilities) == (False, computed.probabilities)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(situation(actor_role="admin"), id="role"),
        pytest.param(situation(timestamp="12:00"), id="time"),
        pytest.param(situation(resource="x"), id="resource"),
    ],
)
async def test_another_question_is_computed(other: Situation) -> None:
    model = Counting()
    await ask(model)
    assert not (await ask(model, other)).cached


async def test_a_question_is_computed_once_in_each_scope_and_always_without_one() -> None:
    model = Counting()
    for scope in (SCOPE, SCOPE, ("read", 2, True), None, None):
        await ask(model, scope=scope)
    assert model.asked == 4


@pytest.mark.parametrize("shown", [True, False])
async def test_another_legacy_answer_is_another_question_only_where_it_is_shown(*, shown: bool) -> None:
    model = Counting(shows_legacy=shown)
    await ask(model, legacy=Decision.ALLOW)
    assert (await ask(model, legacy=Decision.DENY)).cached is not shown


@pytest.mark.parametrize("outcome", [one for one in Outcome if one not in (Outcome.OK, Outcome.UNSURE)])
async def test_a_failure_is_never_remembered(outcome: Outcome) -> None:
    model = Counting(outcome=outcome)
    assert (await ask(model)).outcome is outcome
    assert not (await ask(model)).cached


async def test_an_unsure_answer_is_remembered_as_unsure() -> None:
    model = Counting(outcome=Outcome.UNSURE)
    await ask(model)
    assert ((again := await ask(model)).outcome, again.cached) == (Outcome.UNSURE, True)


async def test_the_memory_is_bounded_and_gives_up_what_was_not_asked_for_longest() -> None:
    model = Counting(entries=2)
    first, second, third = (situation(resource=name) for name in "abc")
    for asked in (first, second, first, third):
        await ask(model, asked)
    assert [(await ask(model, asked)).cached for asked in (first, third)] == [True, True]
    assert not (await ask(model, second)).cached


async def test_a_restarted_worker_has_forgotten() -> None:
    model = Counting()
    await ask(model)
    model.restarts += 1
    assert not (await ask(model)).cached


async def test_memory_does_not_stand_in_for_a_model_that_is_down() -> None:
    model = Counting()
    await ask(model)
    model.is_ready = False
    assert not (await ask(model)).cached


async def test_after_trouble_the_model_itself_says_whether_it_is_well() -> None:
    model = Counting()
    other = situation(resource="x")
    await ask(model)
    model.outcome = Outcome.TIMEOUT
    await ask(model, other)
    assert (await ask(model)).outcome is Outcome.TIMEOUT
    model.outcome = Outcome.OK
    await ask(model)
    assert model.asked == 4
    await ask(model)
    assert model.asked == 4


async def test_of_two_that_ask_the_same_at_once_one_is_news() -> None:
    model = Counting()
    model.may_answer.clear()
    tasks = [asyncio.create_task(ask(model)) for _ in range(2)]
    await until(lambda: model.asked == 2)
    model.may_answer.set()
    assert sorted(answer.cached for answer in await asyncio.gather(*tasks)) == [False, True]
