"""Scores of a model against bicubic upscaling on photographs of scikit-image.

    python benchmarks/quality.py            # the packaged models
    python benchmarks/quality.py MODEL...   # packaged names or files
    python benchmarks/quality.py --write docs/quality.md

Each image is shrunk bicubically by the model's scale and rounded to 8 bits, then upscaled. PSNR in dB over all of R, G,
B (or grey) of the 8-bit result, and over luma alone (Y); SSIM; NIQE of the luma, lower is better. 4 pixels at the
border are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image

import napari_mgbpv2 as mgbp
from napari_mgbpv2.training.metrics import luma, ssim
from napari_mgbpv2.training.niqe import niqe

Picture = npt.NDArray[np.uint8]

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
OTHERS = ("camera", "retina", "immunohistochemistry", "hubble_deep_field")
BORDER = 4
PAGE = """# Quality of the packaged models

Written by `python benchmarks/quality.py --write docs/quality.md`. Images of scikit-image, none of which has been
trained on, shrunk bicubically and rounded to 8 bits. PSNR in dB over all channels, and over luma (Y); SSIM; NIQE of
the luma, lower is better. The photographs are astronaut, chelsea, coffee and rocket.
"""


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


def upscaled_by(model: str, scale: int, target: Picture) -> dict[str, Picture]:
    """What bicubic, Lanczos and a model make of a target that has been shrunk."""
    height, width = target.shape[:2]
    source = resize(target, height // scale, width // scale)
    axes = "yx" if source.ndim == 2 else "yxs"
    return {
        "bicubic": resize(source, height, width),
        "lanczos": np.asarray(Image.fromarray(source).resize((width, height), Image.Resampling.LANCZOS)),
        "model": np.asarray(mgbp.upscale(source, scale, model=model, axes=axes)),
    }


def score(model: str, scale: int, name: str) -> tuple[float, float]:
    """PSNR of bicubic upscaling and of the model."""
    target = load(name, scale)
    made = upscaled_by(model, scale, target)
    return psnr(made["bicubic"], target), psnr(made["model"], target)


def planes(image: Picture) -> npt.NDArray[np.float32]:
    """(C, H, W) in [0, 1] without the border, as the metrics take it."""
    inner = image[BORDER:-BORDER, BORDER:-BORDER]
    return np.moveaxis(np.atleast_3d(inner), -1, 0).astype(np.float32) / 255


def row(model: str, scale: int, name: str) -> dict[str, float]:
    """All scores of one image."""
    target = load(name, scale)
    made = upscaled_by(model, scale, target)
    scores = {f"PSNR {way}": psnr(image, target) for way, image in made.items()}
    scores["gain"] = scores["PSNR model"] - scores["PSNR bicubic"]
    for way in ("bicubic", "model"):
        scores[f"PSNR-Y {way}"] = psnr(luma(planes(made[way])), luma(planes(target)))
    for way in ("bicubic", "model"):
        scores[f"SSIM {way}"] = ssim(planes(made[way]), planes(target))
    for way in ("bicubic", "model"):
        scores[f"NIQE {way}"] = niqe(luma(planes(made[way])))
    return scores


def table(model: str, scale: int) -> str:
    """Scores of a model as a table of Markdown."""
    rows = {name: row(model, scale, name) for name in PHOTOGRAPHS + OTHERS}
    rows["mean of the photographs"] = {
        column: float(np.mean([rows[name][column] for name in PHOTOGRAPHS])) for column in rows[PHOTOGRAPHS[0]]
    }
    columns = list(rows[PHOTOGRAPHS[0]])
    lines = [f"| image | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, scores in rows.items():
        cells = (
            f"{value:+.2f}" if column == "gain" else f"{value:.3g}" if "SSIM" in column else f"{value:.2f}"
            for column, value in scores.items()
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--scale", type=int, help="for model files that do not say theirs")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the tables into a page")
    options = parser.parse_args()
    page = [PAGE]
    for model in options.models or [card.name for card in mgbp.list_models()]:
        scale = options.scale or mgbp.load_model(model).scale
        if scale is None:
            parser.error(f"{model} does not say its scale; give --scale")
        page.append(f"## {model}, {scale} times\n\n{table(model, scale)}\n")
        print(page[-1], flush=True)
    if options.write is not None:
        options.write.write_text("\n".join(page))


if __name__ == "__main__":
    main()
