"""What holds for all tests: shares of the processors, Ctrl-C, and how hypothesis behaves where mutmut changes the code.

Files of tests run in several processes (pytest -n). Each of them, and what it starts, then has its share of the
processors: torch would use all of them in every process, and all would wait for one another.
"""

import os
import signal

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

# What is started in the background ignores Ctrl-C, and so would the commands that tests send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import HealthCheck, settings

settings.register_profile(
    "mutated", derandomize=True, database=None, suppress_health_check=[HealthCheck.differing_executors]
)
