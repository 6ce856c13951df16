"""Where does a report find its facts?"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from app.domain.clock import from_us, to_us
from app.domain.period import Span
from app.domain.rollout import RolloutPolicy, RolloutState
from app.domain.situation import canonical
from app.engines.model.version import ModelVersion
from app.errors import PolicyError
from app.policy.suites import find_suites, fingerprint, load_suites
from app.services.gates import Gates
from app.services.plane import Plane
from app.services.ports import Models
from app.services.reports.facts import (
    Counts,
    Facts,
    RolloutFacts,
    last_reports,
    of_period,
    read_counts,
    shadow_of,
)
from app.services.reports.machine import resources
from app.services.rollouts import Rollouts
from app.services.validate import validated
from app.store import reporting
from app.store.reviews import review_backlog
from app.store.rollouts import load_states
from app.store.satisfaction import answers

READ_AT_MOST_S = 60.0


@dataclass(frozen=True, slots=True)
class Gathering:
    """Reads everything at once: the parts of a report are of one moment. `data_dir` is None where unknown."""

    plane: Plane
    gates: Gates
    rollouts: Rollouts
    models: Models
    versions: Mapping[str, ModelVersion]
    policies_dir: Path
    data_dir: Path | None

    def facts(self, span: Span, *, now: datetime) -> Facts:
        policies = self.plane.view.policy.book.policies
        documents = {policy.name: self.rollouts.one(policy.name) for policy in policies}
        starts_us, ends_us = to_us(span.starts_at), to_us(span.ends_at)
        with self.plane.database.read(at_most_s=READ_AT_MOST_S) as connection:
            states, counts = load_states(connection), read_counts(connection, span)
            looked, clusters = reporting.disagreements(connection, starts_us, ends_us)
            started_us = reporting.first_start_us(connection)
            started_at = None if started_us is None else from_us(started_us)
            return Facts(
                span=span,
                now=now,
                rollouts=[
                    self._rollout(connection, policy, states[policy.name], documents[policy.name], counts)
                    for policy in policies
                ],
                counted=counts.of_period,
                transitions=reporting.transitions_in(connection, starts_us, ends_us),
                disagreements=looked,
                clusters=clusters,
                verdicts=reporting.verdicts_in(connection, starts_us, ends_us),
                backlog=review_backlog(connection, to_us(now)),
                satisfaction=answers(connection, since_us=starts_us, until_us=ends_us),
                started_at=started_at,
                reports=last_reports(connection, span, now=now, started_at=started_at),
                resources=resources(self.data_dir, self.models.default.status.pid),
                settings=self._settings(sorted({state.version for state in states.values()})),
                model_ready=self.models.default.is_ready,
            )

    def known_situations(self) -> frozenset[str]:
        """The canonical JSON of what the suites hold; nothing where they cannot be read."""
        try:
            suites = load_suites(find_suites(self.policies_dir))
        except PolicyError:
            return frozenset()
        return frozenset(canonical(case.situation) for case in suites.cases)

    def _rollout(
        self,
        connection: Connection,
        policy: RolloutPolicy,
        state: RolloutState,
        document: Mapping[str, Any],
        counts: Counts,
    ) -> RolloutFacts:
        period, days = of_period(counts, state)
        baseline, weeks = shadow_of(connection, state)
        try:
            suites = fingerprint(self.policies_dir)
        except PolicyError:
            suites = ""  # a validation on whatever suites counts as an old one
        return RolloutFacts(
            policy=policy,
            state=state,
            document=document,
            now=self.gates.evidence(connection, state),
            period=period,
            days=days,
            baseline=baseline,
            weeks=weeks,
            validated=validated(connection, state.version, suite_sha256=suites),
            previous_ready=None if state.previous is None else self.models.of(state.previous).is_ready,
        )

    def _settings(self, versions: list[str]) -> dict[str, dict[str, Any]]:
        decoding = {name: self.versions[name].decoding for name in versions if name in self.versions}
        return {
            name: {"n_ctx": said.n_ctx, "max_tokens": said.max_tokens, "temperature": said.temperature}
            for name, said in decoding.items()
        }
