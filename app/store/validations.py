"""What did validations say of a version?"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, case, func, select

from app.store.ids import new_id
from app.store.tables import validations
from app.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Validation:
    """One run. `wrong_allows` are over all risks; `report` is JSON text."""

    version: str
    model_sha256: str | None
    suite_sha256: str
    n: int
    pass_rate: float
    wrong_allows: int
    report: str


def record(tx: Transaction, validation: Validation, *, by: str, now_us: int) -> str:
    """Keep it for good; returns its id."""
    row: dict[str, Any] = {name: getattr(validation, name) for name in Validation.__dataclass_fields__} | {
        "id": new_id(),
        "created_us": now_us,
        "by_key": by,
    }
    tx.insert(validations, row)
    return str(row["id"])


def latest(
    connection: Connection, version: str, *, suite_sha256: str, at_least: int = 1
) -> RowMapping | None:
    """The newest run over at least so many situations, one over these suites before any other."""
    query = (
        select(validations)
        .where(validations.c.version == version, validations.c.n >= at_least)
        .order_by(case((validations.c.suite_sha256 == suite_sha256, 0), else_=1), validations.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def newest(connection: Connection, *, limit: int) -> list[RowMapping]:
    """Of whatever version, newest first."""
    query = select(validations).order_by(validations.c.id.desc()).limit(limit)
    return list(connection.execute(query).mappings())


def read(connection: Connection, name: str) -> RowMapping | None:
    query = select(validations).where(validations.c.id == name)
    return connection.execute(query).mappings().one_or_none()


def latest_of_each(connection: Connection) -> list[RowMapping]:
    """The newest run of every version, without its report."""
    newest_ids = select(func.max(validations.c.id)).group_by(validations.c.version)
    columns = [column for column in validations.c if column.name != "report"]
    query = select(*columns).where(validations.c.id.in_(newest_ids))
    return list(connection.execute(query).mappings())


def of_version(connection: Connection, version: str, *, limit: int) -> list[RowMapping]:
    """Newest first."""
    query = select(validations).where(validations.c.version == version).order_by(validations.c.id.desc())
    return list(connection.execute(query.limit(limit)).mappings())
