"""What do the guardrails say of what is counted now?"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import Connection

from app.domain.assessment import Answer, Assessment, Facts, GuardrailOutcome
from app.domain.clock import to_us
from app.domain.counters import Metric
from app.domain.evidence import from_totals
from app.domain.evidence import to_wire as evidence_document
from app.domain.guardrail import advance
from app.domain.limits import Action, Guardrail
from app.domain.query import advance_query
from app.domain.rollout import RolloutPolicy, RolloutState
from app.domain.stream import Label, StreamState
from app.observability import GUARDRAIL_E_VALUE
from app.store.counters import Totals, totals_of_all
from app.store.reviews import drawn_labels
from app.store.rollouts import baselines
from app.store.streams import last_saved_us, load_streams, stream_row
from app.store.trail import Trail

_LABELS_AT_MOST = 20_000  # of one rollout's open tail
_UNCHANGED_FOR = timedelta(minutes=1)  # what hangs on time alone: staleness, weeks, labels that settle

_gauge = lru_cache(maxsize=None)(GUARDRAIL_E_VALUE.labels)  # looking one up is dearer than setting it

Key = tuple[str, str]  # rollout, guardrail or query
Step = Callable[[StreamState | None, Facts], tuple[StreamState, Assessment]]


@dataclass(frozen=True, slots=True)
class Judged:
    """One rollout after a look. `rows` are the streams that changed, `act_on` what its breaches call for.

    `raised` are the alarms and first warnings that came at this look, to be announced.
    """

    policy: RolloutPolicy
    epoch: int
    rows: list[dict[str, Any]]
    raised: list[Assessment]
    act_on: Assessment | None
    evidence: Mapping[str, Any] | None  # the numbers that `act_on` rests on


class Judging:
    """Looks at every rollout, and remembers what it saw: where nothing is new, nothing is judged again.

    It writes nothing; `forget` is for when what it said was not written. Belongs to one thread at a time.
    """

    def __init__(self) -> None:
        self._saved_us: int | None = None
        self._streams: dict[Key, StreamState] = {}
        self._trails: dict[Key, Trail] = {}
        self._said: dict[Key, Assessment] = {}
        self._facts: dict[str, Facts] = {}
        self._read_at: dict[str, datetime] = {}  # when a rollout's labels were read last
        self._unread: set[str] = set()  # the rollouts of this look whose labels were not

    def forget(self) -> None:
        self._saved_us = None
        self._said.clear()
        self._facts.clear()

    def read(
        self,
        connection: Connection,
        policies: Iterable[RolloutPolicy],
        states: Mapping[str, RolloutState],
        answers: Mapping[str, Answer],
        *,
        now: datetime,
    ) -> list[Facts]:
        """The facts of each rollout of which something is new."""
        saved_us = last_saved_us(connection)
        if saved_us is None or saved_us != self._saved_us:  # the first look, or another leader's came since
            self.forget()
            self._saved_us, loaded = saved_us, load_streams(connection)
            self._streams = {key: stream for key, (stream, _) in loaded.items()}
            self._trails = {key: trail for key, (_, trail) in loaded.items()}
        counted, bases = totals_of_all(connection), baselines(connection)
        self._unread.clear()
        found = []
        for policy in policies:
            state, totals = states[policy.name], counted[policy.name]
            facts = _facts(policy, state, totals, bases.get(policy.name), answers, now=now)
            if self._is_known(facts):
                continue
            if self._has_known_labels(facts):
                self._unread.add(policy.name)
            else:
                self._read_at[policy.name] = now
                facts = replace(facts, labels=self._labels(connection, state, totals))
            found.append(facts)
        return found

    def judge(self, found: Iterable[Facts]) -> list[Judged]:
        judged = [self._judged(facts) for facts in found]
        saved = [row["updated_us"] for each in judged for row in each.rows]
        self._saved_us = max(saved, default=self._saved_us)
        return judged

    def _labels(self, connection: Connection, state: RolloutState, counted: Totals) -> list[Label]:
        if not any(metric == Metric.DRAWN for metric, _ in counted):
            return []
        stream = self._streams.get((state.name, Guardrail.OVERRIDE.value))
        after = stream.watermark if stream is not None and stream.epoch == state.epoch else None
        version, epoch = state.version, state.epoch
        return drawn_labels(
            connection, state.name, version=version, epoch=epoch, after=after, limit=_LABELS_AT_MOST
        )

    def _is_known(self, facts: Facts) -> bool:
        before = self._facts.get(facts.policy.name)
        return (
            before is not None
            and before.policy is facts.policy
            and not facts.policy.guardrails.queries
            and facts.now - before.now < _UNCHANGED_FOR
            and (before.phase, before.evidence, before.baseline)
            == (facts.phase, facts.evidence, facts.baseline)
        )

    def _has_known_labels(self, facts: Facts) -> bool:
        """Whether no drawn review was judged since they were read, less than a minute ago.

        Those that were only drawn since then can wait: what is not judged yet raises no alarm.
        """
        before = self._facts.get(facts.policy.name)
        return (
            before is not None
            and before.policy is facts.policy
            and before.evidence.epoch == facts.evidence.epoch
            and facts.now - self._read_at[facts.policy.name] < _UNCHANGED_FOR
            and all(
                before.evidence.of(each) == facts.evidence.of(each)
                for each in (Metric.REVIEWED, Metric.OVERRIDDEN)
            )
        )

    def _judged(self, facts: Facts) -> Judged:
        """Advance all of a rollout's guardrails; of its breaches the gravest counts."""
        policy, now_us = facts.policy, to_us(facts.now)
        rows, assessed = [], []
        for name, step in _steps(policy):
            key = policy.name, name
            if name == Guardrail.OVERRIDE and policy.name in self._unread:
                assessed.append(replace(self._said[key], raised=False))
                continue
            before = self._streams.get(key)
            stream, assessment = step(before, facts)
            assessed.append(assessment)
            if stream != before or assessment != self._said.get(key):
                if before is None or before.epoch != stream.epoch:
                    self._trails[key] = Trail()
                rows.append(stream_row(policy.name, stream, assessment, self._trails[key], now_us=now_us))
                if assessment.e_value is not None:
                    _gauge(policy.name, name).set(assessment.e_value)
            self._streams[key], self._said[key] = stream, assessment
        self._facts[policy.name] = facts
        raised = [assessment for assessment in assessed if assessment.raised]
        act_on = _gravest(assessed)
        evidence = None if act_on is None else _numbers(facts)
        return Judged(policy, facts.evidence.epoch, rows, raised, act_on, evidence)


