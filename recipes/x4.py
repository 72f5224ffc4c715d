"""How the packaged model x4 was made: synthetic scenes only, multi-scale L1 (equation 1), one CPU thread.

    python recipes/x4.py --output x4.safetensors --minutes 75

No photograph takes part: every pixel that the network sees is drawn by `napari_mgbpv2.training.scenes`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from napari_mgbpv2.checkpoints import save_model
from napari_mgbpv2.config import ModelConfig
from napari_mgbpv2.engine import measure_guard
from napari_mgbpv2.network import MGBPv2
from napari_mgbpv2.training.data import ScenePatches
from napari_mgbpv2.training.trainer import Progress, TrainingPlan, start_as_bicubic, train

SCALE = 4
# Without biases the network is homogeneous, f(a x) = a f(x): an image that uses 2% of its range fares like any other.
CONFIG = ModelConfig(features=(64, 48, 32, 12), steps=2, noise_channels=0, bias=False)
PATCH = 119  # a natural size of the network
BATCH = 8
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--minutes", type=float, default=75.0)
    parser.add_argument("--threads", type=int, default=1, help="of torch; the scenes take part of another core")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    network = MGBPv2(CONFIG)
    start_as_bicubic(network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = DataLoader(ScenePatches(SCALE, PATCH, SEED), batch_size=BATCH, num_workers=1, prefetch_factor=4)
    plan = TrainingPlan(minutes=options.minutes)
    begun = time.monotonic()
    steps = 0

    def report(progress: Progress, _: nn.Module) -> None:
        nonlocal steps
        steps = progress.step
        minutes = (time.monotonic() - begun) / 60
        print(f"step {steps}, {minutes:.1f} of {options.minutes:g} min, loss {progress.loss:.5f}", flush=True)

    train(network, batches, plan, report)
    save_model(
        network,
        options.output,
        scale=SCALE,
        guard=measure_guard(network, SCALE),
        trained_on="synthetic scenes: dead leaves with edges, textures, stripes and letters",
        training={
            "recipe": "recipes/x4.py",
            "minutes": options.minutes,
            "steps": steps,
            "batch": BATCH,
            "patch": PATCH,
            "learning_rate": plan.learning_rate,
            "loss": "multi-scale L1 (equation 1)",
            "seed": SEED,
        },
        precision="float16",
    )
    print(options.output)


if __name__ == "__main__":
    main()
