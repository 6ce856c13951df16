"""What does a person see at one look: every rollout's standing, and what waits for somebody?"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from app.domain.assessment import GuardrailOutcome, closeness
from app.domain.clock import to_us
from app.domain.counters import Metric
from app.domain.evidence import Evidence
from app.domain.limits import Action, Guardrail
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy
from app.domain.sequential import Group, lower, upper
from app.services.gates import describe
from app.services.overview import Overview, Standing
from app.services.plane import Plane
from app.services.ports import Models
from app.store.course import Traffic, traffic_of_all
from app.store.reviews import open_by_kind
from app.store.streams import Said, said_of_all

LATELY_MINUTES = 5  # what "now" means of traffic
HOURS = 24

_FIRST = ("rolled_back", "breach")  # the states that come before all others, and then what is ready
_HOUR_US = 3_600_000_000
_TELLING = (
    *(GuardrailOutcome.BREACH, GuardrailOutcome.ERROR, GuardrailOutcome.WARNING),
    *(GuardrailOutcome.DRY_RUN, GuardrailOutcome.STALE),
)
_DRIFT = frozenset({Guardrail.SHIFT, Guardrail.PAIRED_SHIFT, Guardrail.AGREEMENT_DRIFT})
_DRIFTED = frozenset({GuardrailOutcome.BREACH, GuardrailOutcome.WARNING, GuardrailOutcome.DRY_RUN})


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its anytime-valid bounds and the limit that it is held against, each 0..1."""

    n: int
    value: float | None
    lower: float | None
    upper: float | None
    limit: float | None


@dataclass(frozen=True, slots=True)
class Headroom:
    """The guardrail that is nearest to acting: `share` of the way there, as log e-value over log threshold."""

    guardrail: str
    action: Action
    share: float


@dataclass(frozen=True, slots=True)
class Row:
    """One rollout. `to` is the phase that its gate leads to; beside the condition in `sentence`, `more` of it are
    unmet. `hours` are its decisions a minute in each of the last 24 hours, oldest first, `telling` its
    guardrails that are not simply well, gravest first.
    """

    name: str
    phase: Phase
    exposure: float
    since: datetime
    version: str
    candidate: str | None
    to: str | None
    state: str
    sentence: str
    more: int
    per_minute: float
    hours: list[float]
    agreement: Rate
    independent: bool
    override: Rate
    headroom: Headroom | None
    telling: list[tuple[str, str]]

    @property
    def busiest(self) -> float:
        """Decisions a minute in the busiest of the hours."""
        return max(self.hours)

    @property
    def marks(self) -> frozenset[str]:
        """By what else than its state it is found: `drifted`, `stale`."""
        drifted = {"drifted" for name, said in self.telling if name in _DRIFT and said in _DRIFTED}
        return frozenset(drifted | {"stale" for _, said in self.telling if said == GuardrailOutcome.STALE})


@dataclass(frozen=True, slots=True)
class Board:
    plane: Plane
    overview: Overview
    models: Models
    now: Callable[[], datetime]

    def read(self) -> dict[str, Any]:
        """`tiles` and `rows` of all rollouts: what needs somebody first, then what is ready, then by name."""
        now_us = to_us(self.now())
        since_us, lately_us = now_us - HOURS * _HOUR_US, now_us - LATELY_MINUTES * 60_000_000
        with self.plane.database.read() as connection:
            _, standings = self.overview.read(connection)
            traffic = traffic_of_all(connection, since_us=since_us, lately_us=lately_us)
            said, opened = said_of_all(connection), open_by_kind(connection)
        rows = [
            _row(each, said.get(each.state.name, ()), traffic.get(each.state.name, Traffic()), now_us)
            for each in standings
        ]
        rows.sort(key=lambda row: (_urgency(row.state), row.name))
        return {"rows": rows, "tiles": self._tiles(rows, opened)}

    def _tiles(self, rows: Sequence[Row], opened: dict[str, int]) -> dict[str, Any]:
        model = self.models.default.status
        return {
            "phases": Counter(row.phase for row in rows),
            "per_minute": sum(row.per_minute for row in rows),
            "open_reviews": sum(opened.values()),
            "waiting_callers": opened.get("binding", 0),
            "model": "circuit open" if model.circuit_open else model.state,
            "marks": Counter(mark for row in rows for mark in row.marks),
        }


