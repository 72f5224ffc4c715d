"""recipes/rescale.py, which prepares the start of a training at another scale."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from examples import TINY, a_network
from napari_mgbpv2.model.checkpoints import load_model, save_model

RECIPE = Path(__file__).parents[1] / "recipes" / "rescale.py"


def test_the_weights_stay_and_the_scale_changes(tmp_path: Path) -> None:
    given = a_network(TINY, scale=4, guard=20)
    save_model(given, tmp_path / "x4.safetensors")
    command = [sys.executable, str(RECIPE), str(tmp_path / "x4.safetensors"), "8", str(tmp_path / "x8.safetensors")]
    subprocess.run(command, check=True)
    made = load_model(tmp_path / "x8.safetensors")
    assert (made.scale, made.guard, made.config.border_multiple) == (8, None, 8)
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in given.state_dict().items())
