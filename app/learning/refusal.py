"""Why does no version come out of this?"""

from app.errors import PhasegateError


class Refused(PhasegateError):
    """Learning ended without a new version; the message says what is missing or what was no better."""
