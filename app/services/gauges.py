"""What does Prometheus see of the plane's standing?"""

from app.engines.model.engine import ModelState
from app.observability import (
    EXPOSURE,
    JOURNALING,
    KILL_SWITCH,
    MODEL_QUEUE,
    MODEL_RESTARTS,
    MODEL_UP,
    PHASE,
    SNAPSHOT_AGE_SECONDS,
)
from app.services.container import Services
from app.store.ledger import LedgerState


def show(services: Services) -> None:
    """Set every gauge from what this instance knows; reads nothing but memory."""
    view, status = services.plane.view, services.models.default.status
    for name, state in view.states.items():
        PHASE.labels(name).set(state.phase.rank)
        EXPOSURE.labels(name).set(state.exposure)
    KILL_SWITCH.set(view.kill_switch)
    SNAPSHOT_AGE_SECONDS.set(services.plane.snapshot_age_s)
    MODEL_UP.set(status.state is ModelState.READY)
    MODEL_QUEUE.set(status.queue_depth)
    MODEL_RESTARTS.set(status.restarts)
    JOURNALING.set(services.ledger.state is LedgerState.JOURNALING)
