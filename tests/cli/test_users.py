"""Do the commands about users ask the server the right thing?"""

import json

import pytest

from app.cli.serve import welcome
from app.settings import load_settings
from tests.cli.conftest import Run
from tests.peer import Peer, Reply, Seen

ADA = {"id": "u_1", "name": "ada", "roles": ["reviewer"], "actors": [], "ways": [], "disabled_at": None}
LINK = {"user": ADA, "path": "/sign-in/secret", "expires_at": "2027-01-15T10:00:00Z"}


def answer(seen: Seen) -> Reply:
    if seen.method == "GET":
        return Reply(200, {"users": [ADA]})
    return Reply(200, LINK if seen.path.endswith("/link") else ADA)


def test_a_new_user_gets_a_link_and_stdout_nothing_else(peer: Peer, run: Run) -> None:
    peer.answer = answer
    result = run("users", "create", "ada", "--role", "reviewer", "--actor", "ada@here")
    assert (result.exit_code, result.stdout) == (0, f"{peer.url}/sign-in/secret\n")
    assert "ada: lets them in once" in result.stderr
    assert peer.seen[0].body == {"name": "ada", "roles": ["reviewer"], "actors": ["ada@here"]}
    assert peer.seen[1].path == "/v1/users/u_1/link"
    assert json.loads(run("users", "link", "ada", "--json").stdout) == LINK


def test_users_are_listed_without_a_verb(peer: Peer, run: Run) -> None:
    peer.answer = answer
    assert run("users").stdout.splitlines()[1].split()[:3] == ["u_1", "ada", "reviewer"]
    assert "link" in run("users").stdout.splitlines()[1].split()
    assert "signs_in_by" in run("users").stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("typed", "path", "body"),
    [
        (["disable", "ada b"], "/v1/users/ada%20b/disable", None),
        (["enable", "ada"], "/v1/users/ada/enable", None),
        (["roles", "ada", "--role", "auditor"], "/v1/users/ada/roles", {"roles": ["auditor"]}),
        (["actors", "ada"], "/v1/users/ada/actors", {"actors": []}),
    ],
    ids=str,
)
def test_a_change_names_the_user(peer: Peer, run: Run, typed: list[str], path: str, body: object) -> None:
    peer.answer = answer
    assert run("users", *typed).exit_code == 0
    [seen] = peer.seen
    assert (seen.method, seen.path, seen.body or None) == ("POST", path, body)


def test_the_welcome_shows_the_first_link_or_the_console() -> None:
    settings = load_settings({"PHASEGATE_PORT": "9001"})
    first = welcome(settings, "/sign-in/secret")
    assert "console    http://127.0.0.1:9001/sign-in/secret   (once, within an hour)\n" in first
    assert "console    http://127.0.0.1:9001/\n" in welcome(settings)
