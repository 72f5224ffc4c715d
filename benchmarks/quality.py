"""Scores of a model against bicubic upscaling on photographs of scikit-image.

    python benchmarks/quality.py            # the packaged models
    python benchmarks/quality.py MODEL...   # packaged names or files

Each image is shrunk bicubically by the model's scale and rounded to 8 bits, then upscaled. PSNR over all of R, G, B
(or grey) of the 8-bit result; 4 pixels at the border are left out.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image

import napari_mgbpv2 as mgbp

Picture = npt.NDArray[np.uint8]

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
OTHERS = ("camera", "retina", "immunohistochemistry", "hubble_deep_field")
BORDER = 4


def load(name: str, scale: int) -> Picture:
    """(H, W) or (H, W, 3) uint8, cut to a multiple of the scale."""
    image = np.asarray(getattr(skimage.data, name)())
    height, width = (size // scale * scale for size in image.shape[:2])
    return image[:height, :width, ...] if image.ndim == 2 else image[:height, :width, :3]


def resize(image: Picture, height: int, width: int) -> Picture:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def psnr(image: Picture, target: Picture) -> float:
    inner = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    error = np.mean((image[inner].astype(np.float64) - target[inner]) ** 2)
    return float(10 * np.log10(255**2 / error))


def score(model: str, scale: int, name: str) -> tuple[float, float]:
    """PSNR of bicubic upscaling and of the model."""
    target = load(name, scale)
    height, width = target.shape[:2]
    source = resize(target, height // scale, width // scale)
    axes = "yx" if source.ndim == 2 else "yxs"
    upscaled = np.asarray(mgbp.upscale(source, scale, model=model, axes=axes))
    return psnr(resize(source, height, width), target), psnr(upscaled, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--scale", type=int, help="for model files that do not say theirs")
    options = parser.parse_args()
    for model in options.models or [card.name for card in mgbp.list_models()]:
        scale = options.scale or mgbp.load_model(model).scale
        print(f"\n{model}, x{scale}: PSNR in dB")
        print(f"{'image':24}{'bicubic':>9}{'model':>9}{'gain':>8}")
        gains = {}
        for name in PHOTOGRAPHS + OTHERS:
            bicubic, network = score(model, scale, name)
            gains[name] = network - bicubic
            print(f"{name:24}{bicubic:9.2f}{network:9.2f}{gains[name]:+8.2f}", flush=True)
        photographs = [gains[name] for name in PHOTOGRAPHS]
        print(f"mean gain on the photographs ({', '.join(PHOTOGRAPHS)}): {np.mean(photographs):+.2f} dB")


if __name__ == "__main__":
    main()
