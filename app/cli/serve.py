"""How does a person start the server, and what are they told?"""

import os
import shlex

import rich_click as click

from app.cli import EXIT_ERROR
from app.cli.output import say
from app.cli.preflight import failed, lines
from app.main import serve as run_server
from app.services.preflight import quick_checks
from app.settings import Settings, load_settings

_SITUATION = (
    '{"action_type": "read", "actor_role": "member", "actor_id": "ada", "resource": "docs/public/readme.md", '
    '"t3_tensor": {"competence": 0.8, "reliability": 0.8, "integrity": 0.8}}'
)


@click.command()
def serve() -> None:
    """Check this machine, migrate the database and serve until interrupted.

    The model loads in the background: the legacy engine answers from the first moment.
    """
    os.umask(0o077)  # what callers sent lies in the database: it is for this user alone
    settings = load_settings()
    checks = list(quick_checks(settings))
    for line in lines(checks):
        say(line)
    if failed(checks):
        say("phasegate: not started: see what failed above")
        raise SystemExit(EXIT_ERROR)
    run_server(settings, started=lambda link: say(welcome(settings, link)))


def welcome(settings: Settings, link: str | None = None) -> str:
    """Where the server is, whose key opens it, and three commands to paste; `link` is the first way in."""
    key_file = shlex.quote(str(settings.key_file))
    key = "$PHASEGATE_ADMIN_KEY" if settings.admin_key is not None else f"$(cat {key_file})"
    curl = f"curl -sw '\\n' -H \"Authorization: Bearer {key}\""
    model = "loads in the background; the rules answer meanwhile" if settings.model else "off"
    log = "stderr" if settings.log_file is None else str(settings.log_file)
    once = "" if link is None else "   (once, within an hour)"
    return f"""
Phasegate serves on {settings.url}
  console    {settings.url}{link or "/"}{once}
  reference  {settings.url}/reference
  admin key  {settings.key_file}
  log        {log}
  model      {model}

Ask for a decision, see where the rollouts stand, see what a promotion needs:
  {curl} {settings.url}/v1/decisions -d '{_SITUATION}'
  {curl} {settings.url}/v1/rollouts
  {curl} '{settings.url}/v1/rollouts/read/gate?to=advisory'

Ctrl-C stops it.
"""
