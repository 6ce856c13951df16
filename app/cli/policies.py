"""Are the policy files right, and what would they change?"""

import rich_click as click

from app.cli.output import emit_json, emit_list, json_option, say
from app.cli.remote import server
from app.client import Client, ClientError
from app.client.wire import Document
from app.engines.model.version import load_versions
from app.policy.rollouts import parse_rollouts
from app.services.policies import PolicyFiles
from app.settings import load_settings

_COLUMNS = ("rollout", "key", "before", "after", "loosens")


@click.group()
def policies() -> None:
    """Check policy files, show what they change, apply it."""


@policies.command()
@json_option
def check(*, as_json: bool) -> None:
    """Read every file under policies/ as a start would; works without a server."""
    settings = load_settings()
    documents = PolicyFiles(settings.policies_dir, settings.legacy).read()
    book = parse_rollouts(documents["rollouts"])
    versions = load_versions(settings.policies_dir)
    if as_json:
        emit_json({"rollouts": list(book.names), "legacy": settings.legacy, "versions": list(versions)})
    say(
        f"{settings.policies_dir}: {len(book.names)} rollouts and {len(versions)} model versions, nothing is wrong"
    )


@policies.command()
@json_option
def diff(*, as_json: bool) -> None:
    """What the server's files would change of the policy in force."""
    with server(as_json=as_json) as client:
        plan = client.get("/v1/policies/diff")
    emit_list(plan, "changes", _COLUMNS, as_json=as_json)
    say(_summary(plan))


@policies.command()
@json_option
def apply(*, as_json: bool) -> None:
    """Apply the server's files. What loosens is proposed first and applied by a second person."""
    with server(as_json=as_json) as client:
        outcome = _applied(client)
    emit_list(outcome, "changes", _COLUMNS, as_json=as_json)
    said = {
        "applied": "applied",
        "proposed": "proposed: an approver other than you applies it by the same command",
        "unchanged": "the files are what is in force",
    }
    say(said[outcome["status"]])


def _applied(client: Client) -> Document:
    """What came of it; that nothing is to be applied is no failure."""
    try:
        return client.post("/v1/policies/apply")
    except ClientError as error:
        if error.type != "nothing-to-apply":
            raise
        return {"status": "unchanged", "changes": []}


def _summary(plan: Document) -> str:
    if not plan["changes"]:
        return "the files are what is in force"
    if not plan["loosens"]:
        return "only tightens: applied at the next start, or now by `phasegate policies apply`"
    return f"loosens, so two people apply it; back to shadow: {', '.join(plan['to_shadow'])}"
