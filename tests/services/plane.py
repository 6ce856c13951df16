"""What does a test stand on: a whole server in this process, with a model and clocks that it drives."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import msgspec
from litestar import Litestar
from sqlalchemy import Table, func, select

from app.domain.advisory import Advisory, Attribution, Outcome, Probabilities, Reasoning
from app.domain.clock import to_us
from app.domain.decision import Decision
from app.domain.evidence import Evidence
from app.domain.phase import Phase
from app.domain.role import Principal, Role
from app.domain.rollout import RolloutState
from app.domain.situation import Situation, parse_situation
from app.engines.model.cache import Remembering
from app.engines.model.engine import ModelState, ModelStatus
from app.engines.model.version import ModelVersion, load_versions
from app.engines.model.wire import Priority
from app.errors import StoreUnavailable
from app.services.container import Services
from app.services.policies import PolicyFiles, settle_at_start
from app.services.ports import Model, NoModel
from app.services.records import Question
from app.services.transitions import move
from app.services.verdicts import Verdict
from app.services.versions import register_at_start
from app.store import keys
from app.store import tables as t
from app.store.database import Database
from app.store.entry import Entry
from app.store.journal import Journal
from app.store.ledger import Ledger, LedgerState
from app.store.reviews import review_of
from app.store.rollouts import load_states, lock_state
from app.store.transaction import CounterKey, Transaction, transaction
from app.web.application import create_app
from app.web.lane import DecisionLane

SHIPPED = Path(__file__).parents[2] / "policies"
VERSION = "fake-1"
BEGINNING = datetime(2027, 1, 15, 9, tzinfo=UTC)

# Small gates, no chance: every decision is observed, and drawn for review where a test says so; whoever asks
# may bring all of the evidence.
ROLLOUTS = """
defaults: {deadline_ms: 2000, review_rate: 0, attestation_ttl_s: 900, review_due_days: 7, rollback_observe_days: 7,
  double_review_rate: 0, actors_at_least: 0, actor_share: 1, ask_twice_rate: 0}
rollouts:
  read:
    actions: [read]
    risk: low
    ceiling: enforced
    combine: model
    gates: {advisory: {agreement_above: 0.5}, enforced: {override_below: 0.5, reviewed_at_least: 5}}
    exposure: [50, 100]
    review_rate: 1
  write:
    actions: [write]
    risk: medium
    ceiling: enforced
    gates: {advisory: {agreement_above: 0.5, soak_days: 2}, enforced: {override_below: 0.5}}
  deploy:
    actions: [deploy]
    risk: high
    ceiling: enforced
    gates: {advisory: {agreement_above: 0.5}, enforced: {override_below: 0.5}}
  admin: {actions: [admin_action], risk: critical, ceiling: advisory, gates: {advisory: {agreement_above: 0.5}}}
  other: {actions: ["*"], risk: high, ceiling: advisory}
"""

# The legacy engine says what the resource says; `fail` makes it err.
LEGACY = """
rules:
  - {name: broken, actions: ["*"], when: "resource == 'fail' && int(resource) > 0", decision: allow}
  - {name: open, actions: ["*"], when: "resource == 'allow'", decision: allow}
  - {name: asking, actions: ["*"], when: "resource == 'require_attestation'", decision: require_attestation}
"""

Holders = Mapping[str, tuple[Principal, str]]  # who: principal and key

ROLES = {role.value: [role] for role in Role} | {"another_reviewer": [Role.REVIEWER]}


def situation(
    action: str = "read", *, legacy: str = "allow", model: str = "allow", actor: str = "alice", **more: object
) -> dict[str, Any]:
    """A situation that the legacy engine and the fake model answer as it says."""
    return {
        "action_type": action,
        "actor_role": "member",
        "actor_id": actor,
        "t3_tensor": {"competence": 0.8, "reliability": 0.8, "integrity": 0.8},
        "resource": legacy,
        "details": model,
        **more,
    }


class Clock:
    """Two clocks that a test drives: the wall's, and one that never jumps."""

    def __init__(self) -> None:
        self.at = BEGINNING
        self.ticks = 1_000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.ticks

    def passes(self, **span: float) -> None:
        step = timedelta(**span)
        self.at += step
        self.ticks += step.total_seconds()

    def jumps(self, **span: float) -> None:
        """The wall clock alone."""
        self.at += timedelta(**span)


