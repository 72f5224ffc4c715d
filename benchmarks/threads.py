"""What it costs `upscale` that the program around it computes with torch, too, in a thread of its own.

    python benchmarks/threads.py [--rounds 5]

GNU's OpenMP gives each thread that calls torch a team of its own, and stops spinning once all teams together have more
threads than there are processors. The program is the main thread, which adds up 10^6 numbers once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import napari_mgbpv2 as mgbp

PHOTOGRAPH = Path(mgbp.__file__).parent / "samples" / "astronaut.png"


def seconds_of_upscaling(image: np.ndarray, model: mgbp.MGBPv2, rounds: int) -> float:
    found = []
    for _ in range(1 + rounds):
        lazy = mgbp.upscale(image, model=model, device="cpu")
        start = time.perf_counter()
        lazy.compute()
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])  # the first has the network to prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    image = np.asarray(Image.open(PHOTOGRAPH).convert("RGB"))
    model = mgbp.load_model("x4")
    assert isinstance(model, mgbp.MGBPv2)
    alone = seconds_of_upscaling(image, model, rounds)
    torch.zeros(10**6).add_(1)
    beside = seconds_of_upscaling(image, model, rounds)
    print(f"torch's threads {torch.get_num_threads()}, median of {rounds}")
    print(f"alone {alone:.2f} s, beside torch in the main thread {beside:.2f} s: {beside / alone:.2f} times")


if __name__ == "__main__":
    main()
