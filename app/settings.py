"""Which settings does the environment choose, and are they well formed?"""

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from app.errors import SettingsError

PREFIX = "PHASEGATE_"
_TEST_PREFIX = "PHASEGATE_TEST_"
_MASK = "********"
_ADMIN_KEY_LENGTH = 32

Parse = Callable[[str], Any]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every choice that the environment makes, checked. `log_file` None means stderr."""

    host: str
    port: int
    data_dir: Path
    policies_dir: Path
    cache_dir: Path
    database_url: str
    model: bool
    model_path: Path | None
    model_version: str | None
    model_fault: str | None
    model_memory_mb: int | None
    legacy: str
    legacy_deadline_ms: float
    admin_key: str | None
    drills: bool
    log_file: Path | None
    log_level: str
    guardrail_interval_s: float
    snapshot_interval_s: float
    prometheus_url: str | None
    retention_days: int
    queue_limit: int
    instance: str | None
    url: str
    key: str | None
    key_file: Path

    def __repr__(self) -> str:
        """Without the values: some of them are secrets, and a repr ends in logs."""
        return "Settings(…)"


class SettingRow(msgspec.Struct, frozen=True):
    """One line of `phasegate settings`, fit to be shown to anyone."""

    name: str
    value: str | None
    default: str
    what: str


class _Spec(msgspec.Struct, frozen=True):
    field: str
    parse: Parse
    default: str  # as a person reads it; what it comes to is computed in `_defaults`
    what: str
    is_secret: bool = False

    @property
    def name(self) -> str:
        return PREFIX + self.field.upper()


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read PHASEGATE_* strictly; an empty value counts as unset.

    Raises `SettingsError` naming the variable: an unknown one, a bad value, or a fault asked for
    without PHASEGATE_DRILLS=1. PHASEGATE_TEST_* belongs to the test suite and is left alone.
    """
    _refuse_unknown(environ)
    given = {spec.field: _parse(spec, environ[spec.name]) for spec in _SPECS if environ.get(spec.name)}
    settings = Settings(**{**_defaults(given), **given})
    if settings.model_fault is not None and not settings.drills:
        raise SettingsError("PHASEGATE_MODEL_FAULT", "is for drills only: set PHASEGATE_DRILLS=1 too")
    return settings


