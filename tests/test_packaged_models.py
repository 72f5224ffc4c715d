"""The packaged models are worth using: scores on photographs that they have never seen."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import napari_mgbpv2 as mgbp
from napari_mgbpv2.model_zoo import ModelCard, default_model

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


# Mean gain in dB over bicubic upscaling that a model of each scale must have on the photographs.
BARS = {2: 1.5, 4: 1.0, 8: 0.5}
CARDS = mgbp.list_models()


@pytest.fixture(scope="module", params=CARDS, ids=[card.name for card in CARDS])
def card(request: pytest.FixtureRequest) -> ModelCard:
    """Each packaged model."""
    found: ModelCard = request.param
    return found


def gains(quality: ModuleType, card: ModelCard, names: tuple[str, ...]) -> list[float]:
    scores = [quality.score(card.name, card.scale, name) for name in names]
    return [network - bicubic for bicubic, network in scores]


def test_it_gains_on_every_photograph_and_its_card_tells_how_much(quality: ModuleType, card: ModelCard) -> None:
    measured = gains(quality, card, quality.PHOTOGRAPHS)
    assert min(measured) > 0
    assert np.mean(measured) > BARS[card.scale or 0]
    assert card.scores["photographs_gain_db"] == pytest.approx(np.mean(measured), abs=0.01)


def test_it_makes_no_other_image_worse(quality: ModuleType, card: ModelCard) -> None:
    assert min(gains(quality, card, quality.OTHERS)) > 0


def test_it_is_small(card: ModelCard) -> None:
    assert card.path.stat().st_size < 2_000_000


def test_where_nobody_says_a_scale_it_is_four() -> None:
    assert default_model(None).name == "x4"
