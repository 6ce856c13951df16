"""Which guardrails of a rollout would have fired, and when?

Time is the recorded one: the guardrails look as often as the server's, wherever something happened to the
rollout. Nobody acts on an alarm: what follows is judged as if it had only been reported. Queries to
Prometheus are not asked, because their past is not ours to know.
"""

from collections import Counter
from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Any

from app.domain.admission import Claim
from app.domain.assessment import Assessment, Facts, GuardrailOutcome
from app.domain.clock import from_us, rfc3339
from app.domain.counters import Count, Metric, advisory_counts, decision_counts, draw_counts, verdict_counts
from app.domain.evidence import Evidence, from_totals
from app.domain.guardrail import advance
from app.domain.limits import Action, Guardrail
from app.domain.phase import Phase, lowest
from app.domain.rollout import RolloutPolicy
from app.domain.sampling import recorded_draw
from app.domain.stream import Label, StreamState
from app.services.replay import Replayed, WhatIf


class Watch:
    """One rollout's evidence, an epoch at a time, and the alarms that its guardrails raise."""

    def __init__(self, policy: RolloutPolicy, what: WhatIf, baseline: Mapping[str, int] | None) -> None:
        self.policy = policy
        self.alarms: list[dict[str, Any]] = []
        self.phase = Phase.SHADOW
        self._what = what
        self._every_us = round(what.look_every_s * 1e6)
        self._baseline = baseline
        self._epoch: int | None = None
        self._later: list[tuple[int, str, int, tuple[Count, ...]]] = []  # verdicts that are yet to come

    @property
    def evidence(self) -> Evidence | None:
        """Of the latest epoch; None before the first decision."""
        if self._epoch is None:
            return None
        declared = self._what.versions.get(self._version)
        return from_totals(
            self.policy.name,
            self._version,
            epoch=self._epoch,
            epoch_started_at=from_us(self._began_us),
            totals=self._totals,
            days={},
            independent=declared is not None and not declared.show_legacy,
        )

    def see(self, now: Replayed) -> None:
        """Take in the next decision, after all that was judged before it."""
        was = now.was
        self.wait(was.at_us)
        if not self._enters(now):
            return  # its epoch was over when it was committed
        if now.plan.exposed:
            self.phase = now.plan.phase
        claim = Claim.ADMITTED if was.admitted else Claim.REPEATED
        exposed = now.plan.exposed
        counts = decision_counts(now.answer, phase=now.plan.phase, exposed=exposed, claim=claim)
        if now.advisory is not None:
            counts += advisory_counts(now.advisory, now.legacy, exposed=exposed, claim=claim)
        self._count((*counts, *self._reviewed(now)), was.at_us)

    def wait(self, until_us: int) -> None:
        """Let the verdicts come that were given up to then."""
        while self._later and self._later[0][0] <= until_us:
            at_us, _, epoch, counts = heappop(self._later)
            if epoch == self._epoch:
                self._count(counts, at_us)
                self._is_judged = True

    def end(self, until_us: int) -> None:
        """The last verdicts and the last look."""
        self.wait(until_us)
        self._look()

    def _enters(self, now: Replayed) -> bool:
        """Whether a decision belongs to the epoch that goes on, which it may be the first of."""
        was = now.was
        if self._epoch is not None:
            of_another = was.rollout != self.policy.name  # by this policy it would have been one of these
            goes_on = self._what.phase is not None and now.version == self._version
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
        self._version, self._began_us, self._tick = now.version, was.at_us, was.at_us // self._every_us
        self._totals: Counter[tuple[str, str]] = Counter()
        self._streams: dict[Guardrail, StreamState] = {}
        self._drawn: list[Replayed] = []
        self._is_judged = False  # since the labels were looked at: before that they raise no alarm

    def _reviewed(self, now: Replayed) -> tuple[Count, ...]:
        """What being drawn counts; what the verdict counts waits for its time."""
        was, model, draw = now.was, now.model, None
        if model is None or self._epoch is None:
            return ()
        if was.inclusion_probability is not None:
            draw = recorded_draw(was.inclusion_probability, agrees=model is now.legacy.decision)
            self._drawn.append(now)
        if was.verdict is not None and was.judged_us is not None:
            counts = verdict_counts(model, was.verdict, draw)
            heappush(self._later, (was.judged_us, was.id, self._epoch, counts))
        return draw_counts(draw) if draw else ()

    def _count(self, counts: tuple[Count, ...], at_us: int) -> None:
        tick = at_us // self._every_us
        if tick > self._tick:
            self._look()
            self._tick = tick
        for metric, label, n in counts:
            self._totals[metric, label] += n

    def _look(self) -> None:
        evidence, now_us = self.evidence, (self._tick + 1) * self._every_us
        if evidence is None:
            return
        labels = [_label(drawn, now_us) for drawn in self._drawn] if self._is_judged else []
        facts = Facts(self.policy, self.phase, evidence, from_us(now_us), labels, self._baseline)
        for guardrail in Guardrail:
            if guardrail is Guardrail.OVERRIDE and not self._is_judged:
                continue
            stream, judged = advance(guardrail, self._streams.get(guardrail), facts)
            self._streams[guardrail] = stream
            if judged.raised and judged.outcome in (GuardrailOutcome.BREACH, GuardrailOutcome.DRY_RUN):
                self.alarms.append(self._alarm(judged, stream, evidence, now_us))
        if self._is_judged:
            self._is_judged = False
            settled = self._streams[Guardrail.OVERRIDE].watermark or ""
            self._drawn = [drawn for drawn in self._drawn if drawn.was.id > settled]

    def _alarm(
        self, judged: Assessment, stream: StreamState, evidence: Evidence, now_us: int
    ) -> dict[str, Any]:
        return {
            "at": rfc3339(now_us),
            "guardrail": judged.name,
            "would": self._would(judged),
            "phase": self.phase,
            "version": evidence.version,
            "epoch": evidence.epoch,
            "decisions": evidence.n(Metric.DECISION),
            "evidence": stream.alarm,
            "threshold": judged.threshold,
            "sentence": judged.sentence,
        }

    def _would(self, judged: Assessment) -> str:
        """What it would have led to."""
        if self.phase is Phase.SHADOW or judged.dry_run:
            return "report"
        if judged.action is Action.ROLLBACK:
            return f"rollback to {lowest(self.policy.rollback_to, self.phase.lower())}"
        return judged.action.value


def _label(now: Replayed, now_us: int) -> Label:
    """As it stood at an instant: open until it was judged, or until its time was over."""
    was = now.was
    judged = was.verdict is not None and was.judged_us is not None and was.judged_us <= now_us
    bad = was.verdict is not now.model if judged else None
    over = not judged and was.due_us is not None and was.due_us <= now_us
    assert was.inclusion_probability is not None
    return Label(was.id, was.at_us, bad, was.inclusion_probability, over)


def _baseline(evidence: Evidence | None) -> dict[str, int] | None:
    """What a shadow epoch leaves to be compared with later."""
    return None if evidence is None else evidence.of(Metric.MODEL) | evidence.of(Metric.PAIR)
