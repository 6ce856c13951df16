"""Which settings does the environment choose, and are they well formed?"""

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from app.domain.role import Role
from app.errors import SettingsError

PREFIX = "PHASEGATE_"
_TEST_PREFIX = "PHASEGATE_TEST_"
_MASK = "********"
_ADMIN_KEY_LENGTH = 32

Parse = Callable[[str], Any]


class _Spec(msgspec.Struct, frozen=True):
    """How a setting is read and told of; `default` is in a person's words, where the value is not."""

    parse: Parse
    what: str
    default: str | None = None
    is_secret: bool = False


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


def _claims(text: str) -> dict[str, dict[str, str]]:
    """`groups:reviewers=reviewer,platform=operator;sub:ada=admin` as {claim: {value: role}}."""
    found: dict[str, dict[str, str]] = {}
    for group in text.split(";"):
        claim, _, pairs = group.strip().partition(":")
        for pair in pairs.split(","):
            value, separator, role = pair.strip().rpartition("=")
            if not (claim and value and separator and role in list(Role)):
                raise ValueError("must be as groups:reviewers=reviewer,platform=operator, with our roles")
            found.setdefault(claim, {})[value] = role
    return found


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("must be debug, info, warning or error")
    return text.lower()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every choice that the environment makes, checked. `log_file` None means stderr."""

    host: Annotated[str, _Spec(str, "Address that the server listens on.")] = "127.0.0.1"
    port: Annotated[int, _Spec(_whole(1, 65_535), "Port that the server listens on.")] = 8000
    data_dir: Annotated[Path, _Spec(_path, "Database, journal, log and first admin key.", "./data")]
    policies_dir: Annotated[
        Path, _Spec(_path, "Rollouts, legacy rules, model versions and prompts.", "./policies")
    ]
    cache_dir: Annotated[
        Path, _Spec(_path, "Converted models, named by hash; may be shared.", "~/.cache/phasegate")
    ]
    database_url: Annotated[
        str, _Spec(_database, "sqlite:///… or postgresql://…", "SQLite in the data directory")
    ]
    model: Annotated[bool, _Spec(_on_off, "off: no model worker; the legacy engine alone answers.")] = True
    model_path: Annotated[
        Path | None, _Spec(_path, "GGUF file to use in place of the version's.", "the version's own")
    ] = None
    model_version: Annotated[
        str | None, _Spec(str, "Id of a file in policies/versions/ to load.", "the embedded one")
    ] = None
    model_fault: Annotated[
        str | None, _Spec(_fault, "hang, crash, garbage or slow:<ms>; needs PHASEGATE_DRILLS=1.", "none")
    ] = None
    model_memory_mb: Annotated[
        int | None,
        _Spec(
            _whole(1, 10_000_000),
            "MiB that the models of all loaded versions may take; the default version always loads.",
            "half of the memory",
        ),
    ] = None
    legacy: Annotated[str, _Spec(_legacy, "Legacy engine: rules, cedar, opa:URL or authzen:URL.")] = "rules"
    legacy_deadline_ms: Annotated[
        float, _Spec(_number(1, 60_000), "A slower legacy engine counts as deny.")
    ] = 1_000
    admin_key: Annotated[
        str | None,
        _Spec(_admin_key, "First admin key; read only while there is none.", "generated", is_secret=True),
    ] = None
    drills: Annotated[bool, _Spec(_on_off, "Allows faults to be injected; /health says so.")] = False
    log_file: Annotated[
        Path | None,
        _Spec(_log_file, "JSON lines, rotated; - is stderr.", "phasegate.log in the data directory"),
    ]
    log_level: Annotated[str, _Spec(_level, "debug, info, warning or error.")] = "info"
    # A guardrail pass older than 60 s and a snapshot older than 5 s are stale (law 8).
    guardrail_interval_s: Annotated[
        float, _Spec(_number(0.1, 30), "Seconds between two guardrail passes.")
    ] = 5
    snapshot_interval_s: Annotated[
        float, _Spec(_number(0.05, 2), "Seconds between two polls of the phases.")
    ] = 1
    prometheus_url: Annotated[
        str | None, _Spec(_url, "Prometheus that the queries of guardrails are put to.", "none")
    ] = None
    session_idle_min: Annotated[
        int, _Spec(_whole(1, 43_200), "Minutes without a sign of a person that end their session.")
    ] = 480
    session_days: Annotated[
        int, _Spec(_whole(1, 365), "Days that end a session, whatever was done in it.")
    ] = 7
    oidc_issuer: Annotated[
        str | None,
        _Spec(_url, "OpenID provider that people sign in with, such as https://id.example.", "none"),
    ] = None
    oidc_client_id: Annotated[str | None, _Spec(str, "Our client id at that provider.", "none")] = None
    oidc_client_secret: Annotated[
        str | None, _Spec(str, "Our client secret there; none for a public client.", "none", is_secret=True)
    ] = None
    oidc_roles: Annotated[
        dict[str, dict[str, str]] | None,
        _Spec(_claims, "Which claims give which role: groups:reviewers=reviewer,platform=operator.", "none"),
    ] = None
    retention_days: Annotated[int, _Spec(_whole(1, 36_500), "Days that decisions can be explained.")] = 90
    queue_limit: Annotated[int, _Spec(_whole(1, 100_000), "Situations that may wait for the model.")] = 64
    instance: Annotated[
        str | None,
        _Spec(str, "Name of this server among many over one database.", "made once, in the data directory"),
    ] = None
    url: Annotated[str, _Spec(_url, "Server that the command line talks to.", "from host and port")]
    key: Annotated[
        str | None, _Spec(str, "API key that the command line sends.", "from the key file", is_secret=True)
    ] = None
    key_file: Annotated[
        Path,
        _Spec(_path, "File with the key that the command line sends.", "admin.key in the data directory"),
    ]

    def __repr__(self) -> str:
        """Without the values: some of them are secrets, and a repr ends in logs."""
        return "Settings(…)"


class SettingRow(msgspec.Struct, frozen=True):
    """One line of `phasegate settings`, fit to be shown to anyone."""

    name: str
    value: str | None
    default: str
    what: str


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read PHASEGATE_* strictly; an empty value counts as unset.

    Raises `SettingsError` naming the variable: an unknown one, a bad value, or a fault asked for
    without PHASEGATE_DRILLS=1. PHASEGATE_TEST_* belongs to the test suite and is left alone.
    """
    _refuse_unknown(environ)
    given = {field: _parse(field, text) for field in _SPECS if (text := environ.get(_variable(field)))}
    settings = Settings(**{**_derived(given), **given})
    if settings.model_fault is not None and not settings.drills:
        raise SettingsError("PHASEGATE_MODEL_FAULT", "is for drills only: set PHASEGATE_DRILLS=1 too")
    if settings.oidc_issuer is not None:
        for field in ("oidc_client_id", "oidc_roles"):
            if getattr(settings, field) is None:
                raise SettingsError(_variable(field), "is needed beside PHASEGATE_OIDC_ISSUER")
    return settings


