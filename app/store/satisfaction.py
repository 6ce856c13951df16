"""How content are reviewers with the model's help?"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, and_, func, select

from app.domain.clock import rfc3339
from app.errors import Conflict
from app.store import tables as t
from app.store.ids import new_id
from app.store.transaction import Transaction

_DAY_US = 86_400_000_000
_LATEST = 20

s = t.satisfaction.c


def answer(tx: Transaction, *, key_id: str, score: int, comment: str | None, now_us: int) -> None:
    """Keep how content a reviewer is, 1..5. Raises `Conflict` where they said so on this UTC day."""
    if answered_today(tx.connection, key_id=key_id, now_us=now_us):
        raise Conflict("already-answered", "you have answered today; tomorrow you may again")
    row = {"id": new_id(), "created_us": now_us, "key_id": key_id, "score": score, "comment": comment}
    tx.insert(t.satisfaction, row)


def answered_today(connection: Connection, *, key_id: str, now_us: int) -> bool:
    """Whether a reviewer said so on this UTC day."""
    today = select(s.id).where(s.key_id == key_id, s.created_us >= now_us - now_us % _DAY_US)
    return connection.execute(today.limit(1)).first() is not None


def answers(connection: Connection, *, since_us: int, until_us: int) -> dict[str, Any]:
    """`{n, mean, by_score, latest}` of the answers in a period, its end excluded; mean is None without any."""
    period = and_(s.created_us >= since_us, s.created_us < until_us)
    counted = select(s.score, func.count().label("n")).where(period).group_by(s.score).order_by(s.score)
    by_score: Mapping[int, int] = {row.score: row.n for row in connection.execute(counted)}
    n = sum(by_score.values())
    latest = select(s.created_us, s.score, s.comment).where(period).order_by(s.id.desc()).limit(_LATEST)
    return {
        "n": n,
        "mean": sum(score * count for score, count in by_score.items()) / n if n else None,
        "by_score": {str(score): by_score.get(score, 0) for score in range(1, 6)},
        "latest": [
            {"at": rfc3339(at), "score": score, "comment": comment}
            for at, score, comment in connection.execute(latest)
        ],
    }
