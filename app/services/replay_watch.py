"""Which guardrails of a rollout would have fired, and when?

Time is the recorded one: the guardrails look at the end of every minute in which something happened to the
rollout. Nobody acts on an alarm: what follows is judged as if it had only been reported. Queries to
Prometheus are not asked, because their past is not ours to know.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from app.domain.clock import from_us, rfc3339
from app.domain.counters import Count, Metric, advisory_counts, decision_counts, draw_counts, verdict_counts
from app.domain.decision import Decision
from app.domain.evidence import Evidence, from_totals
from app.domain.guardrail import Assessment, Facts, advance
from app.domain.limits import Action, Guardrail
from app.domain.phase import Phase, lowest
from app.domain.rollout import RolloutPolicy
from app.domain.sampling import recorded_draw
from app.domain.stream import Label, StreamState
from app.services.replay import Replayed
from app.store.recorded import Reviewed

_MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A decision drawn for review, whose label shows when it was judged or its time was over."""

    decision_id: str
    at_us: int
    model: Decision
    review: Reviewed
    inclusion_probability: float

    def label(self, now_us: int) -> Label:
        review = self.review
        judged = review.verdict is not None and review.judged_us is not None and review.judged_us <= now_us
        bad = review.verdict is not self.model if judged else None
        closed = bad is None and review.due_us <= now_us
        return Label(self.decision_id, self.at_us, bad, self.inclusion_probability, closed)


class Watch:
    """One rollout's evidence, an epoch at a time, and the alarms that its guardrails raise."""

    def __init__(
        self,
        policy: RolloutPolicy,
        baseline: Mapping[str, int] | None,
        *,
        is_independent: Callable[[str], bool],
        one_phase: bool,
    ) -> None:
        """With `one_phase` a new epoch begins only where another version does."""
        self.policy = policy
        self.alarms: list[dict[str, Any]] = []
        self.phase = Phase.SHADOW
        self._baseline = baseline
        self._is_independent = is_independent
        self._one_phase = one_phase
        self._epoch: int | None = None
        self._later: list[tuple[int, str, int, tuple[Count, ...]]] = []  # verdicts that are yet to come

    @property
    def evidence(self) -> Evidence | None:
        """Of the latest epoch; None before the first decision."""
        if self._epoch is None:
            return None
        return from_totals(
            self.policy.name,
            self._version,
            epoch=self._epoch,
            epoch_started_at=from_us(self._began_us),
            totals=self._totals,
            days={},
            independent=self._is_independent(self._version),
        )

    def see(self, now: Replayed) -> None:
        """Take in the next decision, after all that was judged before it."""
        was = now.was
        self.wait(was.at_us)
        if not self._enters(now):
            return  # its epoch was over when it was committed
        if now.plan.exposed:
            self.phase = now.plan.phase
        counts = decision_counts(now.answer, phase=now.plan.phase, exposed=now.plan.exposed)
        if now.advisory is not None and was.counted:
            counts += advisory_counts(now.advisory, now.legacy, exposed=now.plan.exposed)
        self._count((*counts, *self._reviewed(now)), was.at_us)

    def wait(self, until_us: int) -> None:
        """Let the verdicts come that were given up to then."""
        while self._later and self._later[0][0] <= until_us:
            at_us, _, epoch, counts = heappop(self._later)
            if epoch == self._epoch:
                self._count(counts, at_us)

    def end(self, until_us: int) -> None:
        """The last verdicts and the last look."""
        self.wait(until_us)
        self._look()

    def _enters(self, now: Replayed) -> bool:
        """Whether a decision belongs to the epoch that goes on, which it may begin."""
        was = now.was
        if self._epoch is not None:
            of_another = was.rollout != self.policy.name  # by this policy it would have been one of these
            goes_on = self._one_phase and now.version == self._version
            if of_another or was.epoch == self._epoch or goes_on:
                return True
            if was.epoch < self._epoch:
                return False
            self._look()
            if self.phase is Phase.SHADOW:
                self._baseline = _baseline(self.evidence)
        self._begin(now)
        return True

    def _begin(self, now: Replayed) -> None:
        plan, was = now.plan, now.was
        self.phase = plan.phase if plan.exposed else plan.phase.higher() or plan.phase
        self._epoch = was.epoch if was.rollout == self.policy.name else 0
        self._version, self._began_us, self._minute = now.version, was.at_us, was.at_us // _MINUTE_US
        self._totals: Counter[tuple[str, str]] = Counter()
        self._streams: dict[Guardrail, StreamState] = {}
        self._labels: list[_Drawn] = []

    def _reviewed(self, now: Replayed) -> tuple[Count, ...]:
        """What being drawn counts; what the verdict counts waits for its time."""
        was, model = now.was, now.advisory.answer if now.advisory else None
        review = was.review
        if review is None or model is None or self._epoch is None:
            return ()
        draw = None
        if review.inclusion_probability is not None:
            agrees = model is now.legacy.decision
            draw = recorded_draw(review.inclusion_probability, agrees=agrees)
            self._labels.append(_Drawn(was.id, was.at_us, model, review, review.inclusion_probability))
        if review.verdict is not None and review.judged_us is not None:
            counts = verdict_counts(model, review.verdict, draw)
            heappush(self._later, (review.judged_us, was.id, self._epoch, counts))
        return draw_counts(draw) if draw else ()

    def _count(self, counts: tuple[Count, ...], at_us: int) -> None:
        minute = at_us // _MINUTE_US
        if minute > self._minute:
            self._look()
            self._minute = minute
        for metric, label, n in counts:
            self._totals[metric, label] += n

    def _look(self) -> None:
        evidence, now_us = self.evidence, (self._minute + 1) * _MINUTE_US
        if evidence is None:
            return
        labels = [drawn.label(now_us) for drawn in self._labels]
        facts = Facts(self.policy, self.phase, evidence, from_us(now_us), labels, self._baseline)
        for guardrail in Guardrail:
            stream, judged = advance(guardrail, self._streams.get(guardrail), facts)
            self._streams[guardrail] = stream
            if judged.raised:
                self.alarms.append(self._alarm(judged, stream, evidence, now_us))
        settled = self._streams[Guardrail.OVERRIDE].watermark or ""
        self._labels = [drawn for drawn in self._labels if drawn.decision_id > settled]

    def _alarm(
        self, judged: Assessment, stream: StreamState, evidence: Evidence, now_us: int
    ) -> dict[str, Any]:
        return {
            "at": rfc3339(now_us),
            "guardrail": judged.name,
            "would": self._would(judged.action),
            "phase": self.phase,
            "version": evidence.version,
            "epoch": evidence.epoch,
            "decisions": evidence.n(Metric.DECISION),
            "evidence": stream.alarm,
            "threshold": judged.threshold,
            "sentence": judged.sentence,
        }

    def _would(self, action: Action) -> str:
        """What it would have led to."""
        if self.phase is Phase.SHADOW:
            return "report"
        if action is Action.ROLLBACK:
            return f"rollback to {lowest(self.policy.rollback_to, self.phase.lower())}"
        return action.value


def _baseline(evidence: Evidence | None) -> dict[str, int] | None:
    """What a shadow epoch leaves to be compared with later."""
    return evidence.of(Metric.MODEL) if evidence is not None else None
