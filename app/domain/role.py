"""Who may do what? Roles do not contain each other; `admin` holds them all."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    CALLER = "caller"
    REVIEWER = "reviewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    AUDITOR = "auditor"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who holds the key of a request. `actors` are the actor ids that are this person's own."""

    key_id: str
    name: str
    roles: frozenset[Role]
    actors: frozenset[str] = frozenset()

    def may(self, *roles: Role) -> bool:
        return Role.ADMIN in self.roles or any(role in self.roles for role in roles)

    @property
    def only_judges(self) -> bool:
        """Whether this is a reviewer who gives a blind verdict before they see what tells the model's answer."""
        return self.may(Role.REVIEWER) and not self.may(Role.OPERATOR, Role.AUDITOR)
