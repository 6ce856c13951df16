"""What is a check before a start, and is everything there that the model needs, before anybody loads it?"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from app.engines.model.remote import RemoteModel
from app.engines.model.version import ModelVersion, choose_version, load_versions
from app.engines.model.weights import Weights, find_weights, verify
from app.errors import PhasegateError, SettingsError, StoreUnavailable
from app.services.declarations import document_of, is_same, taken
from app.settings import Settings
from app.store import versions as stored
from app.store.database import Database
from app.store.rollouts import load_states

_MIB = 2**20
_GGUF = b"GGUF"
_MENDS_MODEL = "restore the file, or mend PHASEGATE_MODEL_PATH, _MODEL_VERSION or _CACHE_DIR"
MENDS_SERVER = "start that server, set the variable that holds its key, or mend the version's file"
_GPU_DRIVERS = ("/proc/driver/nvidia/version", "/dev/kfd", "/dev/dxg")
_PACKAGE = "llama-cpp-python"
REBUILD = f"pip install --force-reinstall --no-deps --no-cache-dir {_PACKAGE}"
NO_GPU = "or set n_gpu_layers: 0 in the version's file"
_COPIES = 4  # a layout of 16 bits, and a scratch file beside it, per byte of a file of 4 bits and more


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


def passed(name: str, value: str | float | None, limit: str | float | None, sentence: str) -> Check:
    return Check(name, CheckOutcome.PASS, value, limit, sentence)


def failed(
    name: str, value: str | float | None, limit: str | float | None, sentence: str, mend: str | None
) -> Check:
    return Check(name, CheckOutcome.FAIL, value, limit, sentence, mend)


def skipped(name: str, why: str) -> Check:
    return Check(name, CheckOutcome.SKIPPED, None, None, why)


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
        return failed(name, None, None, str(error), mend)


def nearest(place: Path) -> Path:
    """The directory itself, or the closest of those above it that is there."""
    while not place.exists():
        place = place.parent
    return place


def checks_of_model(settings: Settings, *, used: bool) -> Iterator[Check]:
    """Library, file or server, room and GPU. `used`: the database can say which versions are in use."""
    version = chosen_version(settings)
    if version is not None and version.model.remote is not None:
        yield guarded("model_server", lambda: _server(settings, version), MENDS_SERVER)
    else:
        yield _library()
        yield guarded("model_file", lambda: _model_file(settings), _MENDS_MODEL)
        if version is not None:
            yield _decoding(version)
            yield guarded("cache", lambda: _cache(settings, version), _MENDS_MODEL)
            if version.decoding.n_gpu_layers != 0:
                yield _gpu_driver(version)
    if used:
        yield guarded("versions", lambda: _in_use(settings, version), _MENDS_MODEL)


def rollouts_file(settings: Settings) -> Path:
    return settings.policies_dir / "rollouts.yaml"


def chosen_version(settings: Settings) -> ModelVersion | None:
    """The version to load, or None where `model_file` says why there is none."""
    try:
        return _chosen(settings)
    except (PhasegateError, OSError):
        return None


def _chosen(settings: Settings) -> ModelVersion:
    return choose_version(
        load_versions(settings.policies_dir),
        model_path=settings.model_path,
        wanted=settings.model_version,
        sha256=partial(verify, cache_dir=settings.cache_dir),
    )


def _library() -> Check:
    if importlib.util.find_spec("llama_cpp") is None:
        said = f"{_PACKAGE} is not installed"
        return failed("llama_cpp", None, None, said, f"pip install {_PACKAGE}")
    found = installed_version(_PACKAGE)
    return passed("llama_cpp", found, None, f"{_PACKAGE} {found}")


def _model_file(settings: Settings) -> Check:
    version = _chosen(settings)
    weights = _weights(version, settings, model_path=settings.model_path)
    with weights.source.open("rb") as file:
        if file.read(len(_GGUF)) != _GGUF:
            raise SettingsError("PHASEGATE_MODEL_PATH", f"{weights.source} is no GGUF file")
    size = weights.source.stat().st_size / _MIB
    return passed(
        "model_file",
        weights.sha256,
        version.model.sha256,
        f"{version.id}: {weights.source.name}, {size:.0f} MiB, SHA-256 {weights.sha256[:12]}…",
    )


def _server(settings: Settings, version: ModelVersion) -> Check:
    model = RemoteModel(version, policies_dir=settings.policies_dir)
    where = version.model.remote.url if version.model.remote else None
    said = f"{version.id}: {model.status.model} is asked at {where}, with its key"
    return passed("model_server", where, None, said)


def _decoding(version: ModelVersion) -> Check:
    how = version.decoding
    said = f"n_ctx {how.n_ctx}, n_gpu_layers {how.n_gpu_layers}, max_tokens {how.max_tokens}, temperature 0"
    usual = "n_ctx 8192, n_gpu_layers -1 or 0, max_tokens 512, temperature 0"
    return passed("decoding", said, usual, said)


def _cache(settings: Settings, version: ModelVersion) -> Check:
    """Whether the copy in the version's layout is there, or there is room to make it."""
    weights = _weights(version, settings, model_path=settings.model_path)
    layout = version.model.requantise
    place = nearest(settings.cache_dir)
    free = shutil.disk_usage(place).free
    made = [*settings.cache_dir.glob(f"{weights.sha256[:16]}*-{layout}.gguf")]
    needed = 0 if layout is None or made else _COPIES * weights.source.stat().st_size
    value, limit = round(free / _MIB), round(needed / _MIB)
    sentence = f"{settings.cache_dir}: {value} MiB free, {limit} needed to prepare the model"
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        sentence = f"{settings.cache_dir} cannot be written"
    elif free >= needed:
        return passed("cache", value, limit, sentence)
    return failed("cache", value, limit, sentence, "free some space, or mend PHASEGATE_CACHE_DIR")


