"""Which decisions wait for a person, and what does the person say?"""

from collections.abc import Mapping
from typing import Any

import rich_click as click

from app.cli.groups import NounGroup
from app.cli.output import emit_list, json_option, say, tell
from app.cli.remote import server

_CATEGORIES = ("model_too_strict", "model_too_permissive", "unclear", "agree")


@click.group(cls=NounGroup, alone="list")
def reviews() -> None:
    """List reviews, claim one, judge it or undo."""


@reviews.command("list")
@click.option(
    "--status", type=click.Choice(["open", "judged", "expired", "closed"]), default="open", show_default=True
)
@click.option("--rollout", help="Of this rollout only.")
@json_option
def list_reviews(*, as_json: bool, **filters: str | None) -> None:
    """Reviews that you may judge, the most pressing first."""
    with server(as_json=as_json) as client:
        found = client.reviews(**{name: value for name, value in filters.items() if value is not None})
    columns = ("id", "rollout", "kind", "status", "action", "actor", "resource", "legacy", "expires_at")
    emit_list({"reviews": found}, "reviews", columns, as_json=as_json, row=_row)
    if not found and not as_json:
        say("none that you may judge: what your own key or actor asked is left out")


def _row(review: Mapping[str, Any]) -> list[object]:
    situation: dict[str, Any] = review.get("situation") or {}
    return [
        review["id"],
        review.get("rollout"),
        review.get("kind"),
        review["status"],
        situation.get("action_type"),
        situation.get("actor_id"),
        situation.get("resource"),
        (review.get("legacy") or {}).get("decision"),
        review.get("expires_at"),
    ]


@reviews.command()
@click.argument("review_id")
@json_option
def claim(*, review_id: str, as_json: bool) -> None:
    """Take review REVIEW_ID, so that nobody else works on it."""
    with server(as_json=as_json) as client:
        tell(client.post(f"/v1/reviews/{review_id}/claim"), f"{review_id} is yours", as_json=as_json)


@reviews.command()
@click.argument("review_id")
@click.argument("decision", type=click.Choice(["allow", "require_attestation", "deny"]))
@click.option("--category", type=click.Choice(_CATEGORIES), help="How the model's answer compares.")
@click.option("--notes", default="", help="What the next reader should know.")
@json_option
def verdict(*, review_id: str, decision: str, category: str | None, notes: str, as_json: bool) -> None:
    """Say what the decision under REVIEW_ID should be."""
    with server(as_json=as_json) as client:
        feedback = client.verdict(review_id, decision=decision, category=category, notes=notes)
    compared = {True: "as the model said", False: f"the model said {feedback['llm_decision']}"}
    tell(
        feedback, f"{decision}: {compared.get(feedback['match'], 'the model had no answer')}", as_json=as_json
    )
    if feedback.get("rollback"):
        say(f"rolled back: {feedback['rollback']['reason']}")


@reviews.command()
@click.argument("review_id")
@json_option
def undo(*, review_id: str, as_json: bool) -> None:
    """Take back your verdict on REVIEW_ID; what followed from it stays."""
    with server(as_json=as_json) as client:
        tell(client.post(f"/v1/reviews/{review_id}/undo"), f"{review_id} is open again", as_json=as_json)
