"""How well does a version do on the validation suites?"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from app.cli import EXIT_GATE
from app.cli.output import emit, emit_facts, emit_table, json_option, say
from app.cli.remote import server
from app.domain.advisory import Advisory, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.domain.validation import difference
from app.engines.model.local import LocalModel
from app.engines.model.remote import RemoteModel
from app.engines.model.version import ModelVersion, choose_version, load_versions
from app.engines.model.weights import verify
from app.errors import Conflict, NotFound
from app.observability import configure_logging
from app.policy.suites import Suites, find_suites, load_suites
from app.services.plane import Policy
from app.services.policies import PolicyFiles
from app.services.validate import Served, Subject, examine
from app.settings import Settings, load_settings

_RECORDING_S = 3_600.0  # a large suite with reasons, on a slow machine
_REMOTE_START_S = 30.0


@dataclass(frozen=True, slots=True)
class _Local:
    """A model in this process, whose answers block: nothing else runs here meanwhile."""

    model: LocalModel

    @property
    def shows_legacy(self) -> bool:
        return self.model.version.show_legacy

    async def advise(self, situation: Situation, *, legacy: Decision | None) -> Advisory:
        return self.model.advise(situation, legacy=legacy)

    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None
    ) -> Reasoning:
        return self.model.explain(situation, advisory, legacy=legacy)


@click.command()
@click.argument("version")
@click.option("--suite", "suites", multiple=True, help="Name in policies/suites, or a path; all by default.")
@click.option("--against", help="Another version, to show what changed.")
@click.option(
    "--above", type=click.FloatRange(0, 1, max_open=True), help="Exit with 3 unless the pass rate is higher."
)
@click.option(
    "--reasons",
    is_flag=True,
    help="Ask why of all situations, not of every tenth; takes about eight times as long.",
)
@click.option(
    "--record", is_flag=True, help="Let the server do it and keep the result, so that gates see it."
)
@json_option
def validate(
    *,
    version: str,
    suites: tuple[str, ...],
    against: str | None,
    above: float | None,
    reasons: bool,
    record: bool,
    as_json: bool,
) -> None:
    """Ask VERSION about every situation of the suites and compare with the right answers.

    Works without a server, in a process of its own, unless --record is given.
    """
    if record:
        with server(as_json=as_json, deadline_s=_RECORDING_S) as client:
            path = f"/v1/versions/{version}/validate"
            found = client.post(path, suites=list(suites), against=against, reasons=reasons)
    else:
        settings = load_settings()
        configure_logging(msgspec.structs.replace(settings, log_file=None, log_level="error"))
        found = asyncio.run(_validated(settings, version, suites, against=against, reasons=reasons))
    emit(found, _show, as_json=as_json)
    say(_summary(found))
    if above is not None and found["pass_rate"] <= above:
        say(f"the pass rate is not above {above:g}")
        raise SystemExit(EXIT_GATE)


async def _validated(
    settings: Settings, version: str, suites: Sequence[str], *, against: str | None, reasons: bool
) -> dict[str, Any]:
    subject = version_of(settings, version)
    former = None if against is None else version_of(settings, against)
    cases = load_suites(_paths(settings.policies_dir, suites))
    files = PolicyFiles(settings.policies_dir, settings.legacy, settings.legacy_deadline_ms / 1000)
    policy = files.compile("", files.read())
    try:
        found = await _report(settings, subject, cases, policy, reasons=reasons)
        if former is not None:
            before = await _report(settings, former, cases, policy, reasons=False)
            found["against"] = {"version": former.id, **difference(before, found)}
    finally:
        await policy.legacy.close()
    return found


def _paths(policies_dir: Path, suites: Sequence[str]) -> list[Path]:
    files = [Path(suite) for suite in suites if suite.endswith(".jsonl")]
    names = [suite for suite in suites if not suite.endswith(".jsonl")]
    return [*files, *(find_suites(policies_dir, names) if names or not files else [])]


async def _report(
    settings: Settings, version: ModelVersion, suites: Suites, policy: Policy, *, reasons: bool
) -> dict[str, Any]:
    say(f"asking {version.id} about {len(suites.cases)} situations …")
    async with opened(settings, version) as (subject, sha256):
        report = await examine(suites, policy, subject, reasons=reasons)
    return {"version": version.id, "model_sha256": sha256, **report}


@asynccontextmanager
async def opened(settings: Settings, version: ModelVersion) -> AsyncIterator[tuple[Subject, str | None]]:
    """A version made ready for this process alone, with its file's SHA-256 where it has one here."""
    async with AsyncExitStack() as stack:
        if version.model.remote is None:
            local = LocalModel.open(version, **places(version, settings))
            yield _Local(stack.enter_context(local)), local.sha256
            return
        remote = RemoteModel(version, policies_dir=settings.policies_dir)
        stack.push_async_callback(remote.stop)
        await remote.start()
        if not await remote.wait_ready(_REMOTE_START_S):
            raise Conflict("version-not-ready", f"{version.id} does not answer: {remote.status.error}")
        yield Served(remote), None


