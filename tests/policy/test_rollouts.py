from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.limits import Requirement, Risk
from app.domain.phase import Phase
from app.domain.rollout import Approval, Combine
from app.domain.situation import Situation, Trust
from app.errors import NotFound, PolicyError
from app.policy.rollouts import book_of, parse_rollouts, render

LAST = "  other: {actions: ['*'], risk: high, ceiling: advisory}\n"


def situation(action: str, resource: str | None = None) -> Situation:
    return Situation(action, "developer", "ada", Trust(0.8, 0.8, 0.8), resource=resource)


def with_read(entry: str) -> str:
    return f"rollouts:\n  read:\n    actions: [read]\n    risk: low\n    ceiling: enforced\n{entry}\n{LAST}"


def test_the_first_rollout_that_fits_takes_the_situation() -> None:
    book = parse_rollouts(
        "rollouts:\n"
        "  safe: {actions: [deploy, read], when: \"resource.startsWith('env:dev')\", risk: low, ceiling: enforced}\n"
        "  deploy: {actions: [deploy], risk: high, ceiling: enforced}\n" + LAST
    )
    taken = {
        (action, resource): book.match(situation(action, resource)).name
        for action in ("deploy", "read", "*", "")
        for resource in ("env:dev-1", "env:production", None)
    }
    assert taken == {
        ("deploy", "env:dev-1"): "safe",
        ("deploy", "env:production"): "deploy",
        ("deploy", None): "deploy",
        ("read", "env:dev-1"): "safe",
        ("read", "env:production"): "other",
        ("read", None): "other",
        **{
            (action, resource): "other"
            for action in ("*", "")
            for resource in ("env:dev-1", "env:production", None)
        },
    }


def test_a_conditional_star_takes_what_it_may_and_leaves_the_rest() -> None:
    book = parse_rollouts(
        "rollouts:\n  docs: {actions: ['*'], when: \"resource == 'docs'\", risk: low, ceiling: enforced}\n"
        "  read: {actions: [read], risk: low, ceiling: enforced}\n" + LAST
    )
    assert [book.match(situation("read", resource)).name for resource in ("docs", "x")] == ["docs", "read"]
    assert [book.match(situation("foo", resource)).name for resource in ("docs", "x")] == ["docs", "other"]


