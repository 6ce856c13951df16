"""How well does a version do on the validation suites, and what was said of it before?"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection, RowMapping

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.clock import rfc3339, to_us
from app.domain.decision import Decision
from app.domain.proofs import VALIDATED_AT_LEAST, Validated
from app.domain.role import Principal
from app.domain.situation import Situation
from app.domain.validation import Case, Result, difference, report
from app.engines.model.version import ModelVersion
from app.engines.model.wire import Priority
from app.errors import Conflict, InvalidInput, NotFound
from app.observability import Event
from app.policy.suites import Suites, find_suites, load_suites
from app.services.plane import Plane, Policy
from app.services.ports import Model, Models, statuses
from app.store import validations as stored
from app.store.ledger import Ledger

DEADLINE_S = 60.0  # a situation; nobody waits for it but the validation itself
REASONS_EVERY = 10
_PAGE = 50

log = structlog.get_logger()


class Subject(Protocol):
    """The version that is validated, whichever way it runs."""

    @property
    def shows_legacy(self) -> bool: ...

    async def advise(self, situation: Situation, *, legacy: Decision | None) -> Advisory: ...

    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None
    ) -> Reasoning: ...


class Served:
    """A version that is kept ready for others too, asked after everybody else."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.shows_legacy = model.shows_legacy
        self.explain = model.explain

    async def advise(self, situation: Situation, *, legacy: Decision | None) -> Advisory:
        """Raises `Conflict` where the server had no time for it: that says nothing about the version."""
        advisory = await self._model.advise(
            situation, priority=Priority.SHADOW, deadline_s=DEADLINE_S, legacy=legacy
        )
        if not advisory.started and advisory.outcome is not Outcome.OVERSIZE:
            raise Conflict(
                "model-busy", f"the model did not get to it ({advisory.outcome}): validate again later"
            )
        return advisory


async def examine(suites: Suites, policy: Policy, subject: Subject, *, reasons: bool) -> dict[str, Any]:
    """Ask the version and the legacy engine about every case, one at a time.

    Why is asked of every tenth case, and with `reasons` of all.
    """
    since = time.monotonic()
    results = [
        await _ask(case, policy, subject, reasons=reasons or number % REASONS_EVERY == 0)
        for number, case in enumerate(suites.cases)
    ]
    return {
        "suites": list(suites.names),
        "suite_sha256": suites.sha256,
        "elapsed_s": time.monotonic() - since,
        **report(results),
    }


async def _ask(case: Case, policy: Policy, subject: Subject, *, reasons: bool) -> Result:
    legacy = (await policy.legacy.decide(case.situation)).decision
    shown = legacy if subject.shows_legacy else None
    advisory = await subject.advise(case.situation, legacy=shown)
    reasoning = None
    if reasons and advisory.decision is not None:
        reasoning = await subject.explain(case.situation, advisory, legacy=shown)
    return Result(case, policy.book.match(case.situation).risk, legacy, advisory, reasoning)


class Validations:
    """Validates versions on this server, and keeps what came of it as evidence."""

    def __init__(
        self,
        plane: Plane,
        ledger: Ledger,
        models: Models,
        versions: Mapping[str, ModelVersion],
        *,
        policies_dir: Path,
        now: Callable[[], datetime],
    ) -> None:
        self._plane = plane
        self._ledger = ledger
        self._models = models
        self._versions = versions
        self._policies_dir = policies_dir
        self._now = now

    async def run(
        self, version: str, *, suites: Sequence[str], against: str | None, reasons: bool, by: Principal
    ) -> dict[str, Any]:
        """Validate a version that is kept ready, and record it.

        Raises `NotFound` for a version or suite, `InvalidInput` where `against` was not validated on the
        same suites, `PolicyError` for a suite, `Conflict` where the model is not ready or has no time.
        """
        self._known(version)
        chosen = load_suites(find_suites(self._policies_dir, suites))
        before = None if against is None else self._earlier(against, chosen)
        model = self._models.of(version)
        if model.version_id != version or not model.is_ready:
            raise Conflict("version-not-ready", self._unready(version))
        found = await examine(chosen, self._plane.view.policy, Served(model), reasons=reasons)
        found = {"version": version, "model_sha256": model.status.sha256, **found}
        if before is not None:
            found["against"] = {"version": against, **difference(before, found)}
        return await self._record(found, by)

    def of(self, version: str) -> list[dict[str, Any]]:
        """Whole reports, newest first, at most 50. Raises `NotFound`."""
        self._known(version)
        with self._plane.database.read() as connection:
            return [_document(row) for row in stored.of_version(connection, version, limit=_PAGE)]

    def one(self, name: str) -> dict[str, Any]:
        """A whole report. Raises `NotFound`."""
        with self._plane.database.read() as connection:
            row = stored.read(connection, name)
        if row is None:
            raise NotFound("validation", name)
        return _document(row)

    def latest(self) -> dict[str, dict[str, Any]]:
        """The newest run of every version that was validated: `{id, at, n, pass_rate, wrong_allows}`."""
        with self._plane.database.read() as connection:
            rows = stored.latest_of_each(connection)
        return {
            row["version"]: {name: row[name] for name in ("id", "n", "pass_rate", "wrong_allows")}
            | {"at": rfc3339(row["created_us"])}
            for row in rows
        }

    def _known(self, version: str) -> None:
        if version not in self._versions:
            raise NotFound("version", version)

    def _unready(self, version: str) -> str:
        """Why the version cannot be asked here: one that was wanted says it itself."""
        wanted = statuses(self._models)
        said = "it is not kept ready: make it the active version or a candidate of a rollout first"
        if version in wanted:
            said = wanted[version].error or f"its model is {wanted[version].state}"
        return (
            f"{version} cannot be asked here ({said}); "
            f"phasegate validate {version} needs no server, but is not recorded"
        )

    def _earlier(self, version: str, suites: Suites) -> dict[str, Any]:
        self._known(version)
        with self._plane.database.read() as connection:
            row = stored.latest(connection, version, suite_sha256=suites.sha256)
        if row is None or row["suite_sha256"] != suites.sha256:
            raise InvalidInput([("against", f"{version} was not validated on these suites: do that first")])
        report_: dict[str, Any] = json.loads(row["report"])
        return report_

    async def _record(self, found: dict[str, Any], by: Principal) -> dict[str, Any]:
        now_us = to_us(self._now())
        validation = stored.Validation(
            version=found["version"],
            model_sha256=found["model_sha256"],
            suite_sha256=found["suite_sha256"],
            n=found["n"],
            pass_rate=found["pass_rate"],
            wrong_allows=sum(found["wrong_allows"].values()),
            report=json.dumps(found),
        )
        name = await self._ledger.run(lambda tx: stored.record(tx, validation, by=by.key_id, now_us=now_us))
        log.info(Event.VERSION_VALIDATED, version=validation.version, pass_rate=validation.pass_rate)
        return {"id": name, "at": rfc3339(now_us), "by": by.key_id, **found}


def validated(connection: Connection, version: str, *, suite_sha256: str) -> Validated | None:
    """The validation of a version that a gate goes by, or None."""
    row = stored.latest(connection, version, suite_sha256=suite_sha256, at_least=VALIDATED_AT_LEAST)
    if row is None:
        return None
    return Validated(
        row["n"], row["pass_rate"], row["wrong_allows"], current=row["suite_sha256"] == suite_sha256
    )


def _document(row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["id"],
        "at": rfc3339(row["created_us"]),
        "by": row["by_key"],
        **json.loads(row["report"]),
    }
