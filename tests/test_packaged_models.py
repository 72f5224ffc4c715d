"""The packaged models are worth using: scores on photographs that they have never seen."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import napari_mgbpv2 as mgbp

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "quality.py"


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    """The benchmark that prints the scores."""
    specification = importlib.util.spec_from_file_location("quality", BENCHMARK)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def gain(quality: ModuleType, model: str, scale: int, name: str) -> float:
    bicubic, network = quality.score(model, scale, name)
    return float(network - bicubic)


def test_x4_gains_on_photographs(quality: ModuleType) -> None:
    gains = [gain(quality, "x4", 4, name) for name in ("astronaut", "chelsea", "coffee", "rocket")]
    assert min(gains) > 0
    assert np.mean(gains) > 1.0


@pytest.mark.parametrize("name", ["camera", "retina", "immunohistochemistry", "hubble_deep_field"])
def test_x4_makes_nothing_worse(quality: ModuleType, name: str) -> None:
    assert gain(quality, "x4", 4, name) > 0


def test_the_card_tells_the_measured_gain(quality: ModuleType) -> None:
    card = next(card for card in mgbp.list_models() if card.name == "x4")
    gains = [gain(quality, "x4", 4, name) for name in quality.PHOTOGRAPHS]
    assert card.scores["photographs_gain_db"] == pytest.approx(np.mean(gains), abs=0.01)


def test_packaged_models_are_small() -> None:
    assert all(card.path.stat().st_size < 2_000_000 for card in mgbp.list_models())
