"""What holds for all tests."""

from hypothesis import settings

settings.register_profile(
    "wisp", deadline=None
)  # how long an example takes says nothing on a machine that does other things, too
settings.load_profile("wisp")
