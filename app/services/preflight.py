"""Can this machine serve, and if not, what mends it?"""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from app.engines.legacy.build import build_legacy_engine, legacy_source
from app.engines.model.version import load_versions
from app.errors import StoreUnavailable
from app.policy.rollouts import load_rollouts
from app.services.checks import Check, CheckOutcome, failed, guarded, nearest, passed, skipped
from app.services.model_needs import checks_of_model, rollouts_file
from app.settings import Settings
from app.store.database import Database

_PYTHON = (3, 11)
_GIB = 2**30
_DISK_RECOMMENDED = 5 * _GIB
_DISK_NEEDED = 7 * 100 * 10**6  # a week of logs: some 100 MB a day
_MENDS_POLICIES = "mend the file; `phasegate policies check` reads it again"


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
