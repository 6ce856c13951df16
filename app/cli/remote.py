"""How does a command reach the server, and what does a refusal exit with?"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import rich_click as click

from app.cli import EXIT_AUTH, EXIT_CONFLICT, EXIT_ERROR, EXIT_GATE, EXIT_USAGE
from app.cli.output import say
from app.client import Client, ClientError
from app.errors import SettingsError
from app.settings import Settings, load_settings

MANAGEMENT_DEADLINE_S = 30.0

_NO_KEY = "no API key: set PHASEGATE_KEY or PHASEGATE_KEY_FILE, or run where {path} can be read"


@contextmanager
def server(*, as_json: bool = False, deadline_s: float = MANAGEMENT_DEADLINE_S) -> Iterator[Client]:
    """A client of the server that the settings name.

    A refusal ends the program with its exit code, the server's sentence on stderr and, with
    `as_json`, the problem document on stdout.
    """
    settings = load_settings()
    try:
        with Client(settings.url, key=_key(settings), management_deadline_s=deadline_s) as client:
            yield client
    except ClientError as error:
        if as_json and error.problem:
            click.echo(json.dumps(error.problem, ensure_ascii=False))
        unreachable = "" if error.status else "; does the server run? PHASEGATE_URL says where"
        say(f"phasegate: {error}{unreachable}")
        raise SystemExit(_exit_code(error)) from None


def _key(settings: Settings) -> str:
    name, key = "PHASEGATE_KEY", settings.key
    if key is None:
        name = str(settings.key_file)
        try:
            key = settings.key_file.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            say(f"phasegate: {_NO_KEY.format(path=settings.key_file)}")
            raise SystemExit(EXIT_AUTH) from None
    if not (key.isascii() and key.isprintable()):
        raise SettingsError(name, "is no key: it holds more than printable ASCII")
    return key


def _exit_code(error: ClientError) -> int:
    match error.status, error.type:
        case (401 | 403, _):
            return EXIT_AUTH
        case (409, "gate-not-met"):
            return EXIT_GATE
        case (409, _):
            return EXIT_CONFLICT
        case (400 | 413 | 422, _):
            return EXIT_USAGE
        case _:
            return EXIT_ERROR
