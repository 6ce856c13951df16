"""What would have been different?"""

import asyncio
import functools
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import replace
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
from app.store.recorded import Recorded, recorded
from app.store.rollouts import baselines
from app.store.versions import registered

_EVERY_S = 5.0
_AGO = re.compile(r"(\d+)([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
# What a person is shown of the document, by the paths of its members.
_OVERALL = (
    *("decisions", "changed", "milder", "then.agreement.rate", "now.agreement.rate"),
    *("then.verdicts.right", "now.verdicts.right", "then.verdicts.wrong", "now.verdicts.wrong"),
    *("then.wrong_allows", "now.wrong_allows", "now.latency_ms.p95"),
)
_PARTS = {
    "confusion": ("then", "now", "n"),
    "model_confusion": ("then", "now", "n"),
    "examples": (
        *("id", "action", "role", "legacy.now", "model.then", "model.now", "decision.then", "decision.now"),
        *("verdict", "rule"),
    ),
    "alarms": ("at", "guardrail", "would", "decisions", "sentence"),
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
def replay(*, since: datetime, until: datetime, as_json: bool, **options: Any) -> None:
    """Answer recorded situations again, and say what would have been different.

    Reads the database only, beside a running server or without one; nothing that it finds is recorded.
    """
    if since >= until:
        raise click.UsageError("--from must lie before --to")
    period = {"since_us": to_us(since), "until_us": to_us(until)}
    found = asyncio.run(_replayed(period, **options))
    emit(found, _show, as_json=as_json)
    say(_summary(found))


async def _replayed(
    period: dict[str, int], *, policies: Path | None, rollout: tuple[str, ...], limit: int, **tried: Any
) -> dict[str, Any]:
    settings = load_settings()
    configure_logging(msgspec.structs.replace(settings, log_file=None, log_level="error"))
    if policies is not None and (policies / "versions").is_dir():
        settings = msgspec.structs.replace(settings, policies_dir=policies)
    async with AsyncExitStack() as stack:
        database = stack.enter_context(closing(Database(settings.database_url)))
        database.check_schema()
        with database.read() as connection:
            documents, kept, bases = applied(connection)[1], registered(connection), baselines(connection)
        versions = {name: version_of(found.document) for name, found in kept.items()}
        versions |= load_versions(settings.policies_dir)
        what = await _what_if(stack, settings, documents, versions, policies=policies, **tried)
        only = [what.book.get(name).name for name in rollout]
        again = Replay(what, {} if what.version else bases, only, limit)
        await _taken(again, recorded(database, **period))
        return again.to_wire(**period)


async def _what_if(
    stack: AsyncExitStack,
    settings: Settings,
    documents: dict[str, str] | None,
    versions: dict[str, ModelVersion],
    *,
    policies: Path | None,
    version: str | None,
    phase: str | None,
) -> WhatIf:
    """What is tried; the stack closes what that takes."""
    files = PolicyFiles(settings.policies_dir, settings.legacy, settings.legacy_deadline_ms / 1000)
    documents = documents or files.read()
    policy = in_force = files.compile("", documents)
    stack.push_async_callback(in_force.legacy.close)
    if policies is not None:
        policy = policy_of(policies, in_force, replace(files, legacy=documents["engine"]))
    every_s = settings.guardrail_interval_s
    what = WhatIf(policy.book, versions, phase=Phase(phase) if phase else None, look_every_s=every_s)
    if policy.legacy is not in_force.legacy:
        stack.push_async_callback(policy.legacy.close)
        what = replace(what, legacy=policy.legacy)
    if version is None:
        return what
    if version not in versions:
        raise NotFound("version", version, known=versions)
    subject, _ = await stack.enter_async_context(opened(settings, versions[version]))
    return replace(what, subject=subject, version=version)


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


def _each(part: list[dict[str, Any]] | dict[str, int]) -> list[dict[str, Any]]:
    """The entries of a list, or of a confusion what is not as it was."""
    if isinstance(part, list):
        return part
    pairs = (pair.split(">") for pair in part)
    return [{"then": then, "now": now, "n": part[f"{then}>{now}"]} for then, now in pairs if then != now]


def _summary(found: dict[str, Any]) -> str:
    would = [alarm["would"] for row in found["rollouts"] for alarm in row["alarms"]]
    back = sum(each.startswith("rollback") for each in would)
    said = f"{found['decisions']:,} decisions answered again: {found['changed']:,} otherwise, "
    said += f"{found['milder']:,} of them milder; alarms {len(would)}, to roll back {back}"
    for name, why in (("erased", "their situations are erased"), ("unasked", "the model was not asked")):
        said += f"; {found[name]:,} left out: {why}" if found[name] else ""
    return said