@given(st.text(), st.none() | st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_nothing_is_unmatched(action: str, resource: str | None, details: Any) -> None:
    book = parse_rollouts(
        "rollouts:\n  odd: {actions: ['*'], when: details.contains(resource), risk: low, ceiling: enforced}\n"
        + LAST
    )
    asked = Situation(action, "x", "y", Trust(0, 0, 0), resource=resource, details=details)
    assert book.match(asked).name in ("odd", "other")


def test_what_is_left_out_comes_from_the_risk_and_the_defaults() -> None:
    book = parse_rollouts(
        "defaults: {deadline_ms: 700, alpha: 0.02, gate_alpha: 0.1, error_limit: 0.03}\n"
        "rollouts:\n"
        "  low: {actions: [a], risk: low, ceiling: enforced, guardrails: {error_limit: 0.5}, deadline_ms: 900}\n"
        "  high: {actions: [b], risk: high, ceiling: enforced}\n"
        "  critical: {actions: [c], risk: critical, ceiling: advisory}\n" + LAST
    )
    low, high, critical = (book.get(name) for name in ("low", "high", "critical"))
    assert (low.combine, high.combine, critical.combine) == (
        Combine.MODEL,
        Combine.STRICTER,
        Combine.STRICTER,
    )
    assert [policy.approval for policy in (low, high, critical)] == [
        Approval.NONE,
        Approval.NONE,
        Approval.HUMAN,
    ]
    assert [policy.cache for policy in (low, high, critical)] == [True, False, False]
    assert (low.deadline_ms, high.deadline_ms, high.gate_alpha) == (900, 700, 0.1)
    assert (low.guardrails.error_limit, high.guardrails.error_limit, low.guardrails.alpha) == (
        0.5,
        0.03,
        0.02,
    )


def test_every_phase_up_to_the_ceiling_has_a_gate_and_none_above() -> None:
    book = parse_rollouts(
        "rollouts:\n  high: {actions: [b], risk: high, ceiling: enforced}\n"
        "  shadowed: {actions: [c], risk: low, ceiling: shadow}\n" + LAST
    )
    assert [set(policy.gates) for policy in book.policies] == [
        {Phase.ADVISORY, Phase.ENFORCED},
        set(),
        {Phase.ADVISORY},
    ]
    assert book.get("high").gates[Phase.ENFORCED].wrong_allow_below == 0.01


def test_an_entry_says_all_that_a_rollout_may_be_told() -> None:
    book = parse_rollouts(
        with_read(
            "    requires: {write: {enforced_days: 0.5, override_below: 0.1}}\n"
            "    exposure: [0.5, 25, 100]\n    combine: stricter\n    approval: human\n    rollback_to: shadow\n"
            "    advisory_wait_ms: 20\n    observe_rate: 0\n    review_rate: 1\n    attestation_ttl_s: 60\n"
            "    review_due_days: 1\n    rollback_observe_days: 0\n    confidence_at_least: 0.7\n"
            "    cache: false\n"
            "  write: {actions: [write], risk: medium, ceiling: enforced}"
        )
    )
    read = book.get("read")
    assert read.requires == (Requirement("write", 0.5, 0.1),)
    assert read.exposure == (0.005, 0.25, 1.0)
    assert (read.combine, read.approval, read.rollback_to) == (Combine.STRICTER, Approval.HUMAN, Phase.SHADOW)
    assert (read.observe_rate, read.review_rate, read.confidence_at_least) == (0, 1, 0.7)
    assert (read.risk, read.cache) == (Risk.LOW, False)


@pytest.mark.parametrize(
    ("entry", "line", "key", "says"),
    [
        ("    ceilling: enforced", 6, "rollouts.read.ceilling", "did you mean 'ceiling'"),
        ("    combine: strict", 6, "rollouts.read.combine", "did you mean 'stricter'"),
        ("    approval: robot", 6, "rollouts.read.approval", "none, human"),
        ("    rollback_to: enforced", 6, "rollouts.read.rollback_to", "ends in advisory or shadow"),
        ("    deadline_ms: soon", 6, "rollouts.read.deadline_ms", "must be a number"),
        ("    cache: often", 6, "rollouts.read.cache", "true or false"),
        ("    deadline_ms: 0", 6, "rollouts.read.deadline_ms", "from 1"),
        ("    advisory_wait_ms: 9000", 6, "rollouts.read.advisory_wait_ms", "longer"),
        ("    when: 'resource =='", 6, "rollouts.read.when", "Failed to parse"),
        ("    when: resorce == 'x'", 6, "rollouts.read.when", "did you mean 'resource'"),
        ("    exposure: [5, 5, 100]", 6, "rollouts.read.exposure[1]", "must rise"),
        ("    exposure: [5, 50]", 6, "rollouts.read.exposure", "end at 100"),
        ("    exposure: []", 6, "rollouts.read.exposure", "at least one"),
        ("    exposure: [0, 100]", 6, "rollouts.read.exposure[0]", "from 0.1 to 100"),
        ("    guardrails: {override_limit: 1}", 6, "rollouts.read.guardrails.override_limit", "below 1"),
        ("    guardrails: {error_limit: 0}", 6, "rollouts.read.guardrails.error_limit", "above 0"),
        (
            "    guardrails:\n      overide_limit: 0.1",
            7,
            "rollouts.read.guardrails.overide_limit",
            "did you mean",
        ),
        (
            "    guardrails: {latency_alert_ms: 10}",
            6,
            "rollouts.read.guardrails.latency_alert_ms",
            "10, lies below latency_target_ms, 5000",
        ),
        (
            "    guardrails: {latency_target_ms: 20000}",
            6,
            "rollouts.read.guardrails.latency_target_ms",
            "10000, lies below latency_target_ms, 20000",
        ),
        (
            "    guardrails: {queries: {burn: {query: x, above: 1, looks: 2.5}}}",
            6,
            "rollouts.read.guardrails.queries.burn.looks",
            "whole number",
        ),
        (
            "    gates: {advisory: {agreement_above: 90}}",
            6,
            "rollouts.read.gates.advisory.agreement_above",
            "below 1",
        ),
        ("    gates: {advisory: {soak_days: -1}}", 6, "rollouts.read.gates.advisory.soak_days", "from 0"),
        ("    gates: {enforced: {}}", 6, "rollouts.read.gates.enforced", "asks for nothing"),
        (
            "    gates: {enforced: {reviewed_at_least: 0}}",
            6,
            "rollouts.read.gates.enforced",
            "asks for nothing",
        ),
        ("    gates: {shadow: {soak_days: 1}}", 6, "rollouts.read.gates.shadow", "unknown key"),
        ("    requires: {wrte: {enforced_days: 1}}", 6, "rollouts.read.requires.wrte", "no rollout"),
        ("    requires: {read: {enforced_days: 1}}", 6, "rollouts.read.requires.read", "cycle"),
        ("    requires: {other: {enforced_days: 1}}", 6, "rollouts.read.requires.other", "can never hold"),
        ("    requires: {other: {}}", 6, "rollouts.read.requires.other.enforced_days", "is required"),
        ("    confidence_at_least: 1", 6, "rollouts.read.confidence_at_least", "from 0"),
        (
            "  read2: {actions: [read], risk: low, ceiling: shadow}",
            6,
            "rollouts.read2",
            "unreachable: 'read'",
        ),
        ("  Read: {actions: [x], risk: low, ceiling: shadow}", 6, "rollouts.Read", "name"),
        ("  x: {actions: [x, x], risk: low, ceiling: shadow}", 6, "rollouts.x.actions[1]", "twice"),
        ("  x: {actions: x, risk: low, ceiling: shadow}", 6, "rollouts.x.actions", "list"),
        ("  x: {actions: [x], ceiling: shadow}", 6, "rollouts.x.risk", "is required"),
        ("  x: [x]", 6, "rollouts.x", "mapping"),
        (
            "  x: {actions: [x], risk: low, ceiling: advisory, gates: {enforced: {soak_days: 1}}}",
            6,
            "rollouts.x.gates.enforced",
            "above the ceiling",
        ),
    ],
)
def test_a_mistake_is_reported_with_file_line_and_key(entry: str, line: int, key: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        parse_rollouts(with_read(entry), path="policies/rollouts.yaml")
    assert (caught.value.path, caught.value.line, caught.value.key) == ("policies/rollouts.yaml", line, key)


def test_a_cycle_through_several_rollouts_is_found() -> None:
    entries = "".join(
        f"  {name}: {{actions: [{name}], risk: low, ceiling: enforced, requires: {{{next_}: {{enforced_days: 1}}}}}}\n"
        for name, next_ in (("a", "b"), ("b", "c"), ("c", "a"))
    )
    with pytest.raises(PolicyError, match=r"rollouts.a.requires.b: is a cycle"):
        parse_rollouts("rollouts:\n" + entries + LAST)


@pytest.mark.parametrize(
    "last",
    ["", "  other: {actions: ['*'], when: resource == 'x', risk: high, ceiling: advisory}\n"],
    ids=["none", "conditional"],
)
def test_a_file_without_an_unconditional_star_is_refused(last: str) -> None:
    text = "rollouts:\n  read: {actions: [read], risk: low, ceiling: enforced}\n" + last
    with pytest.raises(PolicyError, match="unmatched"):
        parse_rollouts(text)


def test_what_stands_behind_the_star_is_unreachable() -> None:
    with pytest.raises(PolicyError, match="unreachable: 'other'"):
        parse_rollouts("rollouts:\n" + LAST + "  read: {actions: [read], risk: low, ceiling: enforced}\n")


def test_a_default_with_a_typo_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"defaults.deadline: unknown key; did you mean 'deadline_ms'"):
        parse_rollouts("defaults: {deadline: 5}\nrollouts:\n" + LAST)


def test_defaults_that_alert_before_their_target_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"defaults.latency_target_ms: latency_alert_ms, 10000, lies below"):
        parse_rollouts("defaults: {latency_target_ms: 20000}\nrollouts:\n" + LAST)


def test_an_unknown_rollout_is_not_found() -> None:
    with pytest.raises(NotFound):
        parse_rollouts("rollouts:\n" + LAST).get("nothing")


def test_a_book_written_out_reads_back_the_same() -> None:
    book = parse_rollouts(
        with_read("    exposure: [7, 100]\n    when: resource == 'x'\n    gate_alpha: 0.07")
    )
    assert parse_rollouts(render(book.policies)).policies == book.policies
    assert book_of(book.policies).match(situation("read", "x")).name == "read"
