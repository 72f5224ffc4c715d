"""Measures packaged models anew and writes the scores and the guard into their cards; their weights stay as they are.

python recipes/score.py src/napari_mgbpv2/model/weights/*.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from napari_mgbpv2.model.checkpoints import load_model, save_model
from napari_mgbpv2.model.zoo import read_card
from napari_mgbpv2.runtime import measure_guard
from quality import card_scores


def with_scores(path: Path) -> Path:
    """Score a model that is stored in float16, whose last digits change what is measured."""
    card, network = read_card(path), load_model(path)
    assert card.scale is not None
    return save_model(
        network,
        path,
        guard=measure_guard(network, card.scale),
        trained_on=card.trained_on,
        scores=card_scores(str(path), card.scale, card.channels),
        training=card.training,
        precision="float16",
        overwrite=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    for model in parser.parse_args().models:
        print(f"{with_scores(model)}: {read_card(model).scores}", flush=True)