def describe(settings: Settings) -> list[SettingRow]:
    """Every setting with its value, secrets masked, in the order of the documentation."""
    return [SettingRow(spec.name, _shown(spec, settings), spec.default, spec.what) for spec in _SPECS]


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [spec.name for spec in _SPECS]
    for name in sorted(environ):
        if name.startswith(PREFIX) and not name.startswith(_TEST_PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; `phasegate settings` lists them all"
            raise SettingsError(name, f"is not a setting{hint}")


def _parse(spec: _Spec, text: str) -> Any:
    try:
        return spec.parse(text)
    except ValueError as error:
        shown = "the value given" if spec.is_secret else repr(text)
        raise SettingsError(spec.name, f"{error}, not {shown}") from None


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """What holds where nothing was given; some follow from what was."""
    data_dir: Path = given.get("data_dir", Path("data").absolute())
    port: int = given.get("port", 8000)
    host = given.get("host", "127.0.0.1")
    return {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "policies_dir": Path("policies").absolute(),
        "cache_dir": Path.home() / ".cache" / "phasegate",
        "database_url": f"sqlite:///{data_dir / 'phasegate.db'}",
        "model": True,
        "model_path": None,
        "model_version": None,
        "model_fault": None,
        "model_memory_mb": None,
        "legacy": "rules",
        "legacy_deadline_ms": 1_000.0,
        "admin_key": None,
        "drills": False,
        "log_file": data_dir / "phasegate.log",
        "log_level": "info",
        "guardrail_interval_s": 5.0,
        "snapshot_interval_s": 1.0,
        "prometheus_url": None,
        "retention_days": 90,
        "queue_limit": 64,
        "instance": None,
        "url": f"http://{_reachable(host)}:{port}",
        "key": None,
        "key_file": data_dir / "admin.key",
    }


def _reachable(host: str) -> str:
    """The address a client on this machine uses for a server that listens on `host`."""
    local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 -- compared, not bound
    return f"[{local}]" if ":" in local and not local.startswith("[") else local


def _shown(spec: _Spec, settings: Settings) -> str | None:
    value = getattr(settings, spec.field)
    if spec.field == "log_file" and value is None:
        return "-"
    if value is None:
        return None
    if spec.is_secret:
        return _MASK
    if isinstance(value, bool):
        return "on" if value else "off"
    return _without_password(str(value))


def _without_password(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    place = rest.split("/", 1)[0]
    user, at, _ = place.rpartition("@")
    if not at or ":" not in user:
        return text
    return f"{scheme}{separator}{user.split(':', 1)[0]}:{_MASK}{rest[len(user) :]}"


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _log_file(text: str) -> Path | None:
    return None if text == "-" else _path(text)


def _on_off(text: str) -> bool:
    if text.lower() in ("1", "on", "true", "yes"):
        return True
    if text.lower() in ("0", "off", "false", "no"):
        return False
    raise ValueError("must be on or off")


def _whole(low: int, high: int) -> Parse:
    def parse(text: str) -> int:
        value = int(text) if text.lstrip("-").isdecimal() else low - 1
        if not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return parse


def _number(low: float, high: float) -> Parse:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:  # NaN too
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return value

    return parse


def _database(text: str) -> str:
    """SQLAlchemy guesses a driver where none is named; we name ours."""
    scheme, separator, rest = text.partition("://")
    drivers = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
    scheme = drivers.get(scheme, scheme)
    if not separator or scheme not in ("sqlite", "postgresql+psycopg"):
        raise ValueError("must begin with sqlite:/// or postgresql://")
    return f"{scheme}://{rest}"


def _legacy(text: str) -> str:
    kind, _, address = text.partition(":")
    if text in ("rules", "cedar"):
        return text
    if kind in ("opa", "authzen") and address.startswith(("http://", "https://")):
        return text
    raise ValueError("must be rules, cedar, opa:URL or authzen:URL")


def _fault(text: str) -> str:
    kind, _, milliseconds = text.partition(":")
    if text in ("hang", "crash", "garbage") or (kind == "slow" and milliseconds.isdecimal()):
        return text
    raise ValueError("must be hang, crash, garbage or slow:<ms>")


def _admin_key(text: str) -> str:
    if len(text) < _ADMIN_KEY_LENGTH or not text.isprintable() or " " in text:
        raise ValueError(f"must be {_ADMIN_KEY_LENGTH} printable characters or more, without spaces")
    return text


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return text.rstrip("/")


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("must be debug, info, warning or error")
    return text.lower()


_SPECS = (
    _Spec("host", str, "127.0.0.1", "Address that the server listens on."),
    _Spec("port", _whole(1, 65_535), "8000", "Port that the server listens on."),
    _Spec("data_dir", _path, "./data", "Database, journal, log and first admin key."),
    _Spec("policies_dir", _path, "./policies", "Rollouts, legacy rules, model versions and prompts."),
    _Spec("cache_dir", _path, "~/.cache/phasegate", "Converted models, named by hash; may be shared."),
    _Spec("database_url", _database, "SQLite in the data directory", "sqlite:///… or postgresql://…"),
    _Spec("model", _on_off, "on", "off: no model worker; the legacy engine alone answers."),
    _Spec("model_path", _path, "the version's own", "GGUF file to use in place of the version's."),
    _Spec("model_version", str, "the embedded one", "Id of a file in policies/versions/ to load."),
    _Spec("model_fault", _fault, "none", "hang, crash, garbage or slow:<ms>; needs PHASEGATE_DRILLS=1."),
    _Spec(
        "model_memory_mb",
        _whole(1, 10_000_000),
        "half of the memory",
        "MiB that the models of all loaded versions may take; the default version always loads.",
    ),
    _Spec("legacy", _legacy, "rules", "Legacy engine: rules, cedar, opa:URL or authzen:URL."),
    _Spec("legacy_deadline_ms", _number(1, 60_000), "1000", "A slower legacy engine counts as deny."),
    _Spec(
        "admin_key",
        _admin_key,
        "generated",
        "First admin key; read only while there is none.",
        is_secret=True,
    ),
    _Spec("drills", _on_off, "off", "Allows faults to be injected; /health says so."),
    _Spec("log_file", _log_file, "phasegate.log in the data directory", "JSON lines, rotated; - is stderr."),
    _Spec("log_level", _level, "info", "debug, info, warning or error."),
    # A guardrail pass older than 60 s and a snapshot older than 5 s are stale (law 8).
    _Spec("guardrail_interval_s", _number(0.1, 30), "5", "Seconds between two guardrail passes."),
    _Spec("snapshot_interval_s", _number(0.05, 2), "1", "Seconds between two polls of the phases."),
    _Spec("prometheus_url", _url, "none", "Prometheus that the queries of guardrails are put to."),
    _Spec("retention_days", _whole(1, 36_500), "90", "Days that decisions can be explained."),
    _Spec("queue_limit", _whole(1, 100_000), "64", "Situations that may wait for the model."),
    _Spec(
        "instance",
        str,
        "made once, in the data directory",
        "Name of this server among many over one database.",
    ),
    _Spec("url", _url, "from host and port", "Server that the command line talks to."),
    _Spec("key", str, "from the key file", "API key that the command line sends.", is_secret=True),
    _Spec(
        "key_file", _path, "admin.key in the data directory", "File with the key that the command line sends."
    ),
)
