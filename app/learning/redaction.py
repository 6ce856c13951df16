"""How does a situation leave the plane without saying whose it is?"""

import hmac
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select

from app.domain.situation import Situation, parse_situation, to_document
from app.store.tables import plane

_DOMAIN = b"learning:"


@dataclass(frozen=True, slots=True)
class Redactor:
    """Gives an actor the same pseudonym each time; who it is, only this plane's secret can tell."""

    secret: bytes

    @classmethod
    def of(cls, connection: Connection) -> "Redactor":
        return cls(bytes(connection.execute(select(plane.c.actor_secret)).scalar_one()))

    def pseudonym(self, actor_id: str) -> str:
        digest = hmac.digest(self.secret, _DOMAIN + actor_id.encode("utf-8", "surrogatepass"), "sha256")
        return f"actor-{digest.hex()[:12]}"

    def situation(self, situation: Situation, *, texts: bool) -> Situation:
        """With the pseudonym wherever the actor's id stands; without `texts`, without what people wrote."""
        if not texts:
            situation = replace(situation, team_context=None, recent_history=None, details=None, extra=None)
        return parse_situation(self._redacted(to_document(situation), situation.actor_id))

    def text(self, text: str, actor_id: str) -> str:
        return text.replace(actor_id, self.pseudonym(actor_id))

    def _redacted(self, value: Any, actor_id: str) -> Any:
        match value:
            case str():
                return self.text(value, actor_id)
            case dict():
                return {key: self._redacted(each, actor_id) for key, each in value.items()}
            case list() | tuple():
                return [self._redacted(each, actor_id) for each in value]
            case _:
                return value
