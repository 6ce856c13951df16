"""What would have been different, of all that was decided in a period?"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from app.domain.admission import Claim
from app.domain.advisory import Advisory
from app.domain.clock import rfc3339
from app.domain.counters import advisory_counts
from app.domain.decision import Decision, LegacyAnswer, is_wrong_allow
from app.domain.evidence import Evidence
from app.domain.rollout import RolloutPolicy
from app.services.replay import Replayed, WhatIf, answer_again
from app.services.replay_watch import Watch
from app.store.recorded import Recorded

_START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Side:
    """What the engines said of the decisions, then or now, and how often people found the model right."""

    totals: Counter[tuple[str, str]] = field(default_factory=Counter)
    judged: int = 0
    right: int = 0
    wrong_allows: int = 0

    def add(self, advisory: Advisory | None, legacy: LegacyAnswer, verdict: Decision | None) -> None:
        if advisory is None:
            return
        said = replace(advisory, cached=False)
        for metric, label, n in advisory_counts(said, legacy, exposed=True, claim=Claim.ADMITTED):
            self.totals[metric, label] += n
        if verdict is not None and advisory.answer is not None:
            self.judged += 1
            self.right += advisory.answer is verdict
            self.wrong_allows += is_wrong_allow(advisory.answer, verdict)

    def to_wire(self) -> dict[str, Any]:
        of = Evidence("", "", 0, _START, totals=self.totals)
        n = of.compared
        return {
            "agreement": {"n": n, "agreed": of.agreed, "rate": of.agreed / n if n else None},
            "verdicts": {"n": self.judged, "right": self.right, "wrong": self.judged - self.right},
            "wrong_allows": self.wrong_allows,
            "distribution": of.distribution,
            "errors": of.errors,
            "latency_ms": {"p50": of.percentile_ms(0.50), "p95": of.percentile_ms(0.95)},
        }


class _Account:
    """One rollout: what it decided then and would now, with a few examples of each kind of change."""

    def __init__(self, watch: Watch, *, limit: int) -> None:
        self.watch = watch
        self._limit = limit
        self._then, self._now = _Side(), _Side()
        self._decisions: Counter[tuple[str, str]] = Counter()
        self._answers: Counter[tuple[str, str]] = Counter()
        self._kinds: Counter[str] = Counter()
        self._examples: dict[str, list[dict[str, Any]]] = {"milder": [], "stricter": [], "model": []}

    def add(self, now: Replayed) -> None:
        was = now.was
        self._then.add(was.advisory, was.legacy, was.verdict)
        self._now.add(now.advisory, now.legacy, was.verdict)
        self._decisions[was.decision, now.answer.decision] += 1
        if was.advisory is not None and now.advisory is not None:
            self._answers[_said(was.advisory), _said(now.advisory)] += 1
        self._kinds["moved here"] += was.rollout != now.policy.name
        kind = _kind(now)
        if kind is not None:
            self._kinds[kind] += 1
            if len(self._examples[kind]) < self._limit:
                self._examples[kind].append(_example(now))
        self.watch.see(now)

    def to_wire(self) -> dict[str, Any]:
        examples = [each for found in self._examples.values() for each in found]
        return {
            "rollout": self.watch.policy.name,
            "decisions": self._decisions.total(),
            "moved_here": self._kinds["moved here"],
            "changed": self._kinds["milder"] + self._kinds["stricter"],
            "milder": self._kinds["milder"],
            "stricter": self._kinds["stricter"],
            "confusion": _table(self._decisions),
            "model_confusion": _table(self._answers),
            "then": self._then.to_wire(),
            "now": self._now.to_wire(),
            "examples": examples[: self._limit],
            "alarms": self.watch.alarms,
        }


@dataclass(slots=True)
class Replay:
    """Takes decisions in the order in which they were made, and tells at the end what came of it.

    `baselines` are of each rollout's last shadow epoch before, `only` names the rollouts of interest (by
    default all), `limit` bounds the examples of each. `erased` situations and decisions for which the model
    was `unasked` cannot be answered again.
    """

    what: WhatIf
    baselines: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    only: Collection[str] = ()
    limit: int = 10
    erased: int = 0
    unasked: int = 0
    accounts: dict[str, _Account] = field(default_factory=dict)

    async def take(self, was: Recorded) -> None:
        """Answer one decision again. Raises what the version raises where it cannot be asked."""
        situation = was.situation
        if situation is None:
            self.erased += 1
        elif not self.only or self.what.book.match(situation).name in self.only:
            now = await answer_again(was, situation, self.what)
            if now is None:
                self.unasked += 1
            else:
                self._account(now.policy).add(now)

    def _account(self, policy: RolloutPolicy) -> _Account:
        if policy.name not in self.accounts:
            watch = Watch(policy, self.what, self.baselines.get(policy.name))
            self.accounts[policy.name] = _Account(watch, limit=self.limit)
        return self.accounts[policy.name]

    def to_wire(self, *, since_us: int, until_us: int) -> dict[str, Any]:
        """The document, in the order of the policy's rollouts; ends the watch."""
        rows = []
        for name in filter(self.accounts.__contains__, self.what.book.names):
            self.accounts[name].watch.end(until_us)
            rows.append(self.accounts[name].to_wire())
        sums = ("decisions", "changed", "milder", "stricter")
        return {
            "from": rfc3339(since_us),
            "to": rfc3339(until_us),
            "version": self.what.version,
            "phase": self.what.phase,
            **{name: sum(row[name] for row in rows) for name in sums},
            "erased": self.erased,
            "unasked": self.unasked,
            "rollouts": rows,
        }


def _kind(now: Replayed) -> str | None:
    then, decision = now.was.decision, now.answer.decision
    if decision is not then:
        return "milder" if decision.severity < then.severity else "stricter"
    both = now.was.advisory is not None and now.advisory is not None
    return "model" if both and _said(now.advisory) != _said(now.was.advisory) else None


def _said(advisory: Advisory | None) -> str:
    return "-" if advisory is None else advisory.answer or advisory.outcome


def _example(now: Replayed) -> dict[str, Any]:
    was = now.was
    return {
        "id": was.id,
        "at": rfc3339(was.at_us),
        "action": now.situation.action_type,
        "role": now.situation.actor_role,
        "decision": {"then": was.decision, "now": now.answer.decision},
        "legacy": {"then": was.legacy.decision, "now": now.legacy.decision},
        "model": {"then": _said(was.advisory), "now": _said(now.advisory)},
        "verdict": was.verdict,
        "rule": now.legacy.rule,
        "answered_by": now.answer.answered_by,
        "fallback_reason": now.answer.fallback_reason,
    }


def _table(pairs: Counter[tuple[str, str]]) -> dict[str, int]:
    return {f"{then}>{now}": n for (then, now), n in sorted(pairs.items())}
