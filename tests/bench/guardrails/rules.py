"""When does each rule roll a stream back, ours and those that others use?

Many streams at once: every rule reads `Looks` and says at which look each stream's alarm came. Ours takes its
factors from the plane's own code, and `agrees` holds it against that code, look by look.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from app.domain import sequential
from app.domain.assessment import Facts
from app.domain.counters import Metric
from app.domain.evidence import from_totals
from app.domain.guardrail import advance
from app.domain.limits import Action, Guardrail, GuardrailLimits
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy
from app.domain.stream import StreamState
from tests.domain.making import START, policy

LIMIT, ALPHA, HORIZON_DAYS = 0.05, 0.01, 14
NEVER = -1

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_LARGEST = 1e300


@dataclass(frozen=True, slots=True)
class Looks:
    """`n[i]` decisions were made by look i, `days[i]` days after the start; `bad[i, s]` of them in stream s
    were bad. `window[i, s]` are the bad ones among the last 200.
    """

    days: Floats
    n: Ints
    bad: Ints
    window: Ints

    @property
    def gained(self) -> tuple[Ints, Ints]:
        """New decisions, and bad ones, at each look."""
        return np.diff(self.n, prepend=0), np.diff(self.bad, axis=0, prepend=0)


Rule = Callable[[Looks], Ints]


def first(alarms: NDArray[np.bool_]) -> Ints:
    """The look of each stream's first alarm, `NEVER` without one."""
    return np.where(alarms.any(axis=0), alarms.argmax(axis=0), NEVER)


# --- ours -----------------------------------------------------------------------------------------


def factors(*, bad: bool, weight: float = 1.0) -> Floats:
    """What one observation multiplies the five members of a stream by, as the plane computes it."""
    ones = (1.0,) * len(sequential.ODDS_RATIOS)
    return np.array(sequential.weighted_step(ones, bad=bad, weight=weight, limit=LIMIT, gap=0.0))


def ours(looks: Looks) -> Ints:
    """The mixture of Shiryaev-Roberts e-processes, a batch at each look."""
    log_bad, log_good = np.log(factors(bad=True))[:, None], np.log(factors(bad=False))[:, None]
    alarm = np.full(looks.bad.shape[1], NEVER)
    stream = np.full((len(log_bad), len(alarm)), sequential.HEAD_START)
    last = 0.0
    for look, (n, bad) in enumerate(zip(*looks.gained, strict=True)):
        due = sequential.gap((looks.days[look] - last) * 86_400, HORIZON_DAYS)
        with np.errstate(over="ignore"):
            grown = (stream + due) * np.exp(n * log_good + bad * (log_bad - log_good))
        stream = np.minimum(grown, _LARGEST)
        last = looks.days[look]
        alarm[(alarm == NEVER) & (stream.mean(axis=0) >= 1 / ALPHA)] = look
    return alarm


def one_by_one(kinds: NDArray[np.uint8], table: Floats, *, gap: float) -> Ints:
    """The same, an observation at a time: `kinds[t, s]` is the row of `table` whose factors it has."""
    by_kind = np.ascontiguousarray(table.T)
    alarm = np.full(kinds.shape[1], NEVER)
    stream = np.full((by_kind.shape[0], len(alarm)), sequential.HEAD_START)
    for at, kind in enumerate(kinds):
        stream = np.minimum((stream + gap) * by_kind[:, kind], _LARGEST)
        alarm[(alarm == NEVER) & (stream.mean(axis=0) >= 1 / ALPHA)] = at
    return alarm


def agrees(looks: Looks, streams: Sequence[int]) -> bool:
    """Whether `domain.guardrail.advance` raises the alarm of these streams at the same looks as `ours`."""
    return all(
        _judged(looks, stream) == alarm
        for stream, alarm in zip(streams, ours(looks)[list(streams)], strict=True)
    )


def _judged(looks: Looks, stream: int) -> int:
    state: StreamState | None = None
    for look, (days, n, bad) in enumerate(zip(looks.days, looks.n, looks.bad[:, stream], strict=True)):
        now = START + timedelta(days=float(days))
        state, _ = advance(Guardrail.ERROR, state, facts(int(n), int(bad), now))
        if state.alarm is not None:
            return look
    return NEVER


def facts(n: int, bad: int, now: datetime) -> Facts:
    totals = {(Metric.OBSERVATION.value, "ok"): n - bad, (Metric.OBSERVATION.value, "timeout"): bad}
    evidence = from_totals("read", "v1", epoch=1, epoch_started_at=START, totals=totals, days={})
    return Facts(WATCHED, Phase.ENFORCED, evidence, now)


def _watched() -> RolloutPolicy:
    """Only errors act by themselves, so that all of alpha is theirs."""
    others: dict[str, Any] = {
        each: Action.NOTIFY for each in Guardrail if each not in (Guardrail.ERROR, Guardrail.WRONG_ALLOW)
    }
    limits = GuardrailLimits(error_limit=LIMIT, alpha=ALPHA, horizon_days=HORIZON_DAYS)
    return policy(guardrails=replace(limits, actions=others))


WATCHED = _watched()


# --- those of others, as their makers describe them -----------------------------------------------------


def failed_check(looks: Looks) -> Ints:
    """Each look checks what came since the last one; the first check above the limit rolls back (Flagger)."""
    return first(_failures(looks))


def failure_count(looks: Looks) -> Ints:
    """As many failed checks over the whole life of the run as a `failureLimit` of 3 bears (Argo Rollouts)."""
    return first(np.cumsum(_failures(looks), axis=0) > 3)


def _failures(looks: Looks) -> NDArray[np.bool_]:
    n, bad = looks.gained
    return bad > LIMIT * n[:, None]


def window(looks: Looks) -> Ints:
    """The share of the last 200, from 30 on, lies above the limit (an alert on a rate)."""
    n = np.minimum(looks.n, 200)[:, None]
    return first((looks.window > LIMIT * n) & (n >= 30))


def repeated_interval(looks: Looks) -> Ints:
    """The exact interval (Clopper & Pearson 1934) of all so far, made for one look, asked at each."""
    fewest = binom.isf(ALPHA, looks.n, LIMIT).astype(np.int64) + 1
    return first(looks.bad >= fewest[:, None])


def asymptotic(looks: Looks) -> Ints:
    """The asymptotic confidence sequence (Waudby-Smith et al. 2021, theorem 2.2) of all so far, tuned to
    5,000 as GrowthBook does, from 30 on; two-sided, so with 2 alpha.
    """
    n, alpha = looks.n[:, None].astype(float), 2 * ALPHA
    rho = (-2 * np.log(alpha) + np.log(1 - 2 * np.log(alpha))) / 5_000
    mean = looks.bad / n
    spread = 2 * (n * rho + 1) / (n**2 * rho) * np.log(np.sqrt(n * rho + 1) / alpha)
    lower = mean - np.sqrt(mean * (1 - mean) * spread)
    return first((lower > LIMIT) & (n >= 30))


OURS = "Phasegate"
RULES: dict[str, Rule] = {
    OURS: ours,
    "one failed check": failed_check,
    "failure count": failure_count,
    "window of 200": window,
    "repeated interval": repeated_interval,
    "asymptotic sequence": asymptotic,
}
