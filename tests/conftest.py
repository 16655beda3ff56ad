"""For all tests: no property has a deadline, since other programs may share the machine."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
