"""The one place that wires: settings become services, services become a server."""

import gc
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog
from litestar import Litestar

from app.domain.clock import to_us
from app.engines.model.fleet import Fleet
from app.engines.model.memory import MIB, memory_limit
from app.engines.model.version import ModelVersion, choose_version, load_versions
from app.engines.model.weights import verify
from app.observability import Event, configure_logging
from app.scheduling.jobs import Jobs
from app.scheduling.leadership import Leadership
from app.services.administration import Administration
from app.services.admission import Admissions
from app.services.approvals import Approvals
from app.services.container import Services
from app.services.decide import Decider
from app.services.experiments import Experiments
from app.services.freezes import Freezes
from app.services.gates import Gates
from app.services.guard import Guard
from app.services.idempotency import Replays
from app.services.late import LateAnswers
from app.services.levers import Levers
from app.services.notices import Notices
from app.services.observe import Observer
from app.services.opinion import Opinions
from app.services.plane import Plane
from app.services.policies import Policies, PolicyFiles, settle_at_start
from app.services.ports import Models, NoModel, Sole
from app.services.queries import Queries
from app.services.ramps import Ramps
from app.services.records import Strata
from app.services.reports.gathering import Gathering
from app.services.reports.reports import Reports
from app.services.review import Reviews
from app.services.rollouts import Rollouts
from app.services.satisfaction import Satisfaction
from app.services.stories import Stories
from app.services.succession import Succession
from app.services.validate import Validations
from app.services.versions import Versions, register_at_start
from app.services.webhooks import Webhooks
from app.settings import Settings
from app.store.database import Database, one_server_lock
from app.store.ids import instance_name
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
        database = Database(settings.database_url)
        database.migrate()
        versions = _registered(settings, database, instance=instance)
        models = _models(settings, versions)
        _prepare(settings, database, files, models.default.version_id, declared=versions, instance=instance)
        journal = Journal(settings.data_dir / "journal")
        ledger = Ledger(database, journal, instance)
        try:
            services = wire(
                database,
                ledger,
                files,
                models,
                versions,
                drills=settings.drills,
                data_dir=settings.data_dir,
                prometheus_url=settings.prometheus_url,
            )
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


def _models(settings: Settings, versions: Mapping[str, ModelVersion]) -> Models:
    if not settings.model:
        return Sole(NoModel())
    default = choose_version(
        versions,
        model_path=settings.model_path,
        wanted=settings.model_version,
        sha256=partial(verify, cache_dir=settings.cache_dir),
    )
    megabytes = settings.model_memory_mb
    return Fleet(
        versions.values(),
        default=default,
        memory_bytes=memory_limit() if megabytes is None else megabytes * MIB,
        policies_dir=settings.policies_dir,
        cache_dir=settings.cache_dir,
        model_path=settings.model_path,
        drills=settings.drills,
        fault=settings.model_fault,
        queue_limit=settings.queue_limit,
    )


def _registered(settings: Settings, database: Database, *, instance: str) -> dict[str, ModelVersion]:
    """Every version that the files or the registry know."""
    at, files = now(), load_versions(settings.policies_dir)
    with transaction(database, instance, now_us=to_us(at)) as tx:
        return register_at_start(tx, files, policies_dir=settings.policies_dir, now=at)


def _prepare(
    settings: Settings,
    database: Database,
    files: PolicyFiles,
    version: str,
    *,
    declared: Collection[str],
    instance: str,
) -> None:
    """What must lie in the database before the first request: a policy, its rollouts, a key."""
    at = now()
    is_chosen = settings.model and (settings.model_version is not None or settings.model_path is not None)
    with transaction(database, instance, now_us=to_us(at)) as tx:
        waiting = settle_at_start(
            tx, files.read(), version=version, now=at, declared=declared, is_chosen=is_chosen
        )
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
    versions: dict[str, ModelVersion],
    *,
    drills: bool = False,
    data_dir: Path | None = None,
    prometheus_url: str | None = None,
    now: Callable[[], datetime] = now,
    monotonic: Callable[[], float] = time.monotonic,
) -> Services:
    """Make the use cases of one server; `now` and `monotonic` are the clocks that they go by."""

    def now_us() -> int:
        return to_us(now())

    plane = Plane(database, files.compile, monotonic=monotonic, wall_us=now_us)
    notices, strata = Notices(), Strata()
    gates = Gates(plane, versions, policies_dir=files.policies_dir)
    registry = Versions(versions, models, plane, ledger, policies_dir=files.policies_dir, now=now)
    experiments = Experiments(plane, gates, now=now)
    levers = Levers(plane, ledger, gates, notices, now=now)
    ramps = Ramps(plane, gates, levers, ledger, now=now)
    admissions = Admissions(plane, ledger)
    observer = Observer(models, ledger, LateAnswers(plane, ledger, notices, now=now), strata, admissions)
    queries = Queries(prometheus_url)
    guard = Guard(plane, ledger, models, notices, queries, now=now, monotonic=monotonic)
    rollouts = Rollouts(plane, gates, guard, ramps, now=now)
    gathering = Gathering(plane, gates, rollouts, models, versions, files.policies_dir, data_dir)
    return Services(
        database=database,
        ledger=ledger,
        plane=plane,
        models=models,
        versions=versions,
        notices=notices,
        admissions=admissions,
        observer=observer,
        decider=Decider(plane, ledger, models, observer, strata, admissions),
        replays=Replays(plane, ledger, now=now),
        opinions=Opinions(plane, models),
        stories=Stories(database, ledger, models, notices, now=now),
        reviews=Reviews(plane, ledger, notices, now=now),
        satisfaction=Satisfaction(plane, ledger, now=now),
        gates=gates,
        rollouts=rollouts,
        levers=levers,
        ramps=ramps,
        approvals=Approvals(levers, gates, plane, ledger, now=now),
        freezes=Freezes(plane, ledger, notices, now=now),
        registry=registry,
        experiments=experiments,
        succession=Succession(levers, experiments, registry, ledger, now=now),
        guard=guard,
        policies=Policies(files, plane, ledger, version=models.default.version_id, now=now),
        validations=Validations(plane, ledger, models, versions, policies_dir=files.policies_dir, now=now),
        administration=Administration(plane, ledger, now=now),
        reports=Reports(database, ledger, gathering, notices, now=now),
        webhooks=Webhooks(plane, ledger, notices, now=now),
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
            models = services.models
            if isinstance(models, Fleet):
                stack.push_async_callback(models.stop)
                await models.start()
            await services.registry.keep_ready()
            stack.push_async_callback(services.observer.stop)
            services.observer.start()
            stack.push_async_callback(services.webhooks.close)
            stack.push_async_callback(jobs.stop)
            await jobs.start()
            yield

    return run
