"""What does a person see of the checks before a start?"""

import asyncio
from collections.abc import Iterable

import msgspec
import rich_click as click

from app.cli import EXIT_ERROR
from app.cli.output import emit_json, json_option, say
from app.observability import configure_logging
from app.services.model_needs import Check, CheckOutcome
from app.services.preflight import model_checks, quick_checks
from app.settings import load_settings

_MARKS = {
    CheckOutcome.PASS: "ok",
    CheckOutcome.WARNING: "warning",
    CheckOutcome.FAIL: "FAIL",
    CheckOutcome.SKIPPED: "skipped",
}


@click.command()
@click.option("--quick", is_flag=True, help="Do not load the model.")
@json_option
def preflight(*, quick: bool, as_json: bool) -> None:
    """Check that this machine can serve. Exit code 1 if it cannot."""
    settings = load_settings()
    checks = list(quick_checks(settings))
    if not quick:
        say("loading the model …")
        configure_logging(msgspec.structs.replace(settings, log_file=None, log_level="error"))
        checks += asyncio.run(model_checks(settings))
    if as_json:
        emit_json({"checks": msgspec.to_builtins(checks)})
    else:
        for line in lines(checks):
            click.echo(line)
    if failed(checks):
        raise SystemExit(EXIT_ERROR)


def lines(checks: Iterable[Check]) -> Iterable[str]:
    """One line a check, and what mends it below."""
    for check in checks:
        yield f"{_MARKS[check.outcome]:<8}{check.name:<13}{check.sentence}"
        if check.mend is not None:
            yield f"{'':21}→ {check.mend}"


def failed(checks: Iterable[Check]) -> bool:
    return any(check.outcome is CheckOutcome.FAIL for check in checks)
