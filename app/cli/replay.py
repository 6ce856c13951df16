"""What would have been different?"""

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from app.cli.output import Row, emit, emit_table, json_option, say
from app.cli.validate import opened
from app.domain.clock import to_us
from app.domain.phase import Phase
from app.engines.model.version import ModelVersion, load_versions
from app.errors import NotFound
from app.observability import configure_logging
from app.services.declarations import version_of
from app.services.plane import Policy
from app.services.policies import PolicyFiles
from app.services.replay import WhatIf, policy_of
from app.services.replay_report import Replay
from app.settings import Settings, load_settings
from app.store.database import Database
from app.store.policies import applied
from app.store.recorded import count, recorded, rollbacks
from app.store.rollouts import baselines
from app.store.versions import registered

_EVERY_S = 5.0
_AGO = re.compile(r"(\d+)([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


class _Instant(click.ParamType):
    """A date, an RFC 3339 time (UTC without an offset), or so long ago: `7d`, `12h`, `30m`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        ago = _AGO.fullmatch(value)
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-11-01, 2026-11-01T12:00:00Z or 7d", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)


@click.command()
@click.option(
    "--from", "since", type=_Instant(), required=True, help="A date, a time, or 7d for so long ago."
)
@click.option("--to", "until", type=_Instant(), default="0m", help="Before this; by default until now.")
@click.option("--version", help="Ask this version about every situation; by default what was said counts.")
@click.option(
    "--policies",
    type=click.Path(exists=True, path_type=Path),
    help="A directory like policies/, or one file of rollouts or legacy rules; by default what is in force.",
)
@click.option("--phase", type=click.Choice(list(Phase)), help="As if every decision had been in this phase.")
@click.option("--rollout", "only", multiple=True, help="Only this one; may be given more than once.")
@click.option("--limit", type=click.IntRange(0), default=10, help="Examples of each rollout.")
@json_option
def replay(
    *,
    since: datetime,
    until: datetime,
    version: str | None,
    policies: Path | None,
    phase: Phase | None,
    only: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """Answer recorded situations again and say what would have been different.

    Reads the database only, beside a running server or without one; nothing that it finds is recorded.
    """
    if since >= until:
        raise click.UsageError("--from must lie before --to")
    settings = load_settings()
    configure_logging(msgspec.structs.replace(settings, log_file=None, log_level="error"))
    if policies is not None and (policies / "versions").is_dir():
        settings = msgspec.structs.replace(settings, policies_dir=policies)
    period = {"since_us": to_us(since), "until_us": to_us(until)}
    with closing(Database(settings.database_url)) as database:
        database.check_schema()
        work = _replayed(database, settings, period, version, policies, phase=phase, only=only, limit=limit)
        found = asyncio.run(work)
    emit(found, _show, as_json=as_json)
    say(_summary(found))


async def _replayed(
    database: Database,
    settings: Settings,
    period: dict[str, int],
    version: str | None,
    policies: Path | None,
    *,
    phase: Phase | None,
    only: tuple[str, ...],
    limit: int,
) -> dict[str, Any]:
    in_force, files, versions, bases = _known(database, settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(in_force.legacy.close)
        policy = in_force if policies is None else policy_of(policies, in_force, files)
        for name in only:
            policy.book.get(name)
        what = WhatIf(policy.book, versions, phase=phase)
        if policy.legacy is not in_force.legacy:
            stack.push_async_callback(policy.legacy.close)
            what = replace(what, legacy=policy.legacy)
        if version is not None:
            if version not in versions:
                raise NotFound("version", version, known=versions)
            subject, _ = await stack.enter_async_context(opened(settings, versions[version]))
            what, bases = replace(what, subject=subject, version=version), {}
        again = Replay(what, bases, only, limit)
        ahead = count(database, **period)
        since = told = time.monotonic()
        for done, was in enumerate(recorded(database, **period), 1):
            await again.take(was)
            now = time.monotonic()
            if now - told >= _EVERY_S:
                told = now
                say(f"{done:,} of {ahead:,} decisions, {done / (now - since):,.0f} a second …")
        return again.to_wire(rollbacks(database, **period), **period)


def _known(
    database: Database, settings: Settings
) -> tuple[Policy, PolicyFiles, dict[str, ModelVersion], dict[str, dict[str, int]]]:
    """The policy in force, what reads others like it, every version, and the baselines."""
    with database.read() as connection:
        sha256, documents = applied(connection)
        kept, bases = registered(connection), baselines(connection)
    files = PolicyFiles(settings.policies_dir, settings.legacy, settings.legacy_deadline_ms / 1000)
    documents = documents or files.read()
    versions = {name: version_of(found.document) for name, found in kept.items()}
    versions |= load_versions(settings.policies_dir)
    return files.compile(sha256, documents), replace(files, legacy=documents["engine"]), versions, bases


def _show(found: dict[str, Any]) -> None:
    rows = found["rollouts"]
    emit_table(
        (
            "rollout",
            "decisions",
            "changed",
            "milder",
            "stricter",
            "agreement then",
            "now",
            "judged",
            "right then",
        )
        + ("now", "wrong allows then", "now"),
        [_row(row) for row in rows],
    )
    for what, member in (("decision", "confusion"), ("model", "model_confusion")):
        moved = [
            (row["rollout"], pair, n) for row in rows for pair, n in row[member].items() if _differs(pair)
        ]
        _section(("rollout", f"{what} then>now", "n"), moved)
    _section(
        (
            "changed",
            "at",
            "action",
            "role",
            "legacy",
            "model then",
            "now",
            "decision then",
            "now",
            "verdict",
            "rule",
        ),
        [_example(each) for row in rows for each in row["examples"]],
    )
    _section(
        ("at", "rollout", "guardrail", "would have led to", "after", "because"),
        [_alarm(row["rollout"], each) for row in rows for each in row["alarms"]],
    )
    _section(
        ("at", "rollout", "was rolled back", "because"),
        [
            (each["at"], row["rollout"], "by itself" if each["automatic"] else "by a person", each["reason"])
            for row in rows
            for each in row["rollbacks"]
        ],
    )
    if found["version"] is not None:
        latencies = [
            (row["rollout"], *row["now"]["latency_ms"].values(), row["now"]["errors"]) for row in rows
        ]
        _section(("rollout", "latency p50 (ms)", "p95", "errors"), latencies)
    gates = [(row["rollout"], row["gate"]["sentence"]) for row in rows if row["gate"]]
    _section(("rollout", "what this evidence alone says of a promotion"), gates)


def _section(columns: Sequence[str], rows: Sequence[Row]) -> None:
    if rows:
        click.echo()
        emit_table(columns, rows)


def _row(row: dict[str, Any]) -> Row:
    then, now = row["then"], row["now"]
    return (
        *(row[name] for name in ("rollout", "decisions", "changed", "milder", "stricter")),
        *(then["agreement"]["rate"], now["agreement"]["rate"]),
        *(now["verdicts"]["n"], then["verdicts"]["right"], now["verdicts"]["right"]),
        *(then["wrong_allows"], now["wrong_allows"]),
    )


def _differs(pair: str) -> bool:
    then, _, now = pair.partition(">")
    return then != now


def _example(each: dict[str, Any]) -> Row:
    plain = (each[name] for name in ("id", "at", "action", "role"))
    decision, legacy, model = each["decision"], each["legacy"]["now"], each["model"]
    rest = (decision["then"], decision["now"], each["verdict"], each["rule"])
    return (*plain, legacy, model["then"], model["now"], *rest)


def _alarm(rollout: str, each: dict[str, Any]) -> Row:
    after = f"{each['decisions']:,} decisions of epoch {each['epoch']}"
    return (each["at"], rollout, each["guardrail"], each["would"], after, each["sentence"])


def _summary(found: dict[str, Any]) -> str:
    alarms = [alarm for row in found["rollouts"] for alarm in row["alarms"]]
    said = f"{found['decisions']:,} decisions from {found['from']} to {found['to']} answered again: "
    said += f"{found['changed']:,} otherwise, {found['milder']:,} milder and {found['stricter']:,} stricter; "
    back = sum(alarm["would"].startswith("rollback") for alarm in alarms)
    said += f"{len(alarms)} alarms, {back} of which would have rolled back"
    was = sum(len(row["rollbacks"]) for row in found["rollouts"])
    said += f"; {was} rollbacks were recorded"
    left_out = (("erased", "with their situation erased"), ("unasked", "of which the model was not asked"))
    for name, why in left_out:
        said += f"; {found[name]:,} left out {why}" if found[name] else ""
    return said
