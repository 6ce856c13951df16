"""Is this server well, and which part of it is not?"""

import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from app.domain.clock import from_us, spoken, to_us
from app.engines.model.drill import parse_fault
from app.engines.model.engine import ModelState, ModelStatus
from app.errors import Forbidden, InvalidInput, SettingsError, StoreUnavailable
from app.services.model_needs import Check
from app.services.plane import GUARD_PASS_STALE_S, SNAPSHOT_STALE_S, Plane
from app.services.ports import Models
from app.services.preflight import quick_checks
from app.settings import SettingRow, Settings, describe
from app.store.lease import LEADERSHIP, held
from app.store.ledger import Ledger, LedgerState

_LONGEST_S = 1e9
_MINUTE_S, _HOUR_S = 60, 3_600


class PartOutcome(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the server, and how it is in a sentence."""

    name: str
    outcome: PartOutcome
    sentence: str


@dataclass(frozen=True, slots=True)
class Size:
    """What lies on the disk, in bytes, or how much is free of it."""

    name: str
    n_bytes: int
    place: str


@dataclass(frozen=True, slots=True)
class Health:
    """Reads memory alone but for the lease and the sizes; without `settings` nothing can be said of those."""

    plane: Plane
    ledger: Ledger
    models: Models
    now: Callable[[], datetime]
    drills: bool = False
    settings: Settings | None = field(default=None, repr=False)

    def document(self) -> dict[str, Any]:
        """What `/health` answers: `healthy`, or `degraded` where the legacy engine stands in."""
        well, model = self._well(), self.models.default.status
        return {
            "status": "healthy" if all(well.values()) else "degraded",
            "degraded": sorted(part for part, is_well in well.items() if not is_well),
            "model": {
                **_version(model),
                "restarts": model.restarts,
                "load_s": model.load_s,
                "offloaded_layers": model.offloaded_layers,
            },
            "versions": [_version(other.status) for other in self.models.loaded[1:]],
            "ledger": self.ledger.state,
            "kill_switch": self.plane.view.kill_switch,
            "snapshot_age_s": round(self.plane.snapshot_age_s, 3),
            "guard_pass_age_s": round(min(self.plane.guard_age_s, _LONGEST_S), 3),
            "drills": self.drills,
            "fault": model.fault,
        }

    def parts(self) -> Iterator[Part]:
        """The same for a person, with what holds the plane together; nothing here fails where a part does."""
        for status in (each.status for each in self.models.loaded):
            yield _model_part(status)
        missing = sorted(name for name in self._versions() if not self.models.of(name).is_ready)
        if missing:
            said = f"{', '.join(missing)} in use but not ready: the legacy engine answers for it"
            yield Part("versions", PartOutcome.ERROR, said)
        yield self._ledger_part()
        yield self._leader_part()
        age_s, guard_s = self.plane.snapshot_age_s, self.plane.guard_age_s
        yield _aged("snapshot", age_s, SNAPSHOT_STALE_S, "phases, versions and keys were read {} ago")
        yield _aged("guardrails", guard_s, GUARD_PASS_STALE_S, "the last complete pass ended {} ago")
        yield from self._exceptions()

    def checks(self) -> list[Check]:
        """The preflight's quick checks, made now; none where there are no settings."""
        return [] if self.settings is None else list(quick_checks(self.settings))

    def described(self) -> list[SettingRow]:
        """Every setting, secrets masked."""
        return [] if self.settings is None else describe(self.settings)

    def about(self) -> dict[str, str]:
        """What runs here: the program, Python, this instance's name, the database, the server's address."""
        facts = {
            "version": installed("phasegate"),
            "python": platform.python_version(),
            "instance": self.ledger.instance,
            "database": self.plane.database.dialect,
        }
        return facts if self.settings is None else {**facts, "address": self.settings.url}

    def sizes(self) -> list[Size]:
        """What takes room. Raises `StoreUnavailable`."""
        database = self.plane.database
        found = [Size("database", database.size_bytes(), database.dialect)]
        found.append(Size("journal", self.ledger.waiting_bytes, "waits for the database"))
        if self.settings is None:
            return found
        data_dir, log = self.settings.data_dir, self.settings.log_file
        if log is not None:
            found.append(Size("log", _weight(log.parent, f"{log.name}*"), str(log)))
        cache_dir = self.settings.cache_dir
        found.append(Size("model cache", _weight(cache_dir, "**/*"), str(cache_dir)))
        return [*found, Size("free", shutil.disk_usage(data_dir).free, str(data_dir))]

    async def inject(self, fault: str | None) -> None:
        """Make the default model misbehave, for a drill; None ends it.

        Raises `Forbidden` where drills are off, and `InvalidInput` for what is no fault.
        """
        if not self.drills:
            raise Forbidden("drills", "drills are off: start the server with PHASEGATE_DRILLS=1")
        try:
            parse_fault(fault)
        except SettingsError as error:
            raise InvalidInput([("fault", "must be hang, crash, garbage, slow:<ms> or null")]) from error
        await self.models.default.inject(fault)

    def _well(self) -> dict[str, bool]:
        model = self.models.default.status
        return {
            "model": model.state is ModelState.READY and not model.circuit_open,
            "versions": all(self.models.of(name).is_ready for name in self._versions()),
            "ledger": self.ledger.state is LedgerState.OK,
            "plane": not self.plane.state(circuit_open=False).is_stale,
        }

    def _versions(self) -> set[str]:
        """Those that rollouts run on, beside the default one."""
        return {state.version for state in self.plane.view.states.values()} - {self.models.default.version_id}

    def _ledger_part(self) -> Part:
        if self.ledger.state is LedgerState.OK:
            return Part(
                "ledger", PartOutcome.OK, f"writes to {self.plane.database.dialect}; the journal is empty"
            )
        said = f"the database is away: {self.ledger.waiting_bytes} bytes wait in the journal, nothing is lost"
        return Part(
            "ledger", PartOutcome.ERROR, f"{said}; enforced rollouts are answered by the legacy engine"
        )

    def _leader_part(self) -> Part:
        try:
            with self.plane.database.read() as connection:
                lease = held(connection, LEADERSHIP, now_us=to_us(self.now()))
        except StoreUnavailable:
            return Part("leader", PartOutcome.WARNING, "the lease cannot be read while the database is away")
        if lease is None:
            said = (
                "nobody leads: guardrails, ramps, reports and webhooks rest until an instance takes the lease"
            )
            return Part("leader", PartOutcome.ERROR, said)
        whose = "this instance" if lease.owner == self.ledger.instance else lease.owner
        said = f"{whose} leads, until {spoken(from_us(lease.expires_us))} unless it renews; term {lease.fencing_token}"
        return Part("leader", PartOutcome.OK, said)

    def _exceptions(self) -> Iterator[Part]:
        """What a person brought about, or a clock."""
        view = self.plane.view
        if view.kill_switch:
            said = "engaged: the legacy engine answers everything"
            yield Part("kill switch", PartOutcome.WARNING, said)
        if view.clock_jump_us is not None:
            at = spoken(from_us(view.clock_jump_us))
            said = f"the clock jumped by over 60 s at {at}: soak days of that epoch cannot be counted"
            yield Part("clock", PartOutcome.WARNING, said)
        if self.drills:
            fault = self.models.default.status.fault
            said = (
                f"on, and {fault} is injected" if fault else "on: an admin may inject faults into the model"
            )
            yield Part("drills", PartOutcome.WARNING, said)


def _model_part(status: ModelStatus) -> Part:
    name = f"model {status.version}"
    if status.state is ModelState.STARTING:
        return Part(name, PartOutcome.WARNING, "loads; the legacy engine answers meanwhile")
    if status.state is ModelState.DOWN:
        why = status.error or "no reason is known"
        return Part(name, PartOutcome.ERROR, f"is down: {why}; the legacy engine answers")
    if status.circuit_open:
        return Part(name, PartOutcome.ERROR, "failed too often in a row and rests: the legacy engine answers")
    device = "" if status.device is None else f" on {status.device}"
    loaded = "" if status.load_s is None else f", loaded in {status.load_s:.1f} s"
    said = f"ready: {status.model}{device}{loaded}; {status.queue_depth} questions wait, {status.restarts} restarts"
    return Part(name, PartOutcome.OK, said)


def _aged(name: str, age_s: float, limit_s: float, sentence: str) -> Part:
    if age_s > _LONGEST_S:
        return Part(name, PartOutcome.ERROR, "has not been read or made yet: the legacy engine answers")
    said = f"{sentence.format(_span(age_s))}; {limit_s:g} s are allowed"
    if age_s > limit_s:
        return Part(name, PartOutcome.ERROR, f"{said}, so the legacy engine answers")
    return Part(name, PartOutcome.OK, said)


def _span(seconds: float) -> str:
    if seconds >= _HOUR_S:
        return f"{seconds / _HOUR_S:.1f} h"
    return f"{seconds / _MINUTE_S:.1f} min" if seconds >= _MINUTE_S else f"{seconds:.1f} s"


def _version(status: ModelStatus) -> Mapping[str, Any]:
    return {
        "version": status.version,
        "state": status.state,
        "name": status.model,
        "queue": status.queue_depth,
        "circuit_open": status.circuit_open,
        "device": status.device,
        "error": status.error,
    }


def _weight(folder: Path, pattern: str) -> int:
    """Bytes of the files that a pattern names, wherever they come and go meanwhile."""
    total = 0
    for path in folder.glob(pattern):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total
