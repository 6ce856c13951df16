"""Can this machine serve, and if not, what mends it?"""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path

import msgspec

from app.engines.legacy.build import build_legacy_engine, legacy_source
from app.engines.model.version import ModelVersion, choose_version, load_versions
from app.engines.model.weights import find_weights
from app.errors import PhasegateError, SettingsError, StoreUnavailable
from app.policy.rollouts import load_rollouts
from app.settings import Settings
from app.store.database import Database

_PYTHON = (3, 11)
_GIB = 2**30
_DISK_RECOMMENDED = 5 * _GIB
_DISK_NEEDED = _GIB // 2  # a converted model and a few days of logs
_GGUF = b"GGUF"
_MENDS_POLICIES = "mend the file; `phasegate policies check` reads it again"
_MENDS_MODEL = "restore the file, or mend PHASEGATE_MODEL_PATH, _MODEL_VERSION or _CACHE_DIR"
_GPU_DRIVERS = ("/proc/driver/nvidia/version", "/dev/kfd")


class CheckOutcome(StrEnum):
    PASS = "pass"  # noqa: S105 -- not a password
    WARNING = "warning"  # serves, but not as it should
    FAIL = "fail"
    SKIPPED = "skipped"  # rests on a check that failed, or does not apply


class Check(msgspec.Struct, frozen=True):
    """One thing looked at. `mend` says what to do, where something is to be done."""

    name: str
    outcome: CheckOutcome
    value: str | float | None
    limit: str | float | None
    sentence: str
    mend: str | None = None


def quick_checks(settings: Settings) -> Iterator[Check]:
    """What can be known without loading the model, each as soon as it is known."""
    yield _python()
    yield _data_dir(settings)
    yield _disk(settings)
    yield (policies := guarded("policies", lambda: _policies(settings), _MENDS_POLICIES))
    yield guarded(
        "database", lambda: _database(settings), "start the database or mend PHASEGATE_DATABASE_URL"
    )
    if not settings.model:
        yield Check(
            "model_file", CheckOutcome.SKIPPED, None, None, "the model is switched off by PHASEGATE_MODEL"
        )
        return
    yield _llama_cpp()
    if policies.outcome is CheckOutcome.FAIL:
        yield Check("model_file", CheckOutcome.SKIPPED, None, None, "the policy files say which one")
        return
    yield guarded("model_file", lambda: _model_file(settings), _MENDS_MODEL)
    version = chosen_version(settings)
    if version is not None and version.decoding.n_gpu_layers != 0:
        yield _gpu_driver()


def _python() -> Check:
    wanted = ".".join(map(str, _PYTHON))
    outcome = CheckOutcome.PASS if sys.version_info >= _PYTHON else CheckOutcome.FAIL
    sentence = f"Python {platform.python_version()}"
    return Check(
        "python",
        outcome,
        platform.python_version(),
        wanted,
        sentence,
        f"install Python {wanted}" if outcome is CheckOutcome.FAIL else None,
    )


def _llama_cpp() -> Check:
    # Found, not imported: the library belongs into the worker alone, whose load proves the rest.
    if importlib.util.find_spec("llama_cpp") is None:
        return Check(
            "llama_cpp",
            CheckOutcome.FAIL,
            None,
            None,
            "llama-cpp-python is not installed",
            "run `make serve`",
        )
    found = installed_version("llama-cpp-python")
    return Check("llama_cpp", CheckOutcome.PASS, found, None, f"llama-cpp-python {found}")


def _gpu_driver() -> Check:
    for path in map(Path, _GPU_DRIVERS):
        if path.exists():
            return Check("gpu_driver", CheckOutcome.PASS, str(path), None, f"a GPU driver is loaded: {path}")
    return Check(
        "gpu_driver",
        CheckOutcome.WARNING,
        None,
        None,
        "the version asks for a GPU and no driver is loaded: the CPU answers",
        "install the driver, or set n_gpu_layers: 0 in the version's file",
    )


def _data_dir(settings: Settings) -> Check:
    place, wanted = _nearest(settings.data_dir), str(settings.data_dir)
    if place.is_dir() and os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return Check("data_dir", CheckOutcome.PASS, wanted, None, wanted)
    why = f"{place} cannot be written" if place.is_dir() else f"{place} is no directory"
    mend = "give this user the directory, or choose another by PHASEGATE_DATA_DIR"
    return Check("data_dir", CheckOutcome.FAIL, wanted, None, f"{wanted}: {why}", mend)


def _nearest(place: Path) -> Path:
    """The directory itself, or the closest of those above it that is there."""
    while not place.exists():
        place = place.parent
    return place


def _disk(settings: Settings) -> Check:
    place = _nearest(settings.data_dir)
    free = shutil.disk_usage(place).free
    value, limit = round(free / _GIB, 1), round(_DISK_RECOMMENDED / _GIB, 1)
    sentence = f"{value} GiB free for {settings.data_dir}; {limit} GiB are recommended"
    if free >= _DISK_RECOMMENDED:
        return Check("disk", CheckOutcome.PASS, value, limit, sentence)
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
    return Check("policies", CheckOutcome.PASS, len(book.names), None, sentence)


def _database(settings: Settings) -> Check:
    kind, _, path = settings.database_url.partition(":///")
    if kind == "sqlite" and not Path(path).exists():
        if not Path(path).parent.exists() and Path(path).parent != settings.data_dir:
            raise StoreUnavailable(f"{path}: there is no directory {Path(path).parent}")
        return Check("database", CheckOutcome.PASS, kind, None, f"{path} will be created")
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
    return Check(
        "database",
        CheckOutcome.PASS,
        database.dialect,
        None,
        f"{database.dialect} answers, its schema is this program's",
    )


def _model_file(settings: Settings) -> Check:
    version = _chosen(settings)
    weights = find_weights(
        version,
        policies_dir=settings.policies_dir,
        cache_dir=settings.cache_dir,
        model_path=settings.model_path,
    )
    with weights.source.open("rb") as file:
        if file.read(len(_GGUF)) != _GGUF:
            raise SettingsError("PHASEGATE_MODEL_PATH", f"{weights.source} is no GGUF file")
    size = weights.source.stat().st_size / 2**20
    return Check(
        "model_file",
        CheckOutcome.PASS,
        weights.sha256,
        version.model.sha256,
        f"{version.id}: {weights.source.name}, {size:.0f} MiB, SHA-256 {weights.sha256[:12]}…",
    )


def rollouts_file(settings: Settings) -> Path:
    return settings.policies_dir / "rollouts.yaml"


def _chosen(settings: Settings) -> ModelVersion:
    return choose_version(
        load_versions(settings.policies_dir), model_path=settings.model_path, wanted=settings.model_version
    )


def chosen_version(settings: Settings) -> ModelVersion | None:
    """The version to load, or None where `_model_file` says why there is none."""
    try:
        return _chosen(settings)
    except PhasegateError:
        return None


def guarded(name: str, look: Callable[[], Check], mend: str | None) -> Check:
    """What goes wrong in looking is the check's outcome."""
    try:
        return look()
    except StoreUnavailable as error:
        # Behind is no failure: `serve` migrates before it serves, and the message names the command.
        behind = "phasegate db migrate" in str(error)
        outcome = CheckOutcome.WARNING if behind else CheckOutcome.FAIL
        said = " ".join(str(error).split())  # a driver's message may have many lines
        return Check(name, outcome, None, None, said, "phasegate db migrate" if behind else mend)
    except (PhasegateError, OSError) as error:
        return Check(name, CheckOutcome.FAIL, None, None, str(error), mend)
