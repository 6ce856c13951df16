"""How does a person start the server, and what are they told?"""

import os

import rich_click as click

from app.cli import EXIT_ERROR
from app.cli.output import say
from app.cli.preflight import failed, lines
from app.cli.welcome import welcome
from app.main import serve as run_server
from app.services.preflight import quick_checks
from app.settings import load_settings


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
    run_server(settings, started=lambda: say(welcome(settings)))
