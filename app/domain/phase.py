"""Which phases are there, and which lies above or below another?"""

from enum import StrEnum


class Phase(StrEnum):
    """How far the model is trusted, from not at all to answering."""

    SHADOW = "shadow"
    ADVISORY = "advisory"
    ENFORCED = "enforced"

    @property
    def rank(self) -> int:
        return _ORDER.index(self)

    def lower(self) -> "Phase":
        """One phase down; shadow stays shadow."""
        return _ORDER[max(self.rank - 1, 0)]

    def higher(self) -> "Phase | None":
        """One phase up, or None above enforced."""
        return _ORDER[self.rank + 1] if self.rank + 1 < len(_ORDER) else None


_ORDER = tuple(Phase)


def lowest(one: Phase, other: Phase) -> Phase:
    """The lower of two phases."""
    return one if one.rank <= other.rank else other
