"""What happens by the clock, and on which instance?"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from app.domain.clock import to_us
from app.errors import PhasegateError
from app.observability import JOBS, Event
from app.scheduling.leadership import Leadership
from app.services.container import Services
from app.services.gauges import show
from app.store.counters import compact
from app.store.retention import forget_expired, remove_old

log = structlog.get_logger()

_MISFIRE_S = 300
_COMPACT_S = 600
_RETAIN_S = 3_600
_REMIND_S = 86_400
_LOG_KEPT_DAYS = 30  # of deliveries that are settled
_DAY_US = 86_400_000_000

Job = Callable[[], Awaitable[object]]


class Jobs:
    """Every instance polls its snapshot; the leader judges guardrails, lets reviews expire and tidies up."""

    def __init__(
        self,
        services: Services,
        leadership: Leadership,
        *,
        snapshot_s: float,
        guardrail_s: float,
        retention_days: int,
        now: Callable[[], datetime],
    ) -> None:
        self._services = services
        self._leadership = leadership
        self._retention_days = retention_days
        self._now = now
        self._scheduler = AsyncIOScheduler(
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": _MISFIRE_S}
        )
        on_every: list[tuple[float, str, Job]] = [
            (snapshot_s, "snapshot", self._poll),
            (snapshot_s, "watch", services.watch.look),  # apart: nothing that decides waits for it
            (snapshot_s, "versions", services.registry.keep_ready),  # apart: a worker may take long to end
            (1.0, "observe", self._adapt),
            (1.0, "checkpoint", partial(asyncio.to_thread, services.database.checkpoint)),
            (2.0, "lead", leadership.hold),
        ]
        on_the_leader: list[tuple[float, str, Job]] = [
            (guardrail_s, "guardrails", services.guard.look),
            (guardrail_s, "approvals", services.approvals.look),
            (1.0, "expire_reviews", services.guard.expire_reviews),
            (60.0, "oversight", services.guard.check_oversight),
            (60.0, "ramps", services.ramps.advance),
            (60.0, "reports", services.reports.keep_due),
            (2.0, "deliver", services.webhooks.deliver),
            (600.0, "remind", self._remind),
            (_COMPACT_S, "compact", self._compact),
            (_RETAIN_S, "retention", self._retain),
        ]
        for seconds, name, job in on_every:
            self._every(seconds, name, job)
        for seconds, name, job in on_the_leader:
            self._every(seconds, name, partial(self._leading, job))

    async def start(self) -> None:
        """Lead, if nobody else does, and judge once before the first answer relies on it."""
        await self._leadership.hold()
        await self._leading(self._services.guard.look)
        self._scheduler.start()

    async def stop(self) -> None:
        self._scheduler.shutdown(wait=False)
        await self._leadership.let_go()

    def _every(self, seconds: float, name: str, job: Job) -> None:
        self._scheduler.add_job(
            _counted(name, job),
            "interval",
            seconds=seconds,
            id=name,
            next_run_time=self._now() + timedelta(seconds=seconds),
        )

    async def _leading(self, job: Job) -> None:
        if self._leadership.leads:
            await job()

    async def _poll(self) -> None:
        try:
            await self._services.plane.refresh_soon()
        finally:  # what is shown of a plane that cannot be read is its age
            show(self._services)

    async def _adapt(self) -> None:
        self._services.observer.adapt()

    async def _remind(self) -> None:
        if await self._leadership.claims("remind", every_s=_REMIND_S):
            late = await asyncio.to_thread(self._services.reviews.backlogs)
            await self._services.webhooks.tell_backlog(late)

    async def _compact(self) -> None:
        if await self._leadership.claims("compact", every_s=_COMPACT_S):
            now_us = to_us(self._now())
            await self._services.ledger.run(lambda tx: compact(tx, now_us))
            await self._services.admissions.tidy(self._now())

    async def _retain(self) -> None:
        """Old decisions go in small steps, so that no caller waits behind one."""
        if not await self._leadership.claims("retention", every_s=_RETAIN_S):
            return
        now_us = to_us(self._now())
        before_us = now_us - self._retention_days * _DAY_US
        await self._services.ledger.run(lambda tx: forget_expired(tx, now_us=now_us))
        await self._services.sign_in.forget(now_us=now_us)
        await self._services.webhooks.forget(before_us=now_us - _LOG_KEPT_DAYS * _DAY_US)
        rows = 0
        while True:
            removal = await self._services.ledger.run(
                lambda tx: remove_old(tx, older_than_us=before_us, now_us=now_us)
            )
            rows += removal.rows
            if not removal.batches:
                break
        log.info(Event.RETENTION_RAN, rows=rows)


def _counted(name: str, job: Job) -> Job:
    """A job that fails says so and runs again at its next time."""

    async def run() -> None:
        try:
            await job()
        except PhasegateError as error:
            JOBS.labels(name, "failed").inc()
            log.warning(Event.JOB_FAILED, job=name, error=str(error))
        except Exception:
            JOBS.labels(name, "failed").inc()
            log.exception(Event.JOB_FAILED, job=name)
        except asyncio.CancelledError:
            pass  # the server ends; the scheduler would tell of it as of an error
        else:
            JOBS.labels(name, "done").inc()

    return run