@dataclass
class FakeModel(Remembering):
    """Answers what a situation's `details` say: a decision, or the outcome of a failure.

    While `is_thinking`, whoever asks waits until `answers_now`. Where it `remembers`, its server keeps
    its answers in memory.
    """

    version_id: str = VERSION
    shows_legacy: bool = False
    is_ready: bool = True
    loaded_once: bool = True
    circuit_open: bool = False
    unsure: bool = False
    remembers: bool = False
    confidence: float = 0.9
    latency_ms: float = 12.0
    asked: list[tuple[Situation, Priority, Decision | None]] = field(default_factory=list)
    deadlines_s: list[float] = field(default_factory=list)
    explained: int = 0
    faults: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(entries=4096 if self.remembers else 0)
        self._may_answer = asyncio.Event()
        self._may_answer.set()
        self._was_asked = asyncio.Event()

    @property
    def _life(self) -> Hashable:
        return None

    @property
    def status(self) -> ModelStatus:
        return ModelStatus(
            state=ModelState.READY if self.is_ready else ModelState.DOWN,
            pid=None,
            version=self.version_id,
            model="fake.gguf",
            sha256="f" * 64,
            restarts=0,
            queue_depth=0,
            circuit_open=self.circuit_open,
            loaded_once=self.loaded_once,
            load_s=0.1,
            offloaded_layers=0,
            fault=None,
            error=None,
        )

    async def _compute(
        self, situation: Situation, priority: Priority, deadline_s: float, legacy: Decision | None
    ) -> Advisory:
        self.deadlines_s.append(deadline_s)
        self.asked.append((situation, priority, legacy))
        self._was_asked.set()
        await self._may_answer.wait()
        said = str(situation.details)
        if said not in list(Decision):
            outcome = Outcome(said) if said in list(Outcome) else Outcome.MALFORMED
            started = outcome not in (Outcome.OVERLOADED, Outcome.OVERSIZE)
            return Advisory(self.version_id, outcome, self.latency_ms, started=started)
        return Advisory(
            self.version_id,
            Outcome.UNSURE if self.unsure else Outcome.OK,
            self.latency_ms,
            decision=Decision(said),
            probabilities=_probabilities(Decision(said), self.confidence),
            confidence=self.confidence,
            coverage=0.99,
            prompt_tokens=80,
        )

    async def explain(
        self,
        situation: Situation,  # noqa: ARG002  # the port's signature
        advisory: Advisory,
        *,
        legacy: Decision | None = None,  # noqa: ARG002
    ) -> Reasoning:
        self.explained += 1
        assert advisory.decision is not None
        return Reasoning(
            f"{advisory.decision}, mainly because of details",
            (Attribution("details", 0.4, Decision.DENY),),
        )

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def wait_ready(self, timeout_s: float) -> bool:  # noqa: ARG002
        return self.is_ready

    async def inject(self, fault: str | None) -> None:
        self.faults.append(fault)

    def thinks(self) -> None:
        self._may_answer.clear()
        self._was_asked.clear()

    async def is_thinking(self) -> None:
        await asyncio.wait_for(self._was_asked.wait(), 5)

    def answers_now(self) -> None:
        self._may_answer.set()


class Several:
    """A fleet of fakes; what is not among them answers `unavailable`."""

    def __init__(self, default: FakeModel, others: Sequence[FakeModel]) -> None:
        self.wanted: list[tuple[str, ...]] = []
        self.declared: list[str] = []
        self._models: dict[str, Model] = {each.version_id: each for each in (default, *others)}
        self.default = self._models[default.version_id]

    @property
    def loaded(self) -> Sequence[Model]:
        return tuple(self._models.values())

    def of(self, version_id: str) -> Model:
        return self._models.get(version_id) or NoModel()

    def declare(self, version: ModelVersion) -> None:
        self.declared.append(version.id)

    async def want(self, version_ids: Iterable[str]) -> None:
        self.wanted.append(tuple(version_ids))


def _probabilities(decision: Decision, confidence: float) -> Probabilities:
    rest = (1 - confidence) / 2
    shares = {other.value: confidence if other is decision else rest for other in Decision}
    return Probabilities(**shares)


class WatchedLedger(Ledger):
    """A ledger that tells when something was written, whoever asked for it."""

    def __init__(
        self, database: Database, journal: Journal, instance: str, *, clock: Callable[[], int]
    ) -> None:
        self.written = asyncio.Event()
        super().__init__(database, journal, instance, clock=clock)

    async def written_in(self, state: LedgerState) -> None:
        """Until something was written in that state."""
        async with asyncio.timeout(5):
            while self.state is not state:
                self.written.clear()
                await self.written.wait()

    def _ask(self, what: Entry | Callable[[Transaction], Any]) -> asyncio.Future[Any]:
        future = super()._ask(what)
        future.add_done_callback(lambda _: self.written.set())
        return future


