"""What do remarks in free text change about the rules' answer?"""

from dataclasses import dataclass

from app.domain.decision import Decision

ALLOW, ATTEST, DENY = Decision.ALLOW, Decision.REQUIRE_ATTESTATION, Decision.DENY
_CHANGES = ("commit", "deploy", "update_config")
_ORDINARY = ("read", "write", *_CHANGES)
_STORED = ("write", "commit", "update_config", "admin_action")
_SERIES = ("write", "commit", "update_config", "grant_role", "delete_team")
_SIGNED = ("write", *_CHANGES, "grant_role")
_TOLD = ("recent_history", "details")
_ANYWHERE = ("team_context", *_TOLD)


@dataclass(frozen=True, slots=True)
class Signal:
    """A kind of remark: where it stands and the actions it bears upon (none: every action)."""

    fields: tuple[str, ...]
    actions: tuple[str, ...] = ()

    def concerns(self, action: str) -> bool:
        return not self.actions or action in self.actions


# Whatever the rules say: deny.
STOPS = {
    "compromised": Signal(_TOLD),
    "coerced": Signal(_TOLD),
    "sybil": Signal(_TOLD),
    "departed": Signal(_ANYWHERE),
    "injected": Signal(("details",)),
    "forged": Signal(_TOLD),
}
# One step more severe.
RAISES = {
    "hours": Signal(_TOLD),
    "freeze": Signal(_ANYWHERE, _CHANGES),
    "failing": Signal(_TOLD, ("commit", "deploy")),
    "splitting": Signal(_TOLD, _SERIES),
    "audit": Signal(_ANYWHERE, _STORED),
    "mismatch": Signal(("details",)),
    "selfapproved": Signal(_TOLD, _SIGNED),
    "drift": Signal(("recent_history",)),
}
# A person has already attested, or need not: `require_attestation` becomes `allow`; a denial stays.
RELEASES = {
    "approved": Signal(_TOLD, _ORDINARY),
    "incident": Signal(_ANYWHERE, ("write", "deploy", "update_config")),
    "record": Signal(("recent_history",), ("read", "write", "commit")),
}
# Lends a right that the role lacks: `deny` becomes `require_attestation`.
LENDS = {"delegated": Signal(_TOLD)}
# Resembles one of the above and changes nothing.
RESEMBLES = {
    "cleared": Signal(_TOLD),
    "unconfirmed": Signal(_TOLD),
    "pending": Signal(_TOLD),
    "thawed": Signal(_ANYWHERE),
    "green": Signal(_TOLD, ("commit", "deploy")),
    "rostered": Signal(_TOLD),
    "announced": Signal(_TOLD),
    "audited": Signal(_ANYWHERE),
    "vouched": Signal(_TOLD),
}
SIGNALS = STOPS | RAISES | RELEASES | LENDS | RESEMBLES


def true_decision(legacy: Decision, kind: str | None, action: str) -> Decision:
    """The synthetic policy: what the rules say, changed by one remark at most."""
    if kind is None or not SIGNALS[kind].concerns(action):
        return legacy
    if kind in STOPS:
        return DENY
    if kind in RAISES:
        return DENY if legacy is not ALLOW else ATTEST
    if (kind in RELEASES and legacy is ATTEST) or (kind in LENDS and legacy is DENY):
        return ALLOW if legacy is ATTEST else ATTEST
    return legacy


@dataclass(frozen=True, slots=True)
class Plot:
    """What an example is about: the rules' answer, the kinds of remark to draw from, how often."""

    legacy: Decision
    kinds: tuple[str | None, ...]
    share: float


# Shares of a natural mix. Together: 65 % allow, 20 % require_attestation, 15 % deny; the rules alone are
# right on 84.4 %, and 1.6 of the 15 points of true denials are among what they allow.
UNCHANGED = (
    Plot(ALLOW, (None,), 0.445),
    Plot(ALLOW, tuple(RESEMBLES), 0.140),
    Plot(ALLOW, tuple(RELEASES), 0.035),
    Plot(ATTEST, (None,), 0.080),
    Plot(ATTEST, tuple(RESEMBLES), 0.035),
    Plot(DENY, (None,), 0.075),
    Plot(DENY, tuple(RESEMBLES), 0.015),
    Plot(DENY, tuple(RELEASES), 0.006),
    Plot(DENY, (*STOPS, *RAISES), 0.013),
)
CHANGED = (
    Plot(ALLOW, tuple(RAISES), 0.075),
    Plot(ALLOW, tuple(STOPS), 0.016),
    Plot(ATTEST, tuple(RAISES), 0.010),
    Plot(ATTEST, tuple(STOPS), 0.015),
    Plot(ATTEST, tuple(RELEASES), 0.030),
    Plot(DENY, tuple(LENDS), 0.010),
)
