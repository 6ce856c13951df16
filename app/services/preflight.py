"""Can this machine serve, does its model answer in time, and if not, what mends it?"""

import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from app.domain.advisory import Outcome
from app.domain.decision import Decision
from app.domain.situation import Situation, Trust
from app.engines.legacy.build import build_legacy_engine, legacy_source
from app.engines.model.engine import Engine
from app.engines.model.remote import RemoteModel
from app.engines.model.supervisor import ModelSupervisor
from app.engines.model.version import ModelVersion, load_versions
from app.engines.model.wire import Priority
from app.errors import PhasegateError, StoreUnavailable
from app.policy.rollouts import RolloutBook, load_rollouts
from app.services.model_needs import (
    MENDS_SERVER,
    NO_GPU,
    REBUILD,
    Check,
    CheckOutcome,
    checks_of_model,
    chosen_version,
    failed,
    guarded,
    nearest,
    passed,
    rollouts_file,
    skipped,
    without_gpu,
)
from app.settings import Settings
from app.store.database import Database

_PYTHON = (3, 11)
_GIB = 2**30
_DISK_RECOMMENDED = 5 * _GIB
_DISK_NEEDED = 7 * 100 * 10**6  # a week of logs: some 100 MB a day
_MENDS_POLICIES = "mend the file; phasegate policies check reads it again"
_LOAD_LIMIT_S = 900.0
_LATENCY_LIMIT_S = {"CPU": 15.0, "GPU": 5.0, "server": 5.0}
_MEASURE_S = 5.0
_MEASURE_AT_MOST = 20
_SAMPLE = Situation("read", "member", "preflight", Trust(0.8, 0.8, 0.8), resource="docs/public/readme.md")
_LATER = ("inference", "latency", "deadlines")


def quick_checks(settings: Settings) -> Iterator[Check]:
    """What can be known without loading the model, each as soon as it is known."""
    yield _python()
    yield _data_dir(settings)
    yield _disk(settings)
    yield (policies := guarded("policies", lambda: _policies(settings), _MENDS_POLICIES))
    yield (
        database := guarded(
            "database", lambda: _database(settings), "start the database or mend PHASEGATE_DATABASE_URL"
        )
    )
    if not settings.model:
        yield skipped("model_file", "the model is switched off by PHASEGATE_MODEL")
    elif policies.outcome is CheckOutcome.FAIL:
        yield skipped("model_file", "the policy files say which one")
    else:
        yield from checks_of_model(settings, used=database.outcome is CheckOutcome.PASS)


def _python() -> Check:
    wanted = ".".join(map(str, _PYTHON))
    found = platform.python_version()
    if sys.version_info >= _PYTHON:
        return passed("python", found, wanted, f"Python {found}")
    return failed("python", found, wanted, f"Python {found}", f"install Python {wanted}")


def _data_dir(settings: Settings) -> Check:
    place, wanted = nearest(settings.data_dir), str(settings.data_dir)
    if place.is_dir() and os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return passed("data_dir", wanted, None, wanted)
    why = f"{place} cannot be written" if place.is_dir() else f"{place} is no directory"
    mend = "give this user the directory, or choose another by PHASEGATE_DATA_DIR"
    return failed("data_dir", wanted, None, f"{wanted}: {why}", mend)


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(nearest(settings.data_dir)).free
    value, limit = round(free / _GIB, 1), round(_DISK_RECOMMENDED / _GIB, 1)
    sentence = f"{value} GiB free for {settings.data_dir}; {limit} GiB are recommended, logs take 0.1 a day"
    if free >= _DISK_RECOMMENDED:
        return passed("disk", value, limit, sentence)
    outcome = CheckOutcome.WARNING if free >= _DISK_NEEDED else CheckOutcome.FAIL
    return Check(
        "disk", outcome, value, limit, sentence, "free some space, or shorten PHASEGATE_RETENTION_DAYS"
    )


def _policies(settings: Settings) -> Check:
    book = load_rollouts(rollouts_file(settings))
    source = legacy_source(settings.legacy, policies_dir=settings.policies_dir)
    build_legacy_engine(settings.legacy, source=source)
    versions = load_versions(settings.policies_dir)
    sentence = f"{len(book.names)} rollouts, legacy engine {settings.legacy.partition(':')[0]}, {len(versions)} model versions"
    return passed("policies", len(book.names), None, sentence)


def _database(settings: Settings) -> Check:
    kind, _, path = settings.database_url.partition(":///")
    if kind == "sqlite" and not Path(path).exists():
        if not Path(path).parent.exists() and Path(path).parent != settings.data_dir:
            raise StoreUnavailable(f"{path}: there is no directory {Path(path).parent}")
        return passed("database", kind, None, f"{path} will be created")
    database = Database(settings.database_url)
    try:
        with database.read():
            pass
        database.check_schema()
    except StoreUnavailable as error:
        if kind != "sqlite":
            raise
        raise StoreUnavailable(f"{path}: {error}") from error
    finally:
        database.close()
    return passed(
        "database",
        database.dialect,
        None,
        f"{database.dialect} answers, its schema is this program's",
    )


