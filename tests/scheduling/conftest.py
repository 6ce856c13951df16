"""Which server do the jobs work for?"""

from tests.services.conftest import any_stage, stage

__all__ = ["any_stage", "stage"]
