"""The targets of fuzz/ without its engine: their seeds, what fuzzing has found so far, and some more changes."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mgbpv2.errors import MGBPv2Error

FUZZ = Path(__file__).parents[1] / "fuzz"
sys.path.insert(0, str(FUZZ))

from seeds import seeds  # noqa: E402
from targets import TARGETS, survives  # noqa: E402

FOUND = sorted((FUZZ / "found").glob("*/*"))
NO_IMAGES = {"layout", "plate"}
SEEDS = [(target, name) for target in TARGETS for name in seeds(target)]


@pytest.mark.parametrize(("target", "name"), SEEDS)
def test_a_seed_is_read(target: str, name: str) -> None:
    with pytest.raises(MGBPv2Error) if name in NO_IMAGES else nullcontext():
        TARGETS[target](seeds(target)[name])


@pytest.mark.parametrize("path", FOUND, ids=[f"{path.parent.name}-{path.name}" for path in FOUND])
def test_what_was_found_ends_in_one_clear_error(path: Path) -> None:
    survives(path.parent.name)(path.read_bytes())


@pytest.mark.parametrize(("target", "name"), SEEDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_changed_bytes_end_in_one_clear_error(target: str, name: str, data: st.DataObject) -> None:
    changed = bytearray(seeds(target)[name])
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(1, len(changed) - 1))] = data.draw(st.integers(0, 255))
    survives(target)(bytes(changed[: data.draw(st.integers(2, len(changed)))]))
