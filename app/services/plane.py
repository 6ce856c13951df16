"""What does this instance know of the plane, and how old is that knowledge?"""

import asyncio
import hmac
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from app.domain.role import Principal
from app.domain.rollout import RolloutPolicy, RolloutState
from app.domain.routing import PlaneState
from app.domain.situation import Situation
from app.engines.legacy.port import LegacyEngine
from app.policy.rollouts import RolloutBook
from app.store.database import Database
from app.store.keys import active
from app.store.people import fingerprint
from app.store.policies import applied
from app.store.rollouts import load_states, read_plane

SNAPSHOT_STALE_S = 5.0
GUARD_PASS_STALE_S = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The applied policy, compiled: which rollout a situation belongs to, and what the rules say."""

    sha256: str
    book: RolloutBook
    legacy: LegacyEngine


@dataclass(frozen=True, slots=True)
class View:
    """One consistent reading of the plane. `keys`: whom each stands for and until when, by its SHA-256."""

    policy: Policy
    states: Mapping[str, RolloutState]
    keys: Mapping[str, tuple[Principal, int | None]]
    kill_switch: bool
    kill_reason: str | None
    actor_secret: bytes
    guard_passes: int
    clock_jump_us: int | None
    revision: int

    def place(self, situation: Situation) -> tuple[RolloutPolicy, RolloutState]:
        policy = self.policy.book.match(situation)
        return policy, self.states[policy.name]

    def share(self, actor_id: str) -> float:
        """Where an actor stands among all, uniform in [0, 1) and the same for ever."""
        digest = hmac.digest(self.actor_secret, actor_id.encode("utf-8", "surrogatepass"), "sha256")
        return int.from_bytes(digest[:7], "big") / 2**56


class Plane:
    """Keeps the view fresh. `compile_policy` turns the applied documents into a `Policy`."""

    def __init__(
        self,
        database: Database,
        compile_policy: Callable[[str, Mapping[str, str]], Policy],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self.database = database
        self._compile = compile_policy
        self._monotonic = monotonic
        self._wall_us = wall_us
        self._lock = threading.Lock()
        self._view: View | None = None
        self._read_at = -float("inf")
        self._guarded_at = -float("inf")

    @property
    def view(self) -> View:
        assert self._view is not None, "the plane is read before it serves"
        return self._view

    @property
    def snapshot_age_s(self) -> float:
        """Since the start of the last good poll."""
        return self._monotonic() - self._read_at

    @property
    def guard_age_s(self) -> float:
        """Since the last complete guardrail pass that this instance knows of."""
        return self._monotonic() - self._guarded_at

    def state(self, *, circuit_open: bool) -> PlaneState:
        now = self._monotonic()
        stale = now - self._read_at > SNAPSHOT_STALE_S or now - self._guarded_at > GUARD_PASS_STALE_S
        return PlaneState(self.view.kill_switch, stale, circuit_open)

    def refresh(self) -> None:
        """Read the plane anew; blocks on the database. Raises `StoreUnavailable`."""
        started = self._monotonic()
        with self.database.read() as connection:
            view, guard_pass_us = self._read(connection)
        with self._lock:
            self._take(view, guard_pass_us, started)

    def _take(self, view: View, guard_pass_us: int | None, started: float) -> None:
        if self._view is None:
            # What another life of this server did is as old as the wall clock says.
            age_s = (
                float("inf") if guard_pass_us is None else max(0.0, (self._wall_us() - guard_pass_us) / 1e6)
            )
            self._guarded_at = started - age_s
        elif view.guard_passes != self._view.guard_passes:
            self._guarded_at = started
        # A slower reading that began earlier never replaces a newer one.
        if self._view is None or view.revision >= self._view.revision:
            self._view, self._read_at = view, started

    async def refresh_soon(self) -> None:
        """Read the plane anew without blocking the loop."""
        await asyncio.to_thread(self.refresh)

    def _read(self, connection: Connection) -> tuple[View, int | None]:
        row = read_plane(connection)
        known = self._view
        sha256, documents = applied(connection, unless=known.policy.sha256 if known else None)
        if known is not None and (known.revision, known.guard_passes) == (row.revision, row.guard_passes):
            return known, row.guard_pass_us
        policy = (
            known.policy
            if known is not None and documents is None
            else self._compile(sha256, documents or {})
        )
        view = View(
            policy=policy,
            states=load_states(connection),
            keys={
                digest: (Principal(key.id, key.name, key.roles, key.actors), key.expires_us)
                for digest, key in active(connection).items()
            },
            kill_switch=row.kill_switch,
            kill_reason=row.kill_reason,
            actor_secret=row.actor_secret,
            guard_passes=row.guard_passes,
            clock_jump_us=row.clock_jump_us,
            revision=row.revision,
        )
        return view, row.guard_pass_us

    def principal(self, presented: str) -> Principal | None:
        """Whose key this is, or None. Lookup is by hash, so timing tells nothing of the secret."""
        principal, expires_us = self.view.keys.get(fingerprint(presented), (None, None))
        return None if expires_us is not None and expires_us <= self._wall_us() else principal
