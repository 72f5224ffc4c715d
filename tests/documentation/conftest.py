"""Tests of the pages: what they say is done."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the examples that all tests share