@dataclass
class Stage:
    """A server, its parts within reach, and what tests do over and over."""

    services: Services
    ledger: WatchedLedger
    model: FakeModel
    clock: Clock
    files: PolicyFiles
    keys: Holders
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @cached_property
    def litestar(self) -> Litestar:
        return create_app(self.services)

    @cached_property
    def application(self) -> Any:
        """The ASGI application as `app.main` serves it."""
        return DecisionLane(self.litestar, self.services)

    @cached_property
    def client(self) -> httpx.AsyncClient:
        return _client(self.application)

    @cached_property
    def without_lane(self) -> httpx.AsyncClient:
        return _client(self.litestar)

    @property
    def database(self) -> Database:
        return self.services.database

    def principal(self, who: str) -> Principal:
        return self.keys[who][0]

    async def decide(self, action: str = "read", *, who: str = "caller", **said: Any) -> dict[str, Any]:
        """Ask the use case itself; a question like none before, unless `team_context` is given."""
        new = {"team_context": f"question {next(self._numbers)}"}
        question = Question(
            parse_situation(situation(action, **{**new, **said})),
            self.principal(who),
            None,
            monotonic(),
            self.services.now_us(),
        )
        return await self.services.decider.decide(question)

    async def call(
        self, method: str, path: str, body: Any = None, *, who: str | None = "admin", **more: Any
    ) -> httpx.Response:
        """Ask over HTTP, with the key of somebody."""
        headers = dict(more.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {self.keys[who][1]}"
        if body is not None:
            more["json"] = body
        return await self.client.request(method, path, headers=headers, **more)

    def state(self, name: str) -> RolloutState:
        with self.database.read() as connection:
            return load_states(connection)[name]

    async def enter(self, name: str, phase: Phase, *, exposure: float = 1.0) -> RolloutState:
        """Put a rollout into a phase, past every gate: where a test begins."""

        def work(tx: Transaction) -> None:
            state = lock_state(tx, name)
            after = replace(
                state,
                phase=phase,
                exposure=exposure,
                revision=state.revision + 1,
                epoch=state.epoch + 1,
                epoch_started_at=self.clock.now(),
            )
            move(tx, state, after, kind="promote", actor="test", reason="a beginning", now=self.clock.now())

        await self.ledger.run(work)
        self.services.plane.refresh()
        return self.state(name)

    def evidence(self, name: str) -> Evidence:
        with self.database.read() as connection:
            return self.services.gates.evidence(connection, load_states(connection)[name])

    def rows(self, table: Table) -> int:
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(table)).scalar_one()

    def review(self, decision_id: str) -> Mapping[Any, Any] | None:
        with self.database.read() as connection:
            return review_of(connection, decision_id)

    async def story(self, decision_id: str, *, who: str = "admin", wait_s: float = 0.0) -> dict[str, Any]:
        return await self.services.stories.of(decision_id, self.principal(who), wait_s=wait_s)

    async def observed(self, *, n: int, rollout: str = "read") -> None:
        """Until so many decisions of the present epoch have been looked at."""
        await self.until(lambda: self.evidence(rollout).observed >= n)

    async def judge_all(self, decision: str, *, who: str = "reviewer") -> None:
        """Give every open review that somebody may see the same verdict."""
        for row in self.queue(who=who):
            await self.judge(row["decision_id"], decision, who=who)

    async def judge(self, decision_id: str, decision: str, *, who: str = "reviewer") -> dict[str, Any]:
        review = self.review(decision_id)
        assert review is not None, "nothing to judge"
        return await self.services.reviews.judge(
            review["id"], Verdict(Decision(decision)), self.principal(who)
        )

    def queue(self, status: str = "open", *, who: str = "reviewer") -> list[dict[str, Any]]:
        return self.services.reviews.list(
            self.principal(who), status=status, rollout=None, kind=None, limit=200, offset=0
        )

    async def told(
        self, news: AsyncIterator[tuple[str, dict[str, Any]]], n: int
    ) -> asyncio.Task[list[tuple[str, dict[str, Any]]]]:
        """Begin to follow; the task ends with the next `n` events."""

        async def collect() -> list[tuple[str, dict[str, Any]]]:
            return [await anext(news) for _ in range(n)]

        task = asyncio.create_task(collect())
        await asyncio.sleep(0)  # let it begin
        return task

    async def serves(self, name: str, *, days: int) -> None:
        """Days of service, each with observations enough, as the guardrail passes would have counted them."""
        looked_at = self.rows(t.advisories) + 20 * days
        for _ in range(days):
            self.clock.passes(days=1)
            await self.services.guard.look()
            for number in range(20):
                await self.decide(name, actor=f"actor-{number}")
            state = self.state(name)
            key = CounterKey(
                name, state.version, state.epoch, to_us(self.clock.now()) // 60_000_000, "served_s", "all"
            )
            await self.ledger.run(partial(Transaction.count, key=key, n=86_400))
        await self.until(lambda: self.rows(t.advisories) >= looked_at)

    async def until(self, holds: Callable[[], Any]) -> None:
        """Until something is so that only a write can bring about."""
        async with asyncio.timeout(5):
            while not holds():
                self.ledger.written.clear()
                await self.ledger.written.wait()

    async def until_recovered(self) -> None:
        """Until the ledger has replayed its journal: work that it takes again waits for that."""

        async def is_back() -> bool:
            try:
                await self.ledger.run(lambda tx: tx.connection.scalar(select(1)))
            except StoreUnavailable:
                return False
            return True

        async with asyncio.timeout(10):
            while not await is_back():
                pass

    async def looks(self, *, times: int = 1, every_s: float = 0.0) -> list[dict[str, Any]]:
        """Guardrail passes, with time between them; returns the transitions that they made."""
        made: list[dict[str, Any]] = []
        for _ in range(times):
            self.clock.passes(seconds=every_s)
            made += await self.services.guard.look()
        return made


