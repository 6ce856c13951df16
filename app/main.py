"""How do settings become a server that runs?"""

import gc
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
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
from app.services.container import Services, now
from app.services.oidc import provider_of
from app.services.policies import PolicyFiles, settle_at_start
from app.services.ports import Models, NoModel, Sole
from app.services.users import first_link
from app.services.versions import register_at_start
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


@dataclass(frozen=True, slots=True)
class Server:
    """Everything of one server, made but not started."""

    app: Litestar
    services: Services
    instance: str
    link: str | None  # the path by which the first user signs in, while none ever has; for the terminal alone


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
        link = _prepare(
            settings, database, files, models.default.version_id, declared=versions, instance=instance
        )
        journal = Journal(settings.data_dir / "journal")
        ledger = Ledger(database, journal, instance)
        try:
            services = Services(
                database,
                ledger,
                files,
                models,
                versions,
                drills=settings.drills,
                data_dir=settings.data_dir,
                prometheus_url=settings.prometheus_url,
                settings=settings,
                session_idle_min=settings.session_idle_min,
                session_days=settings.session_days,
                oidc=provider_of(settings),
            )
            services.plane.refresh()
            lifespan = _lifespan(settings, services, instance=instance)
            yield Server(create_app(services, lifespan=[lifespan]), services, instance, link)
        finally:
            ledger.close()
            journal.close()
            database.close()


def serve(settings: Settings, *, started: Callable[[str | None], None]) -> None:
    """Serve until SIGINT or SIGTERM, then return; `started` is called once the port is open, with the path
    by which the first user signs in, while none ever has.

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
            started=partial(started, server.link),
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
) -> str | None:
    """What must lie in the database before the first request: a policy, its rollouts, a key, a way in."""
    at = now()
    is_chosen = settings.model and (settings.model_version is not None or settings.model_path is not None)
    with transaction(database, instance, now_us=to_us(at)) as tx:
        waiting = settle_at_start(
            tx, files.read(), version=version, now=at, declared=declared, is_chosen=is_chosen
        )
        made = ensure_admin(tx, settings.admin_key, now_us=to_us(at))
        if made is not None and settings.admin_key is None:
            _keep_secret(settings.key_file, made[1])
        link = first_link(tx, now_us=to_us(at))
    for change in waiting:
        log.warning(
            Event.POLICY_WAITS,
            rollout=change.rollout,
            key=change.key,
            mend="phasegate policies apply, by two people",
        )
    return link


def _keep_secret(path: Path, text: str) -> None:
    """Write a file that only its owner reads, from the first byte on."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text + "\n", encoding="ascii")


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
