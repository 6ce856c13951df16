"""What does a running server consist of, and how do its parts know one another?"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from app.domain.clock import to_us
from app.engines.model.version import ModelVersion
from app.services.administration import Administration
from app.services.admission import Admissions
from app.services.approvals import Approvals
from app.services.board import Board
from app.services.close_ups import CloseUps
from app.services.decide import Decider
from app.services.desk import Desk
from app.services.experiments import Experiments
from app.services.freezes import Freezes
from app.services.gates import Gates
from app.services.guard import Guard
from app.services.health import Health
from app.services.idempotency import Replays
from app.services.late import LateAnswers
from app.services.levers import Levers
from app.services.lineage import Lineage
from app.services.notices import Notices
from app.services.observe import Observer
from app.services.oidc import Provider
from app.services.opinion import Opinions
from app.services.overview import Overview
from app.services.plane import Plane
from app.services.policies import Policies, PolicyFiles
from app.services.ports import Models
from app.services.queries import Queries
from app.services.ramps import Ramps
from app.services.records import Strata
from app.services.reports.facts import Gathering
from app.services.reports.reports import Reports
from app.services.review import Reviews
from app.services.rollouts import Rollouts
from app.services.satisfaction import Satisfaction
from app.services.sign_in import SignIn
from app.services.stories import Stories
from app.services.succession import Succession
from app.services.suites import SuiteBook
from app.services.users import Users
from app.services.validate import Validations
from app.services.versions import Versions
from app.services.watch import Watch
from app.services.webhooks import Webhooks
from app.settings import Settings
from app.store.database import Database
from app.store.ledger import Ledger


def now() -> datetime:
    return datetime.now(UTC)


class Services:
    """The use cases of one server; handlers and jobs take what they need from here.

    `now` and `monotonic` are the clocks that all of them go by.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        files: PolicyFiles,
        models: Models,
        versions: dict[str, ModelVersion],
        *,
        drills: bool = False,
        data_dir: Path | None = None,
        prometheus_url: str | None = None,
        settings: Settings | None = None,
        session_idle_min: int = 480,
        session_days: int = 7,
        oidc: Provider | None = None,
        now: Callable[[], datetime] = now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database, self.ledger, self.models, self.versions = database, ledger, models, versions
        self.drills = drills
        self._now = now
        policies_dir = files.policies_dir

        self.plane = plane = Plane(database, files.compile, monotonic=monotonic, wall_us=self.now_us)
        self.notices = notices = Notices()
        self.watch = Watch(plane, notices)
        self.gates = gates = Gates(plane, versions, policies_dir=policies_dir)
        self.registry = Versions(versions, models, plane, ledger, policies_dir=policies_dir, now=now)
        self.lineage = Lineage(self.registry, policies_dir)
        self.suites = SuiteBook(database, policies_dir)
        self.experiments = Experiments(plane, gates, now=now)

        self.levers = Levers(plane, ledger, gates, notices, now=now)
        self.ramps = Ramps(plane, gates, self.levers, ledger, now=now)
        self.approvals = Approvals(self.levers, gates, plane, ledger, now=now)
        self.freezes = Freezes(plane, ledger, notices, now=now)
        self.succession = Succession(self.levers, self.experiments, self.registry, ledger, now=now)
        self.guard = Guard(
            plane, ledger, models, notices, Queries(prometheus_url), now=now, monotonic=monotonic
        )
        overview = Overview(plane, gates, now)
        self.board = Board(plane, overview, models, now)
        self.rollouts = Rollouts(plane, gates, self.guard, self.ramps, overview, now=now)
        self.close_ups = CloseUps(plane, gates, now=now)

        strata, late = Strata(), LateAnswers(plane, ledger, notices, now=now)
        self.admissions = Admissions(plane, ledger)
        self.observer = Observer(models, ledger, late, strata, self.admissions)
        self.decider = Decider(plane, ledger, models, self.observer, strata, self.admissions)
        self.replays = Replays(plane, ledger, now=now)
        self.opinions = Opinions(plane, models)
        self.stories = Stories(database, ledger, models, notices, now=now)
        self.reviews = Reviews(plane, ledger, notices, now=now)
        self.desk = Desk(plane, ledger, now)
        self.satisfaction = Satisfaction(plane, ledger, now=now)

        self.policies = Policies(files, plane, ledger, version=models.default.version_id, now=now)
        self.validations = Validations(plane, ledger, models, versions, policies_dir=policies_dir, now=now)
        self.administration = Administration(plane, ledger, now=now)
        self.oidc = oidc
        self.users = Users(plane, ledger, now=now)
        self.sign_in = SignIn(
            plane, ledger, idle_min=session_idle_min, days=session_days, now=now, monotonic=monotonic
        )
        gathering = Gathering(plane, gates, self.rollouts, models, versions, policies_dir, data_dir)
        self.reports = Reports(database, ledger, gathering, notices, now=now)
        self.webhooks = Webhooks(plane, ledger, notices, now=now)
        self.health = Health(plane, ledger, models, now, drills, settings)

    def now_us(self) -> int:
        """The wall clock."""
        return to_us(self._now())