def _client(application: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://plane")


@asynccontextmanager
async def opened(
    database: Database,
    directory: Path,
    *,
    rollouts: str = ROLLOUTS,
    legacy: str = LEGACY,
    model: FakeModel | None = None,
    others: Sequence[FakeModel] = (),
    clock: Clock | None = None,
    holders: Holders | None = None,
) -> AsyncIterator[Stage]:
    """A server over a migrated database, as `app.main` starts one; `holders` are those of a life before.

    `others` are models of further versions, which are registered too.
    """
    clock, model = clock or Clock(), model or FakeModel()
    versions = {each.version_id: version_of(each) for each in (model, *others)}
    files = written(directory, rollouts=rollouts, legacy=legacy)
    journal = Journal(directory / "journal")
    ledger = WatchedLedger(database, journal, "test", clock=lambda: to_us(clock.now()))
    try:
        with transaction(database, "test", now_us=to_us(clock.now())) as tx:
            known = register_at_start(tx, versions, policies_dir=files.policies_dir, now=clock.now())
            settle_at_start(tx, files.read(), version=model.version_id, now=clock.now(), declared=versions)
        holders = holders or _holders(database, clock)
        services = Services(
            database,
            ledger,
            files,
            Several(model, others),
            known,
            drills=True,
            now=clock.now,
            monotonic=clock.monotonic,
        )
        services.plane.refresh()
        await services.guard.look()
        services.observer.start()
        yield Stage(services, ledger, model, clock, files, holders)
        await services.observer.stop()
    finally:
        ledger.close()
        journal.close()


def written(directory: Path, *, rollouts: str = ROLLOUTS, legacy: str = LEGACY) -> PolicyFiles:
    """Policy files as an operator would write them."""
    policies = directory / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "rollouts.yaml").write_text(rollouts, encoding="utf-8")
    (policies / "legacy.yaml").write_text(legacy, encoding="utf-8")
    return PolicyFiles(policies, "rules")


def version_of(model: FakeModel) -> ModelVersion:
    return msgspec.structs.replace(_shipped(), id=model.version_id, show_legacy=model.shows_legacy)


@cache
def _shipped() -> ModelVersion:
    return next(iter(load_versions(SHIPPED).values()))


def _holders(database: Database, clock: Clock) -> Holders:
    """A key for every role, and one more reviewer; the reviewer is `rita` among the actors."""
    holders = {}
    with transaction(database, "keys", now_us=to_us(clock.now())) as tx:
        for who, roles in ROLES.items():
            actors = ["rita"] if who == "reviewer" else []
            key, plaintext = keys.create(
                tx, name=who, roles=roles, created_by="test", now_us=to_us(clock.now()), actors=actors
            )
            holders[who] = Principal(key.id, key.name, key.roles, key.actors), plaintext
    return holders