def _gpu_driver(version: ModelVersion) -> Check:
    for path in map(Path, _GPU_DRIVERS):
        if path.exists():
            return passed("gpu_driver", str(path), None, f"a GPU driver is loaded: {path}")
    said = f"{version.id} asks for a GPU and no driver is loaded: the CPU answers"
    return Check("gpu_driver", without_gpu(version), None, None, said, f"install the driver, {NO_GPU}")


def without_gpu(version: ModelVersion) -> CheckOutcome:
    """-1 takes what there is; a number of layers is meant."""
    return CheckOutcome.WARNING if version.decoding.n_gpu_layers < 0 else CheckOutcome.FAIL


def _in_use(settings: Settings, chosen: ModelVersion | None) -> Check:
    """The versions that rollouts use beside the chosen one: a missing file keeps nobody from serving."""
    declared = load_versions(settings.policies_dir)
    in_use, changed = _used(settings, declared)
    if changed:
        return failed(
            "versions",
            len(changed),
            0,
            "; ".join(changed),
            "undo the change, or copy it to a version of its own",
        )
    used = in_use & declared.keys() - {chosen.id if chosen else None}
    missing = []
    for version in (declared[name] for name in sorted(used)):
        try:
            if version.model.remote is None:
                _weights(version, settings, model_path=None)
        except (PhasegateError, OSError) as error:
            missing.append(f"{version.id}: {error}")
    if missing:
        said = f"{'; '.join(missing)}; the legacy engine answers for it"
        return Check("versions", CheckOutcome.WARNING, len(missing), 0, said, "restore the file")
    said = f"{', '.join(sorted(used)) or 'none'} in use beside the chosen one"
    return passed("versions", len(used), None, said)


def _used(settings: Settings, declared: Mapping[str, ModelVersion]) -> tuple[set[str], list[str]]:
    """The versions that rollouts use, and what is said of those that a start refuses as changed."""
    kind, _, path = settings.database_url.partition(":///")
    if kind == "sqlite" and not Path(path).exists():
        return set(), []
    database = Database(settings.database_url)
    try:
        with database.read() as connection:
            states = load_states(connection).values()
            changed = list(_changed(connection, declared, settings.policies_dir))
    finally:
        database.close()
    used = {name for one in states for name in (one.version, one.candidate, one.previous) if name is not None}
    return used, changed


def _changed(
    connection: Connection, declared: Mapping[str, ModelVersion], policies_dir: Path
) -> Iterator[str]:
    for name, found in stored.registered(connection).items():
        if name in declared and stored.is_used(connection, name):
            document = document_of(declared[name], policies_dir=policies_dir)
            if not is_same(found.document, document):
                yield taken(found.document, document)


def _weights(version: ModelVersion, settings: Settings, *, model_path: Path | None) -> Weights:
    return find_weights(
        version, policies_dir=settings.policies_dir, cache_dir=settings.cache_dir, model_path=model_path
    )
