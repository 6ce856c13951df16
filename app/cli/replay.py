"""What would have been different?"""

import asyncio
import functools
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from app.cli.output import emit, emit_table, json_option, say
from app.cli.validate import opened
from app.domain.clock import instant, rfc3339, to_us
from app.domain.phase import Phase
from app.engines.model.version import ModelVersion, load_versions
from app.errors import NotFound
from app.observability import configure_logging
from app.services.declarations import version_of
from app.services.policies import PolicyFiles
from app.services.replay import WhatIf, policy_of
from app.services.replay_report import Replay
from app.settings import Settings, load_settings
from app.store.database import Database
from app.store.policies import applied
from app.store.recorded import Recorded, recorded, rollbacks
from app.store.rollouts import baselines
from app.store.versions import registered

_EVERY_S = 5.0
_AGO = re.compile(r"(\d+)([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
# What a person is shown of the document, by the paths of its members.
_OVERALL = (
    *("decisions", "changed", "milder", "then.agreement.rate", "now.agreement.rate", "then.verdicts.right"),
    *(
        "now.verdicts.right",
        "then.verdicts.wrong",
        "now.verdicts.wrong",
        "then.wrong_allows",
        "now.wrong_allows",
    ),
    "now.latency_ms.p95",
)
_PARTS = {
    "confusion": ("then", "now", "n"),
    "model_confusion": ("then", "now", "n"),
    "examples": (
        *("id", "action", "role", "legacy.now", "model.then", "model.now", "decision.then", "decision.now"),
        *("verdict", "rule"),
    ),
    "alarms": ("at", "guardrail", "would", "decisions", "sentence"),
    "rollbacks": ("at", "reason"),
    "gate": ("to", "outcome", "sentence"),
}


class Instant(click.ParamType[datetime]):
    """A date, an RFC 3339 time (UTC without an offset), or so long ago: `7d`, `12h`, `30m`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        ago = _AGO.fullmatch(value)
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            return instant(value)
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-11-01, 2026-11-01T12:00:00Z or 7d", param, ctx)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options."""

    since: datetime
    until: datetime
    version: str | None
    policies: Path | None
    phase: str | None
    rollout: tuple[str, ...]
    limit: int

    @property
    def period(self) -> dict[str, int]:
        return {"since_us": to_us(self.since), "until_us": to_us(self.until)}


@click.command()
@click.option("--from", "since", type=Instant(), required=True, help="A date, a time, or 7d for so long ago.")
@click.option("--to", "until", type=Instant(), default="0m", help="Before this; by default until now.")
@click.option("--version", help="Ask this version about every situation; by default what was said counts.")
@click.option(
    "--policies",
    type=click.Path(exists=True, path_type=Path),
    help="A directory like policies/, or one file of rollouts or legacy rules; by default what is in force.",
)
@click.option(
    "--phase", type=click.Choice([phase.value for phase in Phase]), help="As if all had been in it."
)
@click.option("--rollout", multiple=True, help="Only this one; may be given more than once.")
@click.option("--limit", type=click.IntRange(0), default=10, help="Examples of each rollout.")
@json_option
def replay(*, as_json: bool, **options: Any) -> None:
    """Answer recorded situations again, and say what would have been different.

    Reads the database only, beside a running server or without one; nothing that it finds is recorded.
    """
    asked = _Asked(**options)
    if asked.since >= asked.until:
        raise click.UsageError("--from must lie before --to")
    found = asyncio.run(_replayed(asked))
    emit(found, _show, as_json=as_json)
    say(_summary(found))


async def _replayed(asked: _Asked) -> dict[str, Any]:
    settings = load_settings()
    configure_logging(msgspec.structs.replace(settings, log_file=None, log_level="error"))
    if asked.policies is not None and (asked.policies / "versions").is_dir():
        settings = msgspec.structs.replace(settings, policies_dir=asked.policies)
    async with AsyncExitStack() as stack:
        database = stack.enter_context(closing(Database(settings.database_url)))
        database.check_schema()
        with database.read() as connection:
            documents, kept, bases = applied(connection)[1], registered(connection), baselines(connection)
        versions = {name: version_of(found.document) for name, found in kept.items()}
        versions |= load_versions(settings.policies_dir)
        what = await _what_if(stack, asked, settings, documents, versions)
        only = [what.book.get(name).name for name in asked.rollout]
        again = Replay(what, {} if asked.version else bases, only, asked.limit)
        await _taken(again, recorded(database, **asked.period))
        return again.to_wire(rollbacks(database, **asked.period), **asked.period)


async def _what_if(
    stack: AsyncExitStack,
    asked: _Asked,
    settings: Settings,
    documents: dict[str, str] | None,
    versions: dict[str, ModelVersion],
) -> WhatIf:
    """What is tried; the stack closes what that takes."""
    files = PolicyFiles(settings.policies_dir, settings.legacy, settings.legacy_deadline_ms / 1000)
    documents = documents or files.read()
    policy = in_force = files.compile("", documents)
    stack.push_async_callback(in_force.legacy.close)
    if asked.policies is not None:
        policy = policy_of(asked.policies, in_force, replace(files, legacy=documents["engine"]))
    phase = Phase(asked.phase) if asked.phase else None
    what = WhatIf(policy.book, versions, phase=phase, look_every_s=settings.guardrail_interval_s)
    if policy.legacy is not in_force.legacy:
        stack.push_async_callback(policy.legacy.close)
        what = replace(what, legacy=policy.legacy)
    if asked.version is None:
        return what
    if asked.version not in versions:
        raise NotFound("version", asked.version, known=versions)
    subject, _ = await stack.enter_async_context(opened(settings, versions[asked.version]))
    return replace(what, subject=subject, version=asked.version)


async def _taken(again: Replay, decisions: Iterable[Recorded]) -> None:
    began = told = time.monotonic()
    for done, was in enumerate(decisions, 1):
        await again.take(was)
        now = time.monotonic()
        if now - told >= _EVERY_S:
            told = now
            say(f"{done:,} decisions, {done / (now - began):,.0f} a second, at {rfc3339(was.at_us)} …")


def _show(found: dict[str, Any]) -> None:
    rows = found["rollouts"]
    emit_table(("rollout", *_OVERALL), [(row["rollout"], *_told(row, _OVERALL)) for row in rows])
    for what, paths in _PARTS.items():
        each_of = [(row["rollout"], each) for row in rows for each in _each(row[what])]
        if each_of:
            click.echo(f"\n{what.replace('_', ' ')}")
            emit_table(("rollout", *paths), [(name, *_told(each, paths)) for name, each in each_of])


def _told(document: dict[str, Any], paths: Sequence[str]) -> list[object]:
    """What a document says at dotted paths."""
    return [functools.reduce(lambda inner, name: inner[name], path.split("."), document) for path in paths]


def _each(part: Any) -> list[dict[str, Any]]:
    """The entries of a part: of a list, of the gate, or of a confusion what is not as it was."""
    if isinstance(part, list):
        return part
    if part is None or "sentence" in part:
        return [part] if part else []
    pairs = (pair.split(">") for pair in part)
    return [{"then": then, "now": now, "n": part[f"{then}>{now}"]} for then, now in pairs if then != now]


def _summary(found: dict[str, Any]) -> str:
    rows = found["rollouts"]
    would = [alarm["would"] for row in rows for alarm in row["alarms"]]
    back = sum(each.startswith("rollback") for each in would)
    were = sum(len(row["rollbacks"]) for row in rows)
    said = f"{found['decisions']:,} decisions answered again: {found['changed']:,} otherwise, "
    said += f"{found['milder']:,} of them milder; alarms {len(would)}, to roll back {back}; "
    said += f"rollbacks recorded {were}"
    for name, why in (("erased", "their situations are erased"), ("unasked", "the model was not asked")):
        said += f"; {found[name]:,} left out: {why}" if found[name] else ""
    return said
