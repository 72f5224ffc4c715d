"""A part of the kill soak; all of it is ``python tests/soak.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("MGBPV2_SOAK_KILLS", "40"))


@pytest.mark.slow
def test_no_kill_at_any_file_operation_loses_or_spoils_anything() -> None:
    command = [sys.executable, str(Path(__file__).with_name("soak.py")), "--kills", str(KILLS)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode == 2:
        pytest.skip("it needs Linux and a C compiler")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 with wrong bytes or lost images, 0 stuck" in run.stdout
