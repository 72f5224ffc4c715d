"""What a background of one colour costs: a photograph in an even image, and the same size full of photographs.

    python benchmarks/background.py [--megapixels 100] [--share 0.75] [--rounds 3]

``share`` of the rows are background. The two take turns; the result is the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import napari_mgbpv2 as mgbp

PHOTOGRAPH = Path(mgbp.__file__).parent / "samples" / "astronaut.png"
SCALE = 4


def seconds(image: npt.NDArray[np.uint8]) -> float:
    began = time.perf_counter()
    mgbp.upscale(image, SCALE, model="x4", device="cpu").compute()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=100.0, help="of the result")
    parser.add_argument("--share", type=float, default=0.75)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    side = round((options.megapixels * 1e6) ** 0.5 / SCALE)
    photograph = np.asarray(Image.open(PHOTOGRAPH).convert("RGB"))
    repeats = -(-side // len(photograph))
    full = np.tile(photograph, (repeats, repeats, 1))[:side, :side]
    with_background = full.copy()
    with_background[: round(options.share * side)] = 255
    seconds(full[:64, :64])  # loads the model
    ratios = []
    for _ in range(options.rounds):
        whole, part = seconds(full), seconds(with_background)
        ratios.append(part / whole)
        print(f"full {whole:.2f} s, {options.share:.0%} background {part:.2f} s: {part / whole:.2f} of the time")
    print(f"median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