def names_of(policy: RolloutPolicy) -> list[str]:
    """Everything that watches a rollout, in its fixed order."""
    return [*(guardrail.value for guardrail in Guardrail), *(q.name for q in policy.guardrails.queries)]


def _steps(policy: RolloutPolicy) -> Iterator[tuple[str, Step]]:
    for guardrail in Guardrail:
        yield guardrail.value, partial(advance, guardrail)
    for query in policy.guardrails.queries:
        yield query.name, partial(advance_query, query)


def _gravest(assessed: Iterable[Assessment]) -> Assessment | None:
    """The breach to act on: a rollback goes before a hold, which comes with the alarm alone."""
    breaches = [each for each in assessed if each.outcome is GuardrailOutcome.BREACH]
    rollbacks = [each for each in breaches if each.action is Action.ROLLBACK]
    holds = [each for each in breaches if each.action is Action.HOLD and each.raised]
    return next(iter(rollbacks + holds), None)


def _facts(
    policy: RolloutPolicy,
    state: RolloutState,
    counted: Totals,
    baseline: dict[str, int] | None,
    answers: Mapping[str, Answer],
    *,
    now: datetime,
) -> Facts:
    # Served time is no observation: without it, a rollout that nobody asks is the same at every look.
    totals = {key: n for key, n in counted.items() if key[0] != Metric.SERVED_S}
    began = state.epoch_started_at
    evidence = from_totals(
        state.name, state.version, epoch=state.epoch, epoch_started_at=began, totals=totals, days={}
    )
    return Facts(policy, state.phase, evidence, now, baseline=baseline, answers=answers)


def _numbers(facts: Facts) -> dict[str, Any]:
    """The evidence as it is shown elsewhere, but for the soak, which no guardrail asks for."""
    document = evidence_document(facts.evidence, alpha=facts.policy.gate_alpha)
    return {name: value for name, value in document.items() if name != "soak_days"}
