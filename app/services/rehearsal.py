"""Does the model load here, answer, and answer in time?"""

import math
import time

from app.domain.advisory import Outcome
from app.domain.phase import Phase
from app.domain.situation import Situation, Trust
from app.engines.model.supervisor import ModelSupervisor
from app.engines.model.wire import Priority
from app.policy.rollouts import RolloutBook, load_rollouts
from app.services.preflight import Check, CheckOutcome, chosen_version, guarded, rollouts_file
from app.settings import Settings

_LOAD_LIMIT_S = 900.0
_LATENCY_LIMIT_S = {"CPU": 15.0, "GPU": 5.0}
_MEASURE_S = 5.0
_MEASURE_AT_MOST = 20
_SAMPLE = Situation("read", "member", "preflight", Trust(0.8, 0.8, 0.8), resource="docs/public/readme.md")


async def model_checks(settings: Settings) -> list[Check]:
    """Load the model in a worker of its own, ask it, and compare its speed with the deadlines."""
    version = chosen_version(settings)
    if version is None or not settings.model:
        why = "no version can be chosen" if settings.model else "the model is switched off by PHASEGATE_MODEL"
        return [
            Check(name, CheckOutcome.SKIPPED, None, None, why)
            for name in ("load", "inference", "latency", "deadlines")
        ]
    model = ModelSupervisor(
        version,
        cache_dir=settings.cache_dir,
        policies_dir=settings.policies_dir,
        model_path=settings.model_path,
    )
    await model.start()
    try:
        return await _loaded_checks(model, settings)
    finally:
        await model.stop()


async def _loaded_checks(model: ModelSupervisor, settings: Settings) -> list[Check]:
    if not await model.wait_ready(_LOAD_LIMIT_S):
        failed = Check(
            "load",
            CheckOutcome.FAIL,
            None,
            None,
            f"the model does not load: {model.status.error}",
            "check the path, the permissions and the memory, or set PHASEGATE_MODEL=off",
        )
        later = [
            Check(name, CheckOutcome.SKIPPED, None, None, "the model does not load")
            for name in ("inference", "latency", "deadlines")
        ]
        return [failed, *later]
    status = model.status
    place = "GPU" if status.offloaded_layers else "CPU"
    loaded = Check(
        "load", CheckOutcome.PASS, status.load_s, None, f"{status.model} loads in {status.load_s or 0:.1f} s"
    )
    outcomes, latencies_s = await _measure(model)
    return [
        loaded,
        _inference(outcomes),
        _latency(latencies_s, place),
        guarded("deadlines", lambda: _deadlines(latencies_s, load_rollouts(rollouts_file(settings))), None),
    ]


async def _measure(model: ModelSupervisor) -> tuple[list[Outcome], list[float]]:
    """Ask until enough is known; the first answer counts too, because a caller may be the first."""
    outcomes: list[Outcome] = []
    latencies_s: list[float] = []
    until = time.monotonic() + _MEASURE_S
    while not outcomes or (time.monotonic() < until and len(outcomes) < _MEASURE_AT_MOST):
        started = time.monotonic()
        advisory = await model.advise(_SAMPLE, priority=Priority.BINDING, deadline_s=60.0)
        latencies_s.append(time.monotonic() - started)
        outcomes.append(advisory.outcome)
    return outcomes, latencies_s


def _inference(outcomes: list[Outcome]) -> Check:
    # An unsure model has answered: how sure it must be is its version's business.
    wrong = [outcome for outcome in outcomes if outcome not in (Outcome.OK, Outcome.UNSURE)]
    if wrong:
        sentence = f"{len(wrong)} of {len(outcomes)} questions failed: {wrong[0]}"
        return Check(
            "inference", CheckOutcome.FAIL, len(wrong), 0, sentence, "check the model's prompt and file"
        )
    return Check(
        "inference", CheckOutcome.PASS, len(outcomes), None, f"{len(outcomes)} questions, all answered"
    )


def _latency(latencies_s: list[float], place: str) -> Check:
    slowest, limit = max(latencies_s), _LATENCY_LIMIT_S[place]
    sentence = f"the slowest answer took {slowest:.2f} s on the {place}; the limit is {limit:g} s"
    if slowest < limit:
        return Check("latency", CheckOutcome.PASS, slowest, limit, sentence)
    return Check(
        "latency", CheckOutcome.FAIL, slowest, limit, sentence, "use a GPU, a smaller context or model"
    )


def _deadlines(latencies_s: list[float], book: RolloutBook) -> Check:
    p95_s = sorted(latencies_s)[math.ceil(0.95 * len(latencies_s)) - 1]
    answering = [policy for policy in book.policies if policy.ceiling is Phase.ENFORCED]
    if not answering:
        return Check("deadlines", CheckOutcome.SKIPPED, p95_s, None, "no rollout may ever be enforced")
    tightest = min(answering, key=lambda policy: policy.deadline_ms)
    limit_s = tightest.deadline_ms / 1_000
    sentence = f"p95 of {len(latencies_s)} answers is {p95_s:.2f} s; the tightest deadline is {limit_s:g} s ({tightest.name})"
    if p95_s < limit_s:
        return Check("deadlines", CheckOutcome.PASS, p95_s, limit_s, sentence)
    return Check(
        "deadlines", CheckOutcome.FAIL, p95_s, limit_s, sentence, "raise deadline_ms or use a faster model"
    )
