"""For how much of the time was the plane there, and its model?"""

from app.domain.counters import Metric
from app.services.ports import Models
from app.store.reporting import PLANE
from app.store.transaction import CounterKey, Transaction

OF_PLANE, OF_MODEL = "plane", "model"


def count_uptime(tx: Transaction, models: Models, versions: set[str], *, seconds: int, minute: int) -> None:
    """What a guardrail pass adds: only the leader makes one, so no second counts twice.

    The model is up where every one of the `versions` that rollouts run on can answer.
    """
    if seconds <= 0:
        return
    used = [models.of(version) for version in versions]
    up = [OF_PLANE]
    if all(model.is_ready and not model.circuit_open for model in used):
        up.append(OF_MODEL)
    for label in up:
        tx.count(CounterKey(PLANE, "-", 0, minute, Metric.UP_S.value, label), seconds)
