"""Give the weights of a model another scale, as a start for training at that scale.

python recipes/rescale.py x4 8 x8-first.safetensors
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.checkpoints import load_model, save_model
from napari_mgbpv2.model.network import MGBPv2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or file of the model")
    parser.add_argument("scale", type=int, help="the other scale")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    options = parser.parse_args()
    network = load_model(options.model)
    if not isinstance(network, MGBPv2):
        raise ModelError(f"{options.model}: is an ensemble; take one of its networks.")
    network.scale, network.guard = options.scale, None  # the guard is measured again after training
    network.config = replace(network.config, border_multiple=options.scale)
    save_model(network, options.output)


if __name__ == "__main__":
    main()
