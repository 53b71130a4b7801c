"""How many examples the property tests try: `make long` tries far more. No time limit on one: machines are shared."""

from hypothesis import settings

settings.register_profile("short", deadline=None)
settings.register_profile("long", deadline=None, max_examples=20_000)
settings.load_profile("short")
