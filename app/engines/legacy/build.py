"""Which legacy engine does the setting name, and where does its policy come from?"""

from pathlib import Path

from app.engines.legacy.cedar import CedarEngine
from app.engines.legacy.port import LegacyEngine
from app.engines.legacy.rules import RulesEngine
from app.engines.legacy.servers import SETTING, authzen_engine, opa_engine
from app.errors import SettingsError
from app.policy.files import read_text

_FILES = {"rules": "legacy.yaml", "cedar": "legacy.cedar"}


def legacy_source(spec: str, *, policies_dir: Path) -> str:
    """The text that decides, to be hashed, stored and applied: a file's, or the setting itself for a
    server elsewhere. Raises `PolicyError`.
    """
    file = _FILES.get(spec)
    return spec if file is None else read_text(policies_dir / file)


def build_legacy_engine(spec: str, *, source: str, deadline_s: float = 2.0) -> LegacyEngine:
    """The engine for `rules`, `cedar`, `opa:<address>` or `authzen:<address>`.

    `source` is what `legacy_source` gave, or the applied text of the database. Raises `SettingsError`
    and `PolicyError`.
    """
    if spec == "rules":
        return RulesEngine(source, path=_FILES[spec])
    if spec == "cedar":
        return CedarEngine(source, path=_FILES[spec])
    kind, _, address = spec.partition(":")
    if kind == "opa":
        return opa_engine(address, deadline_s=deadline_s)
    if kind == "authzen":
        return authzen_engine(address, deadline_s=deadline_s)
    raise SettingsError(SETTING, f"{spec!r} is not rules, cedar, opa:<address> or authzen:<address>")
