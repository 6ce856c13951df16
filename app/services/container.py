"""What does a running server consist of?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.engines.model.version import ModelVersion
from app.services.administration import Administration
from app.services.admission import Admissions
from app.services.approvals import Approvals
from app.services.decide import Decider
from app.services.experiments import Experiments
from app.services.freezes import Freezes
from app.services.gates import Gates
from app.services.guard import Guard
from app.services.idempotency import Replays
from app.services.levers import Levers
from app.services.notices import Notices
from app.services.observe import Observer
from app.services.opinion import Opinions
from app.services.plane import Plane
from app.services.policies import Policies
from app.services.ports import Models
from app.services.ramps import Ramps
from app.services.reports.reports import Reports
from app.services.review import Reviews
from app.services.rollouts import Rollouts
from app.services.satisfaction import Satisfaction
from app.services.stories import Stories
from app.services.succession import Succession
from app.services.validate import Validations
from app.services.versions import Versions
from app.services.webhooks import Webhooks
from app.store.database import Database
from app.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Services:
    """Made once, in `app.main`; handlers and jobs take what they need from here."""

    database: Database
    ledger: Ledger
    plane: Plane
    models: Models
    versions: Mapping[str, ModelVersion]
    notices: Notices
    admissions: Admissions
    observer: Observer
    decider: Decider
    replays: Replays
    opinions: Opinions
    stories: Stories
    reviews: Reviews
    satisfaction: Satisfaction
    gates: Gates
    rollouts: Rollouts
    levers: Levers
    ramps: Ramps
    approvals: Approvals
    freezes: Freezes
    registry: Versions
    experiments: Experiments
    succession: Succession
    guard: Guard
    policies: Policies
    validations: Validations
    administration: Administration
    reports: Reports
    webhooks: Webhooks
    drills: bool
    now_us: Callable[[], int]  # the wall clock
