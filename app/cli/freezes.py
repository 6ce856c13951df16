"""When do promotions rest?"""

import rich_click as click

from app.cli.levers import reason_option
from app.cli.output import emit_list, json_option, tell
from app.cli.remote import server

_COLUMNS = ("id", "kind", "rollout", "starts_at", "ends_at", "weekly", "zone", "active", "reason")


@click.group()
def freeze() -> None:
    """Say when promotions rest: `list`, `add`, `end`. Rollbacks, holds and steps down go on."""


@freeze.command("list")
@json_option
def list_freezes(*, as_json: bool) -> None:
    """The freezes that nobody ended."""
    with server(as_json=as_json) as client:
        document = client.get("/v1/freezes")
    emit_list(document, "freezes", _COLUMNS, as_json=as_json)


@freeze.command()
@click.option("--rollout", default="*", show_default=True, help="The one that rests; all of them by default.")
@click.option("--from", "starts_at", required=True, help="Its beginning, such as 2026-12-24T18:00.")
@click.option("--until", "ends_at", required=True, help="Its end.")
@click.option(
    "--zone", default="UTC", show_default=True, help="IANA time zone of both, such as Europe/Berlin."
)
@click.option("--weekly", is_flag=True, help="Come again every week at the same local hours.")
@click.option("--allow", "is_allowed", is_flag=True, help="Promotions are made in these hours alone.")
@reason_option
@json_option
def add(
    *,
    rollout: str,
    starts_at: str,
    ends_at: str,
    zone: str,
    weekly: bool,
    is_allowed: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Let promotions rest for a time, or with --allow outside of it."""
    kind = "allow" if is_allowed else "deny"
    with server(as_json=as_json) as client:
        made = client.post(
            "/v1/freezes",
            kind=kind,
            rollout=rollout,
            starts_at=starts_at,
            ends_at=ends_at,
            weekly=weekly,
            zone=zone,
            reason=reason,
        )
    again = ", every week" if weekly else ""
    tell(
        made, f"{made.get('id')}: {kind} {rollout}, {starts_at} to {ends_at}, {zone}{again}", as_json=as_json
    )


@freeze.command()
@click.argument("freeze_id")
@reason_option
@json_option
def end(*, freeze_id: str, reason: str, as_json: bool) -> None:
    """End a freeze before its time; takes an approver."""
    with server(as_json=as_json) as client:
        ended = client.post(f"/v1/freezes/{freeze_id}/end", reason=reason)
    tell(ended, f"freeze {freeze_id} has ended", as_json=as_json)