async def model_checks(settings: Settings) -> list[Check]:
    """Load the model in a worker of its own, ask it, and compare its speed with the deadlines."""
    version = chosen_version(settings)
    if version is None or not settings.model:
        why = "no version can be chosen" if settings.model else "the model is switched off by PHASEGATE_MODEL"
        return [skipped(name, why) for name in ("load", *_LATER)]
    try:
        model = _opened(version, settings)
    except PhasegateError as error:
        return _not_loaded(version, str(error))
    await model.start()
    try:
        return await _loaded_checks(model, settings)
    finally:
        await model.stop()


def _opened(version: ModelVersion, settings: Settings) -> Engine:
    if version.model.remote is not None:
        return RemoteModel(version, policies_dir=settings.policies_dir)
    return ModelSupervisor(
        version,
        cache_dir=settings.cache_dir,
        policies_dir=settings.policies_dir,
        model_path=settings.model_path,
    )


def _not_loaded(version: ModelVersion, why: str) -> list[Check]:
    mend = f"check the path, the permissions and the memory, or {REBUILD}, or set PHASEGATE_MODEL=off"
    if version.model.remote is not None:
        mend = MENDS_SERVER
    load = failed("load", None, None, f"the model does not load: {why}", mend)
    return [load, *(skipped(name, "the model does not load") for name in _LATER)]


async def _loaded_checks(model: Engine, settings: Settings) -> list[Check]:
    if not await model.wait_ready(_LOAD_LIMIT_S):
        return _not_loaded(model.version, model.status.error or "no reason is known")
    status = model.status
    place = "GPU" if status.offloaded_layers else "CPU"
    if isinstance(model, RemoteModel):
        place = "server"
    loaded = passed(
        "load",
        status.load_s,
        _LOAD_LIMIT_S,
        f"{status.model} is ready after {status.load_s or 0:.1f} s on the {place}",
    )
    outcomes, latencies_s = await _measure(model)
    return [
        loaded,
        *_gpu(model.version, status.offloaded_layers, status.device or ""),
        _inference(outcomes),
        _latency(latencies_s, place),
        guarded("deadlines", lambda: _deadlines(latencies_s, load_rollouts(rollouts_file(settings))), None),
    ]


def _gpu(version: ModelVersion, offloaded: int | None, device: str) -> list[Check]:
    """Whether what lies on a GPU is what the version asks for; nothing where it asks for none."""
    wanted = version.decoding.n_gpu_layers
    if wanted == 0 or offloaded is None:
        return []
    if offloaded:
        return [passed("gpu_offload", offloaded, wanted, device)]
    said = f"{version.id} asks for a GPU and llama.cpp found none that it was built for: the CPU answers"
    mend = f'CMAKE_ARGS="-DGGML_CUDA=on" {REBUILD}, {NO_GPU}'
    return [Check("gpu_offload", without_gpu(version), offloaded, wanted, said, mend)]


async def _measure(model: Engine) -> tuple[list[Outcome], list[float]]:
    """Ask until enough is known; the first answer counts too, because a caller may be the first."""
    outcomes: list[Outcome] = []
    latencies_s: list[float] = []
    until = time.monotonic() + _MEASURE_S
    while not outcomes or (time.monotonic() < until and len(outcomes) < _MEASURE_AT_MOST):
        started = time.monotonic()
        advisory = await model.advise(
            _SAMPLE, priority=Priority.BINDING, deadline_s=60.0, legacy=Decision.ALLOW
        )
        latencies_s.append(time.monotonic() - started)
        outcomes.append(advisory.outcome)
    return outcomes, latencies_s


def _inference(outcomes: list[Outcome]) -> Check:
    # An unsure model has answered: how sure it must be is its version's business.
    wrong = [outcome for outcome in outcomes if outcome not in (Outcome.OK, Outcome.UNSURE)]
    if wrong:
        sentence = f"{len(wrong)} of {len(outcomes)} questions failed: {wrong[0]}"
        return failed("inference", len(wrong), 0, sentence, "check the model's prompt and file")
    return passed("inference", len(outcomes), None, f"{len(outcomes)} questions, all answered")


def _latency(latencies_s: list[float], place: str) -> Check:
    slowest, limit = max(latencies_s), _LATENCY_LIMIT_S[place]
    sentence = f"the slowest answer took {slowest:.2f} s on the {place}; the limit is {limit:g} s"
    if slowest < limit:
        return passed("latency", slowest, limit, sentence)
    return failed("latency", slowest, limit, sentence, "use a GPU, a smaller context or model")


def _deadlines(latencies_s: list[float], book: RolloutBook) -> Check:
    """Any rollout counts: in every phase its deadline ends what the model is asked."""
    p95_s = sorted(latencies_s)[math.ceil(0.95 * len(latencies_s)) - 1]
    tightest = min(book.policies, key=lambda policy: policy.deadline_ms)
    limit_s = tightest.deadline_ms / 1_000
    missed = [policy for policy in book.policies if policy.deadline_ms / 1_000 <= p95_s]
    sentence = f"p95 of {len(latencies_s)} answers is {p95_s:.2f} s; "
    if not missed:
        sentence += f"the tightest deadline is {limit_s:g} s ({tightest.name})"
        return passed("deadlines", p95_s, limit_s, sentence)
    sentence += "too late for " + ", ".join(f"{one.name} ({one.deadline_ms / 1_000:g} s)" for one in missed)
    names = ", ".join(policy.name for policy in missed)
    mend = f"raise deadline_ms of {names} above {1_000 * p95_s:.0f} in policies/rollouts.yaml, "
    return failed("deadlines", p95_s, limit_s, sentence, mend + "or use a faster model")
