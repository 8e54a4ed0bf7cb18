"""The same examples on every run, quick enough for every run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "every run",
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("every run"), max_examples=2000, derandomize=False)
settings.load_profile("every run")
