"""How much hypothesis tries: little and always the same by default, more with `FGADAHAT_PROPERTY=long`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Nothing is timed, and nothing is written beside the tests.
_QUIET = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))

settings.register_profile("short", _QUIET, derandomize=True, max_examples=60)
settings.register_profile("long", _QUIET, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("FGADAHAT_PROPERTY", "short"))
