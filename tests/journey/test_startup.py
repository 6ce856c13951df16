"""What does a server say that must not start, and how soon?"""

import socket

import pytest

from tests.journey.conftest import Make
from tests.journey.policies import rollouts
from tests.journey.server import Server, free_port

SOON_S = 15.0  # on a busy machine; a second or two on an idle one


@pytest.fixture
def server(make: Make) -> Server:
    return make(rollouts(docs="risk: low"), model="off")


def refusal(server: Server) -> tuple[int, str]:
    """Exit code and last words of a server that ends by itself, soon and without a traceback."""
    code, said, took_s = server.refuse()
    assert took_s < SOON_S
    assert "Traceback" not in said
    return code, said


@pytest.mark.parametrize(
    ("file", "wrong", "right", "place"),
    [
        ("rollouts.yaml", "celing: enforced", "ceiling: enforced", "rollouts.yaml:15: rollouts.docs.celing"),
        ("rollouts.yaml", "risk: lwo", "risk: low", "rollouts.yaml:15: rollouts.docs.risk"),
        ("legacy.yaml", "decison: allow", "decision: allow", "legacy.yaml:4: rules[1].decison"),
        ("legacy.yaml", "trust.lowest <", "trust.lowest < 0.2", "legacy.yaml:3: rules[0].when"),
    ],
)
def test_a_typo_in_a_policy_file_ends_the_start_with_file_line_and_key(
    server: Server, file: str, wrong: str, right: str, place: str
) -> None:
    path = server.policies_dir / file
    path.write_text(path.read_text().replace(right, wrong, 1))
    code, said = refusal(server)
    assert code == 1
    assert place in said


def test_a_second_server_on_a_data_directory_names_the_first(server: Server) -> None:
    server.start()
    first = server.port
    server.port = free_port()
    code, said = refusal(server)
    assert code == 5
    assert f"is served by process {server.pid} already" in said
    server.port = first
    assert server.health()["status"] is not None


def test_a_port_that_is_taken_is_said_to_the_person_and_not_only_to_the_log(server: Server) -> None:
    with socket.create_server(("127.0.0.1", server.port)):
        code, said = refusal(server)
    assert code == 5
    assert f"127.0.0.1:{server.port} is in use by another program" in said


def test_a_host_that_is_not_this_machine_is_a_wrong_setting(make: Make) -> None:
    code, said = refusal(make(rollouts(docs="risk: low"), model="off", host="203.0.113.7"))
    assert code == 2
    assert "PHASEGATE_HOST" in said


def test_a_database_that_is_away_ends_the_start(make: Make) -> None:
    url = "postgresql://phasegate@/plane?host=/nowhere"
    code, said = refusal(make(rollouts(docs="risk: low"), model="off", database_url=url))
    assert code == 1
    assert "start the database or mend PHASEGATE_DATABASE_URL" in said