def describe(settings: Settings) -> list[SettingRow]:
    """Every setting with its value, secrets masked, in the order of the documentation."""
    defaults = {info.name: info.default for info in msgspec.structs.fields(Settings)}
    return [
        SettingRow(
            _variable(field), _shown(field, settings), spec.default or _text(defaults[field]), spec.what
        )
        for field, spec in _SPECS.items()
    ]


_SPECS: dict[str, _Spec] = {info.name: info.type.__metadata__[0] for info in msgspec.structs.fields(Settings)}


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [_variable(field) for field in _SPECS]
    for name in sorted(environ):
        if name.startswith(PREFIX) and not name.startswith(_TEST_PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; `phasegate settings` lists them all"
            raise SettingsError(name, f"is not a setting{hint}")


def _parse(field: str, text: str) -> Any:
    try:
        return _SPECS[field].parse(text)
    except ValueError as error:
        shown = "the value given" if _SPECS[field].is_secret else repr(text)
        raise SettingsError(_variable(field), f"{error}, not {shown}") from None


def _derived(given: Mapping[str, Any]) -> dict[str, Any]:
    """What holds where nothing was given and follows from what was, or from this machine."""
    data_dir: Path = given.get("data_dir", Path("data").absolute())
    return {
        "data_dir": data_dir,
        "policies_dir": Path("policies").absolute(),
        "cache_dir": Path.home() / ".cache" / "phasegate",
        "database_url": f"sqlite:///{data_dir / 'phasegate.db'}",
        "log_file": data_dir / "phasegate.log",
        "url": f"http://{_reachable(given.get('host', '127.0.0.1'))}:{given.get('port', 8000)}",
        "key_file": data_dir / "admin.key",
    }


def _reachable(host: str) -> str:
    """The address a client on this machine uses for a server that listens on `host`."""
    local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 -- compared, not bound
    return f"[{local}]" if ":" in local and not local.startswith("[") else local


def _shown(field: str, settings: Settings) -> str | None:
    value = getattr(settings, field)
    if value is None:
        return "-" if field == "log_file" else None
    return _MASK if _SPECS[field].is_secret else _without_password(_text(value))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _without_password(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    place = rest.split("/", 1)[0]
    user, at, _ = place.rpartition("@")
    if not at or ":" not in user:
        return text
    return f"{scheme}{separator}{user.split(':', 1)[0]}:{_MASK}{rest[len(user) :]}"
