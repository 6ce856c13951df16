"""When do promotions rest, as people have asked?"""

from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from app.domain.clock import from_us
from app.domain.freeze import Freeze, FreezeKind
from app.store.tables import freezes
from app.store.transaction import Transaction


def standing(connection: Connection) -> list[Freeze]:
    """Every freeze that nobody ended, oldest first."""
    return [freeze_of(row) for row in rows(connection)]


def rows(connection: Connection) -> list[RowMapping]:
    """The same as rows of their table."""
    query = select(freezes).where(freezes.c.ended_us.is_(None)).order_by(freezes.c.id)
    return list(connection.execute(query).mappings())


def freeze_of(row: RowMapping | dict[str, Any]) -> Freeze:
    return Freeze(
        row["id"],
        FreezeKind(row["kind"]),
        row["rollout"],
        from_us(row["starts_us"]),
        from_us(row["ends_us"]),
        row["weekly"],
        row["zone"],
        row["reason"],
    )


def end(tx: Transaction, freeze_id: str, *, now_us: int, by_key: str) -> RowMapping | None:
    """End a freeze for good; the row as it then is, or None where no such freeze stands."""
    ended = update(freezes).where(freezes.c.id == freeze_id, freezes.c.ended_us.is_(None))
    changed = ended.values(ended_us=now_us, ended_by=by_key).returning(*freezes.c)
    return tx.connection.execute(changed).mappings().one_or_none()
