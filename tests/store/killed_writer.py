"""A writer in full append that somebody kills: prints each id once its decision is acknowledged."""

import asyncio
import os
import sys
from pathlib import Path

from app.store.database import Database
from app.store.journal import Journal
from app.store.ledger import Ledger
from tests.store.samples import decision, id_of


async def append_for_ever(ledger: Ledger) -> None:
    while True:
        receipt = await ledger.append(decision())
        os.write(1, f"{id_of(receipt.entry)}\n".encode())


async def main(url: str, journal: str) -> None:
    ledger = Ledger(Database(url), Journal(Path(journal)), "killed")
    await asyncio.gather(*(append_for_ever(ledger) for _ in range(32)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