def filtered(rows: Iterable[Row], *, q: str = "", phase: str = "", state: str = "") -> list[Row]:
    """The rows whose name or version holds `q`, whatever its case, in that phase and state or mark; "" is any."""
    wanted = q.strip().casefold()
    return [
        row
        for row in rows
        if (wanted in row.name.casefold() or wanted in row.version.casefold())
        and phase in ("", row.phase)
        and (state in ("", row.state) or state in row.marks)
    ]


def _row(seen: Standing, said: Sequence[Said], traffic: Traffic, now_us: int) -> Row:
    policy, state, evidence = seen.policy, seen.state, seen.evidence
    standing, sentence, more = _told(seen, said)
    return Row(
        name=state.name,
        phase=state.phase,
        exposure=state.exposure,
        since=state.epoch_started_at,
        version=state.version,
        candidate=state.candidate,
        to=None if seen.gate is None else seen.gate.to,
        state=standing,
        sentence=sentence,
        more=more,
        per_minute=traffic.lately / LATELY_MINUTES,
        hours=_by_hour(traffic, now_us),
        agreement=_agreement(policy, state.phase, evidence),
        independent=evidence.independent,
        override=_override(policy, evidence),
        headroom=_headroom(said),
        telling=sorted(
            ((each.name, each.outcome) for each in said if each.outcome in _TELLING),
            key=lambda each: _TELLING.index(GuardrailOutcome(each[1])),
        ),
    )


def _by_hour(traffic: Traffic, now_us: int) -> list[float]:
    """Decisions a minute; the hour that goes on counts what it has of it so far."""
    now, into_it = divmod(now_us, _HOUR_US)
    past = [traffic.by_hour.get(hour, 0) / 60 for hour in range(now - HOURS + 1, now)]
    return [*past, traffic.by_hour.get(now, 0) / max(into_it / 60e6, LATELY_MINUTES)]


def _told(seen: Standing, said: Iterable[Said]) -> tuple[str, str, int]:
    """The state of a rollout, one short sentence, and how many more conditions of its gate are unmet."""
    status = describe(seen.state, seen.policy, seen.gate, why=seen.why)
    standing = status["state"]
    if standing == "rolled_back":
        return standing, f"rolled back to {seen.state.phase}: {seen.why}", 0
    breach = next((each for each in said if each.outcome == GuardrailOutcome.BREACH), None)
    if breach is not None:
        return "breach", f"guardrail {breach.name.replace('_', ' ')}: {breach.sentence}", 0
    return standing, status["brief"], status["more"]


def _headroom(said: Iterable[Said]) -> Headroom | None:
    """Of the guardrails that do more than notify the one whose evidence is nearest to its threshold."""
    shares = [
        Headroom(each.name, each.action, share)
        for each in said
        if each.action is not Action.NOTIFY
        and not each.dry_run
        and each.n
        and (share := closeness(each.e_value, each.threshold)) is not None
    ]
    return max(shares, key=lambda each: each.share, default=None)


def _agreement(policy: RolloutPolicy, phase: Phase, evidence: Evidence) -> Rate:
    limits = policy.gates.get(phase.higher() or phase)
    good = (Group(evidence.compared, evidence.agreed),)
    return _rate(
        good, policy.gate_alpha, evidence.compared, None if limits is None else limits.agreement_above
    )


def _override(policy: RolloutPolicy, evidence: Evidence) -> Rate:
    n, limit = evidence.n(Metric.REVIEWED), policy.guardrails.override_limit
    rate = _rate(tuple(evidence.override_groups), policy.gate_alpha, n, limit)
    return replace(rate, value=evidence.override_rate)


def _rate(groups: tuple[Group, ...], alpha: float, n: int, limit: float | None) -> Rate:
    if not n:
        return Rate(0, None, None, None, limit)
    return Rate(n, groups[0].bad / groups[0].n, *_bounds(groups, alpha), limit)


@lru_cache(maxsize=4096)  # of counts that change seldom, for everybody who looks
def _bounds(groups: tuple[Group, ...], alpha: float) -> tuple[float, float]:
    return lower(groups, alpha), upper(groups, alpha)


def _urgency(state: str) -> int:
    return 0 if state in _FIRST else 1 if state == "ready" else 2