def version_of(settings: Settings, wanted: str | None = None) -> ModelVersion:
    """The version of that id, or the one that a server would start with."""
    versions = load_versions(settings.policies_dir)
    if wanted is None:
        hashed = partial(verify, cache_dir=settings.cache_dir)
        path, name = settings.model_path, settings.model_version
        return choose_version(versions, model_path=path, wanted=name, sha256=hashed)
    if wanted not in versions:
        raise NotFound("version", wanted, known=versions)
    return versions[wanted]


def places(version: ModelVersion, settings: Settings) -> dict[str, Any]:
    """Where the files of a version are; PHASEGATE_MODEL_PATH replaces those of the default alone, as in a server."""
    given = settings.model_path
    if given is not None and version.model != version_of(settings).model:
        given = None
    return {"policies_dir": settings.policies_dir, "cache_dir": settings.cache_dir, "model_path": given}


def _show(found: dict[str, Any]) -> None:
    engines = [("model", found), ("legacy alone", found["legacy"]), ("stricter of both", found["stricter"])]
    emit_table(
        ("answered by", "pass rate", "passed", *(f"wrong allows: {risk}" for risk in found["wrong_allows"])),
        [(name, each["pass_rate"], each["passed"], *each["wrong_allows"].values()) for name, each in engines],
    )
    click.echo()
    emit_facts(_facts(found))
    for what in ("tag", "action"):
        click.echo()
        groups = found[f"by_{what}"].items()
        rates = [(name, each["n"], each["pass_rate"], each["legacy"]) for name, each in groups]
        emit_table((what, "n", "pass rate", "legacy alone"), rates)
    if found["failures"]:
        click.echo()
        shown = [{**each, "model": each["decision"] or each["outcome"]} for each in found["failures"]]
        members = ("id", "expected", "model", "confidence", "why")
        rows = [[each[member] for member in members] for each in shown]
        emit_table(("failed", *members[1:]), rows)


def _facts(found: dict[str, Any]) -> list[tuple[str, object]]:
    answered, latency, reasoning = found["answered"], found["latency_ms"], found["reasoning"]
    facts: list[tuple[str, object]] = [
        ("lower bound", found["lower"]),
        ("answered", answered["rate"]),
        ("pass rate of the answered", answered["pass_rate"]),
        ("unsure", found["unsure"]),
        ("calibration error", found["calibration"]["ece"]),
        ("Brier score", found["calibration"]["brier"]),
        (f"share with a reason, of {reasoning['n']} asked", reasoning["coverage"]),
        ("latency p50/p95/p99", " / ".join(f"{value:.0f} ms" for value in latency.values())),
        *((f"expected>model {pair}", n) for pair, n in found["confusion"].items()),
    ]
    if "against" in found:
        changed = found["against"]
        facts += [
            (f"{what} than {changed['version']}", changed[what]) for what in ("better", "worse", "other")
        ]
    return facts


def _summary(found: dict[str, Any]) -> str:
    wrong = sum(found["wrong_allows"].values())
    return (
        f"{found['version']}: {found['passed']} of {found['n']} passed, {wrong} wrong allows, "
        f"legacy alone {found['legacy']['passed']}, in {found['elapsed_s']:.1f} s"
    )
