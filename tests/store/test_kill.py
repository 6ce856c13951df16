"""Does a killed writer leave behind every record that it acknowledged?"""

import subprocess
import sys
from pathlib import Path

from app.store.chain import verify
from app.store.counters import totals
from app.store.database import Database
from app.store.journal import Journal
from app.store.ledger import Ledger
from tests.store.samples import decision, ids

ROOT = Path(__file__).parents[2]
ACKNOWLEDGED = 3_000


def killed_in_full_append(database: Database, journal: Path) -> list[str]:
    """The ids that a writer had acknowledged when it was killed."""
    command = [sys.executable, "-m", "tests.store.killed_writer", database.url, str(journal)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(ACKNOWLEDGED)]
        process.kill()
        acknowledged += process.stdout.readlines()
    assert all(line.endswith("\n") for line in acknowledged)
    return [line.strip() for line in acknowledged]


def test_every_acknowledged_decision_is_there_and_the_chain_verifies(
    database: Database, tmp_path: Path
) -> None:
    acknowledged = killed_in_full_append(database, tmp_path / "journal")
    present = ids(database)
    assert len(acknowledged) >= ACKNOWLEDGED
    assert set(acknowledged) <= set(present)
    with database.read() as connection:
        found = verify(connection)
        assert (found.problems, found.rows, found.erased) == ([], len(present), 0)
        assert totals(connection, "write", 1, version="v1") == {("decisions", "allow"): len(present)}


async def test_the_next_process_goes_on_with_the_same_chain(database: Database, tmp_path: Path) -> None:
    killed_in_full_append(database, tmp_path / "journal")
    journal = Journal(tmp_path / "journal")
    ledger = Ledger(database, journal, "killed")
    await ledger.append(decision())
    ledger.close()
    journal.close()
    with database.read() as connection:
        assert verify(connection).problems == []


def test_a_process_that_forgets_to_close_still_records_and_ends(
    sqlite_database: Database, tmp_path: Path
) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from app.store.database import Database\n"
        "from app.store.journal import Journal\n"
        "from app.store.ledger import Ledger\n"
        "from tests.store.samples import decision\n"
        "async def main():\n"
        "    ledger = Ledger(Database(sys.argv[1]), Journal(pathlib.Path(sys.argv[2])), 'forgetful')\n"
        "    for _ in range(500):\n"
        "        ledger.append(decision())\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, sqlite_database.url, str(tmp_path / "journal")]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=30).returncode == 0
    assert len(ids(sqlite_database)) == 500
