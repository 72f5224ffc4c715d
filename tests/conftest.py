"""How hypothesis behaves where the code under test is changed on purpose: mutmut runs each test many times at once."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "mutated", derandomize=True, database=None, suppress_health_check=[HealthCheck.differing_executors]
)
