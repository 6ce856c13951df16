"""Who waits for the ledger's thread, and how are they woken?"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from app.store.entry import Entry
from app.store.transaction import Transaction


class Item(NamedTuple):
    """What waits for the thread: an entry to append or work to run, and who awaits it."""

    what: Entry | Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


def grouped(items: Sequence[Item]) -> list[list[Item]]:
    """Neighbouring appends together, each work alone, in order."""
    groups: list[list[Item]] = []
    for item in items:
        if groups and isinstance(item.what, Entry) and isinstance(groups[-1][0].what, Entry):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def deliver(group: Sequence[Item], outcomes: Sequence[Any]) -> None:
    """Wake each event loop once. A loop that has gone has nobody waiting."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for item, outcome in zip(group, outcomes, strict=True):
        by_loop.setdefault(item.loop, []).append((item.future, outcome))
    for loop, settled in by_loop.items():
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, settled)


def _resolve(settled: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in settled:
        if future.done():  # cancelled: its caller has hung up
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
