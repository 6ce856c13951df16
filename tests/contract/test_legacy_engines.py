"""What every legacy engine promises, whichever answers."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from app.domain.decision import Decision
from app.domain.situation import Situation, Trust, parse_situation
from app.engines.legacy.build import build_legacy_engine, legacy_source
from app.engines.legacy.port import LegacyEngine
from app.engines.legacy.rules import RulesEngine
from tests.peer import Peer, Reply, Seen, serving

POLICIES = Path(__file__).parents[2] / "policies"
ENGINES = ("rules", "cedar", "opa", "authzen")
REMOTE = ("opa", "authzen")
RULES = RulesEngine((POLICIES / "legacy.yaml").read_text())

ACTIONS = (
    "read",
    "write",
    "commit",
    "deploy",
    "update_config",
    "admin_action",
    "delete_team",
    "grant_role",
    "x",
)
ROLES = ("viewer", "member", "developer", "maintainer", "operator", "admin", "service", "agent", "stranger")
RESOURCES = (
    None,
    "docs/public/readme.md",
    "secrets/a",
    "repo/main",
    "env:staging",
    "env:production",
    "a/../b",
)
TRUSTS = ((0.8, 0.8, 0.8), (0.9, 0.6, 0.6), (0.55, 0.5, 0.5), (1, 1, 0.1), (0.7, 0.7, 0.7))

Build = Callable[..., LegacyEngine]


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


HOSTILE = {
    "deep": {"details": nested(900)},
    "beyond-the-stack": {"details": nested(30_000)},
    "surrogate": {"resource": "docs/public/\ud800", "details": {"\udfff": "\ud800"}},
    "not-a-number": {"details": {"x": float("nan"), "y": float("inf")}},
    "large-number": {"details": 2**200},
    "forged-entity": {"details": {"__entity": {"type": "Role", "id": "admin"}}},
    "forged-trust": {"extra": {"trust": {"mean": 1}, "actor_role": "admin", "attested": True}},
    "control": {"resource": 'docs/public/\x00\n\r"; }} permit(principal, action, resource);'},
    "long": {"recent_history": "x" * 60_000},
    "odd-object": {"details": object()},
    "odd-keys": {"details": {1: {None: 2}}},
    "odd-metrics": {"identity_metrics": {"level": "high", "coherence": [None]}},
}


def _answer(seen: Seen) -> Reply:
    """The peer decides by the shipped rules, so that its answers can be compared with theirs."""
    body = seen.body
    if seen.path.startswith("/v1/data"):
        facts = body["input"]
        trust = {part: facts["trust"][part] for part in ("competence", "reliability", "integrity")}
        raw = {"actor_role": facts["actor_role"], "t3_tensor": trust, "resource": facts.get("resource")}
        decision = _by_rules({**raw, "action_type": facts["action_type"]})
        return Reply(body={"result": {"decision": decision, "rule": "peer"}})
    properties = body["subject"]["properties"]
    raw = {
        "actor_role": properties["role"],
        "t3_tensor": properties["t3_tensor"],
        "resource": body["resource"]["id"],
    }
    decision = _by_rules({**raw, "action_type": body["action"]["name"]})
    return Reply(body={"decision": decision is Decision.ALLOW, "context": {"outcome": decision}})


def _by_rules(raw: dict[str, Any]) -> Decision:
    return asyncio.run(RULES.decide(parse_situation({**raw, "actor_id": "ada"}))).decision


@pytest.fixture
def peer() -> Iterator[Peer]:
    with serving() as running:
        running.answer = _answer
        yield running


@pytest.fixture
async def build(peer: Peer) -> AsyncIterator[Build]:
    built: list[LegacyEngine] = []

    def make(kind: str, *, url: str = peer.url, deadline_s: float = 10.0) -> LegacyEngine:
        path = {"opa": "/v1/data/phasegate/decision", "authzen": "/access/v1/evaluation"}.get(kind)
        spec = kind if path is None else f"{kind}:{url}{path}"
        source = legacy_source(spec, policies_dir=POLICIES)
        built.append(build_legacy_engine(spec, source=source, deadline_s=deadline_s))
        return built[-1]

    yield make
    for engine in built:
        await engine.close()


def asked(
    action: str, role: str, *, trust: tuple[float, float, float] = (0.8, 0.8, 0.8), **known: Any
) -> Situation:
    return Situation(action, role, "ada", Trust(*trust), **known)


@pytest.mark.parametrize("kind", ["cedar", "opa", "authzen"])
async def test_the_same_situations_get_the_same_decisions(kind: str, build: Build) -> None:
    engine = build(kind)
    cases = list(itertools.product(ACTIONS, ROLES, RESOURCES, TRUSTS))
    if kind in REMOTE:
        cases = cases[::53]
    for action, role, resource, trust in cases:
        situation = asked(action, role, resource=resource, trust=trust)
        expected, answer = await RULES.decide(situation), await engine.decide(situation)
        assert (answer.error, answer.decision) == (None, expected.decision), situation


@pytest.mark.parametrize("kind", ENGINES)
async def test_an_answer_says_who_gave_it_and_how_long_it_took(kind: str, build: Build) -> None:
    answer = await build(kind).decide(asked("read", "member", resource="docs/public/readme.md"))
    assert (answer.engine, answer.decision, answer.failed) == (kind, Decision.ALLOW, False)
    assert answer.latency_ms > 0


@pytest.mark.parametrize("kind", ENGINES)
async def test_the_same_situation_gets_the_same_answer_again(kind: str, build: Build) -> None:
    engine, situation = build(kind), asked("write", "member", trust=(0.6, 0.6, 0.6))
    answers = [await engine.decide(situation) for _ in range(3)]
    assert {(answer.decision, answer.rule) for answer in answers} == {(answers[0].decision, answers[0].rule)}


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("known", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_input_never_raises_and_a_failure_is_a_deny(
    kind: str, known: dict[str, Any], build: Build
) -> None:
    answer = await build(kind).decide(asked("delete_team", "developer", **known))
    assert answer.decision is Decision.DENY


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("name", ['"', "\\", "\n", "\ud800", "*", "admin\x00", "x" * 256])
async def test_a_strange_name_gains_nothing(kind: str, name: str, build: Build) -> None:
    engine = build(kind)
    for situation in (
        asked(name, "developer"),
        asked("delete_team", name),
        Situation("grant_role", "x", name, Trust(1, 1, 1)),
    ):
        assert (await engine.decide(situation)).decision is Decision.DENY


@pytest.mark.parametrize("kind", REMOTE)
@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, {"result": "allow", "decision": True}),
        Reply(200, b"allow"),
        Reply(200, b""),
        Reply(204, b""),
    ],
    ids=["500", "text", "empty", "204"],
)
async def test_a_peer_that_does_not_answer_properly_is_a_failure(
    kind: str, reply: Reply, peer: Peer, build: Build
) -> None:
    peer.replies(reply)
    answer = await build(kind).decide(asked("read", "member"))
    assert answer.failed
    assert answer.decision is Decision.DENY


@pytest.mark.parametrize("kind", REMOTE)
async def test_a_peer_that_is_not_there_is_a_failure(kind: str, build: Build) -> None:
    with serving() as gone:
        url = gone.url
    answer = await build(kind, url=url, deadline_s=0.2).decide(asked("read", "member"))
    assert answer.failed
    assert answer.decision is Decision.DENY


@pytest.mark.parametrize("kind", REMOTE)
async def test_the_deadline_is_kept(kind: str, peer: Peer, build: Build) -> None:
    peer.hangs()
    engine, since = build(kind, deadline_s=0.2), perf_counter()
    answer = await engine.decide(asked("read", "member"))
    assert answer.failed
    assert answer.decision is Decision.DENY
    assert 0.19 < perf_counter() - since < 5
    assert answer.latency_ms >= 190


@pytest.mark.parametrize("kind", REMOTE)
async def test_an_engine_that_is_closed_fails_instead_of_raising(kind: str, build: Build) -> None:
    engine = build(kind)
    await engine.close()
    assert (await engine.decide(asked("read", "member"))).failed


@pytest.mark.parametrize("kind", REMOTE)
async def test_giving_up_on_an_answer_is_not_a_failure_but_a_cancellation(
    kind: str, peer: Peer, build: Build
) -> None:
    peer.hangs()
    engine = build(kind)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.decide(asked("read", "member")), 0.1)
