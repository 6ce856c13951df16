"""How are properties tried here? Without a deadline: a busy machine is no counterexample."""

from hypothesis import settings

settings.register_profile("domain", deadline=None)
settings.load_profile("domain")
