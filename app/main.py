"""The one place that wires: settings become services, services become a server."""

import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from litestar import Litestar

from app.domain.clock import to_us
from app.engines.model.supervisor import ModelSupervisor
from app.engines.model.version import ModelVersion, choose_version, load_versions
from app.observability import Event, configure_logging
from app.scheduling.jobs import Jobs
from app.scheduling.leadership import Leadership
from app.services.administration import Administration
from app.services.container import Services
from app.services.decide import Decider
from app.services.gates import Gates
from app.services.guard import Guard
from app.services.idempotency import Replays
from app.services.levers import Levers
from app.services.notices import Notices
from app.services.observe import Observer
from app.services.opinion import Opinions
from app.services.plane import Plane
from app.services.policies import Policies, PolicyFiles, settle_at_start
from app.services.ports import Model, Models, NoModel, Sole
from app.services.records import Strata
from app.services.review import Reviews
from app.services.rollouts import Rollouts
from app.services.stories import Stories
from app.settings import Settings
from app.store.database import Database, one_server_lock
from app.store.instance import instance_name
from app.store.journal import Journal
from app.store.keys import ensure_admin
from app.store.ledger import Ledger
from app.store.transaction import transaction
from app.web.application import create_app
from app.web.lane import DecisionLane
from app.web.listener import listen

log = structlog.get_logger()

_GC_THRESHOLD = 20_000  # allocations between collections of the youngest objects


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Server:
    """Everything of one server, made but not started."""

    app: Litestar
    services: Services
    instance: str


@contextmanager
def open_server(settings: Settings) -> Iterator[Server]:
    """Migrate, settle the policy, see to the first key, and wire; closes all at the end.

    Raises `Conflict` where the data directory is served already, and whatever is wrong with a file.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with one_server_lock(settings.data_dir):
        instance = settings.instance or instance_name(settings.data_dir)
        files = PolicyFiles(settings.policies_dir, settings.legacy, settings.legacy_deadline_ms / 1000)
        versions = load_versions(settings.policies_dir)
        model = _model(settings, versions)
        database = Database(settings.database_url)
        database.migrate()
        _prepare(settings, database, files, model.version_id, instance=instance)
        journal = Journal(settings.data_dir / "journal")
        ledger = Ledger(database, journal, instance)
        try:
            services = wire(database, ledger, files, Sole(model), versions, drills=settings.drills)
            services.plane.refresh()
            lifespan = _lifespan(settings, services, instance=instance)
            yield Server(create_app(services, lifespan=[lifespan]), services, instance)
        finally:
            ledger.close()
            journal.close()
            database.close()


def serve(settings: Settings, *, started: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then return; `started` is called once the port is open.

    Raises `Conflict` where the port or the data directory is taken, and whatever else hinders the start.
    """
    configure_logging(settings)
    with open_server(settings) as server:

        def before() -> None:
            # What is there by now stays; and a decision leaves no cycles behind, so collecting can wait longer.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_GC_THRESHOLD)
            log.info(Event.SERVER_STARTED, url=settings.url, instance=server.instance)

        listen(
            DecisionLane(server.app, server.services),
            host=settings.host,
            port=settings.port,
            before=before,
            started=started,
            ending=server.services.notices.close,
        )
        log.info(Event.SERVER_STOPPED)


def _model(settings: Settings, versions: dict[str, ModelVersion]) -> Model:
    if not settings.model:
        return NoModel()
    version = choose_version(versions, model_path=settings.model_path, wanted=settings.model_version)
    return ModelSupervisor(
        version,
        cache_dir=settings.cache_dir,
        policies_dir=settings.policies_dir,
        model_path=settings.model_path,
        drills=settings.drills,
        fault=settings.model_fault,
        queue_limit=settings.queue_limit,
    )


def _prepare(
    settings: Settings, database: Database, files: PolicyFiles, version: str, *, instance: str
) -> None:
    """What must lie in the database before the first request: a policy, its rollouts, a key."""
    at = now()
    with transaction(database, instance, now_us=to_us(at)) as tx:
        waiting = settle_at_start(tx, files.read(), version=version, now=at)
        made = ensure_admin(tx, settings.admin_key, now_us=to_us(at))
        if made is not None and settings.admin_key is None:
            _keep_secret(settings.key_file, made[1])
    for change in waiting:
        log.warning(
            Event.POLICY_WAITS,
            rollout=change.rollout,
            key=change.key,
            mend="phasegate policies apply, by two people",
        )


def _keep_secret(path: Path, text: str) -> None:
    """Write a file that only its owner reads, from the first byte on."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text + "\n", encoding="ascii")


def wire(
    database: Database,
    ledger: Ledger,
    files: PolicyFiles,
    models: Models,
    versions: Mapping[str, ModelVersion],
    *,
    drills: bool = False,
    now: Callable[[], datetime] = now,
    monotonic: Callable[[], float] = time.monotonic,
) -> Services:
    """Make the use cases of one server; `now` and `monotonic` are the clocks that they go by."""

    def now_us() -> int:
        return to_us(now())

    plane = Plane(database, files.compile, monotonic=monotonic, wall_us=now_us)
    notices, strata = Notices(), Strata()
    gates = Gates(plane, {version.id: not version.show_legacy for version in versions.values()})
    reviews = Reviews(plane, ledger, notices, now=now)
    observer = Observer(models, ledger, reviews, strata)
    guard = Guard(plane, ledger, models, notices, now=now, monotonic=monotonic)
    return Services(
        database=database,
        ledger=ledger,
        plane=plane,
        models=models,
        versions=versions,
        notices=notices,
        observer=observer,
        decider=Decider(plane, ledger, models, observer, strata),
        replays=Replays(plane, ledger, now=now),
        opinions=Opinions(plane, models),
        stories=Stories(database, ledger, models, notices, now=now),
        reviews=reviews,
        gates=gates,
        rollouts=Rollouts(plane, gates, guard, now=now),
        levers=Levers(plane, ledger, gates, notices, now=now),
        guard=guard,
        policies=Policies(files, plane, ledger, version=models.default.version_id, now=now),
        administration=Administration(plane, ledger, now=now),
        drills=drills,
        now_us=now_us,
    )


def _lifespan(
    settings: Settings, services: Services, *, instance: str
) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def run(_: Litestar) -> AsyncIterator[None]:
        leadership = Leadership(services.ledger, instance, now=now)
        jobs = Jobs(
            services,
            leadership,
            snapshot_s=settings.snapshot_interval_s,
            guardrail_s=settings.guardrail_interval_s,
            retention_days=settings.retention_days,
            now=now,
        )
        async with AsyncExitStack() as stack:  # ended in the opposite order, each whatever the others do
            model = services.models.default
            if isinstance(model, ModelSupervisor):
                stack.push_async_callback(model.stop)
                await model.start()
            stack.push_async_callback(services.observer.stop)
            services.observer.start()
            stack.push_async_callback(jobs.stop)
            await jobs.start()
            yield

    return run
