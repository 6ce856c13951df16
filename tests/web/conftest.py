"""Which server do requests reach?"""

from tests.services.conftest import any_stage, enforced, stage

__all__ = ["any_stage", "enforced", "stage"]
