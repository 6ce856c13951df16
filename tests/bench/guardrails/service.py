"""Does a whole server roll back the same rollouts, at the same looks, as the simulation says?"""

import asyncio
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from app.domain.clock import to_us
from app.domain.counters import Metric
from app.domain.limits import Guardrail
from app.domain.phase import Phase
from app.store.counters import minute_of
from app.store.database import Database
from app.store.transaction import CounterKey, Transaction
from tests.bench.guardrails.acceptance import Check
from tests.bench.guardrails.rules import ALPHA, HORIZON_DAYS, LIMIT, NEVER, Ints, Looks, ours
from tests.services.plane import opened

_LOOK_H = 6
_A_LOOK = 250  # decisions between two looks: 1,000 a day
_CHANGE = 8  # the look after which the third kind of stream is bad
_RATES = (LIMIT / 2, LIMIT, 4 * LIMIT)  # a third of the rollouts each; the last is healthy until the change

_OTHERS = [each for each in Guardrail if each not in (Guardrail.ERROR, Guardrail.WRONG_ALLOW)]
_GUARDRAILS = f"error_limit: {LIMIT}, alpha: {ALPHA}, horizon_days: {HORIZON_DAYS}"
_POLICY = (
    "{{actions: [a{number}], risk: low, ceiling: enforced, guardrails: {{{limits}, actions: {{{others}}}}}}}"
)


def checks(chance: np.random.Generator, *, rollouts: int) -> list[Check]:
    """Fourteen days of a server on SQLite in which every rollout is a stream, and an attack by repetition."""
    return asyncio.run(_checks(chance, rollouts))


async def _checks(chance: np.random.Generator, rollouts: int) -> list[Check]:
    looks = _simulated(chance, rollouts)
    expected = ours(looks)
    with tempfile.TemporaryDirectory(prefix="phasegate-bench-") as name:
        found = await _served(Path(name), looks)
    changed = np.arange(rollouts) % 3 == 2
    late = [look - _CHANGE + 1 if look != NEVER else np.inf for look in found[changed]]
    with tempfile.TemporaryDirectory(prefix="phasegate-bench-") as name:
        replayed, distinct = await _attacked(Path(name))
    differ, false = float((found != expected).sum()), float((found[::3] != NEVER).mean())
    to_rollback = f"looks (of {_A_LOOK} decisions) to a rollback at 4 x limit, median"
    return [
        Check("rollouts that the server judges otherwise than the simulation", differ, 0),
        Check("false rollbacks by the server, at half the limit", false, 0.0),
        Check(to_rollback, float(np.median(late)), 2),
        Check("rollbacks by one bad situation, asked 200 times", replayed, 0),
        Check("rollbacks by as many different ones (meant)", distinct, 1, at_least=True),
    ]


def _simulated(chance: np.random.Generator, rollouts: int) -> Looks:
    number = np.arange(1, HORIZON_DAYS * 24 // _LOOK_H + 1)
    rates = np.array([[_RATES[kind % 3] for kind in range(rollouts)]] * len(number))
    rates[:_CHANGE, 2::3] = LIMIT / 2
    bad = np.cumsum(chance.binomial(_A_LOOK, rates), axis=0)
    return Looks(number * _LOOK_H / 24, number * _A_LOOK, bad, bad)


def _policies(rollouts: int) -> str:
    others = ", ".join(f"{each}: notify" for each in _OTHERS)
    each = [_POLICY.format(number=number, limits=_GUARDRAILS, others=others) for number in range(rollouts)]
    named = "".join(f"  r{number}: {policy}\n" for number, policy in enumerate(each))
    return f'rollouts:\n{named}  other: {{actions: ["*"], risk: high, ceiling: advisory}}\n'


def _database(directory: Path) -> Database:
    database = Database(f"sqlite:///{directory / 'plane.db'}")
    database.migrate()
    return database


async def _served(directory: Path, looks: Looks) -> Ints:
    """At which look the server rolled each rollout back."""
    rollouts = looks.bad.shape[1]
    alarm, database = np.full(rollouts, NEVER), _database(directory)
    async with opened(database, directory, rollouts=_policies(rollouts)) as stage:
        epochs = {}
        for number in range(rollouts):
            epochs[f"r{number}"] = (await stage.enter(f"r{number}", Phase.ENFORCED)).epoch
        for look, bad in enumerate(looks.gained[1]):
            stage.clock.passes(hours=_LOOK_H)
            minute, version = minute_of(to_us(stage.clock.now())), stage.model.version_id
            counts = [
                (CounterKey(name, version, epoch, minute, Metric.OBSERVATION, outcome), n)
                for (name, epoch), x in zip(epochs.items(), bad.tolist(), strict=True)
                for outcome, n in (("ok", _A_LOOK - x), ("timeout", x))
            ]
            await stage.ledger.run(partial(_count, counts=counts))
            for transition in await stage.services.guard.look():
                if transition["kind"] == "rollback":
                    alarm[int(transition["rollout"][1:])] = look
    database.close()
    return alarm


def _count(tx: Transaction, counts: list[tuple[CounterKey, int]]) -> None:
    for key, n in counts:
        tx.count(key, n)


async def _attacked(directory: Path) -> tuple[int, int]:
    """Rollbacks after honest traffic and one situation that the model fails at, asked 200 times by one actor,
    then after such situations of 200 actors.
    """
    database = _database(directory)
    async with opened(database, directory, rollouts=_policies(1)) as stage:
        await stage.enter("r0", Phase.ENFORCED)
        for number in range(100):
            await stage.decide("a0", actor=f"actor-{number}")
        for _ in range(200):
            await stage.decide("a0", actor="somebody", model="malformed", team_context="the same")
        replayed = len(await stage.looks(every_s=60))
        for number in range(200):
            await stage.decide("a0", actor=f"actor-{number}", model="malformed")
        distinct = len(await stage.looks(every_s=60))
    database.close()
    return replayed, distinct
