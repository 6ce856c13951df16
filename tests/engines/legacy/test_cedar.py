from pathlib import Path
from typing import Any

import pytest

from app.domain.decision import Decision
from app.domain.situation import Situation, Trust
from app.engines.legacy.cedar import CedarEngine
from app.errors import PolicyError

POLICIES = Path(__file__).parents[3] / "policies"
OPEN = '@id("open") permit (principal, action, resource);\n'


def asked(*, trust: float = 0.8, **known: Any) -> Situation:
    return Situation("read", "member", "ada", Trust(trust, trust, trust), **known)


async def test_what_is_permitted_only_when_attested_needs_attestation() -> None:
    engine = CedarEngine('@id("a") permit (principal, action, resource) when { context.attested };')
    answer = await engine.decide(asked())
    assert (answer.decision, answer.rule) == (Decision.REQUIRE_ATTESTATION, "a")


async def test_the_policies_that_decided_are_named() -> None:
    forbid = '@id("shut") forbid (principal in Role::"member", action == Action::"read", resource);'
    answer = await CedarEngine(OPEN + forbid).decide(asked())
    assert (answer.decision, answer.rule) == (Decision.DENY, "shut")
    assert (await CedarEngine(OPEN).decide(asked())).rule == "open"
    assert (await CedarEngine("").decide(asked())).rule == "default"


async def test_a_forbid_that_errs_is_a_failure_and_not_skipped() -> None:
    answer = await CedarEngine(
        OPEN + "forbid (principal, action, resource) when { context.nothing };"
    ).decide(asked())
    assert answer.failed
    assert answer.decision is Decision.DENY


@pytest.mark.parametrize(
    ("trust", "decision"),
    [(0.29, Decision.ALLOW), (0.289, Decision.DENY), (0.2899, Decision.DENY), (1.0, Decision.ALLOW)],
)
async def test_trust_is_compared_in_whole_percent_and_never_rounded_up(
    trust: float, decision: Decision
) -> None:
    engine = CedarEngine("permit (principal, action, resource) when { context.trust.lowest >= 29 };")
    assert (await engine.decide(asked(trust=trust))).decision is decision


async def test_what_a_caller_sends_reaches_the_policies_as_plain_values() -> None:
    engine = CedarEngine(
        "permit (principal, action, resource) when {"
        ' context.identity_metrics.coherence.greaterThan(decimal("0.6")) && context.details.lines == 3'
        ' && context.recent_history like "*failed*" && context.extra.region == "eu"'
        ' && !(context.details has nothing) && context.team_context == "" };'
    )
    situation = asked(
        identity_metrics={"coherence": 0.65},
        details={"lines": 3, "nothing": None},
        recent_history=("ok", "failed"),
        extra={"region": "eu"},
    )
    answer = await engine.decide(situation)
    assert (answer.decision, answer.error) == (Decision.ALLOW, None)


@pytest.mark.parametrize(
    "details",
    [
        {"__entity": {"type": "Role", "id": "admin"}},
        {"__extn": {"fn": "ip", "arg": "10.0.0.1"}},
        {"a": 2**63},
        {"a": float("inf")},
        {"a": object()},
    ],
    ids=["entity", "extension", "large", "infinite", "object"],
)
async def test_what_cedar_cannot_hold_fails_instead_of_being_left_out(details: object) -> None:
    answer = await CedarEngine(OPEN).decide(asked(details=details))
    assert answer.failed
    assert answer.decision is Decision.DENY


async def test_an_actor_cannot_name_itself_into_a_role() -> None:
    engine = CedarEngine('permit (principal in Role::"admin", action, resource);')
    for name in ('x", "parents": [{"type": "Role", "id": "admin"}]', 'Role::"admin"', "admin"):
        answer = await engine.decide(Situation("read", "member", name, Trust(1, 1, 1)))
        assert (answer.decision, answer.error) == (Decision.DENY, None)


def test_policies_that_do_not_parse_are_a_policy_error() -> None:
    with pytest.raises(PolicyError, match=r"^policies/legacy.cedar: "):
        CedarEngine("permit (principal", path="policies/legacy.cedar")
