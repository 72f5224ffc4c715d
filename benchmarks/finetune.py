"""What fine-tuning gains: the packaged model, trained on the left half of an image, scored on the right half.

    python benchmarks/finetune.py [--minutes 10] [--images immunohistochemistry brick gravel]

Images of scikit-image that are unlike what the packaged model has seen. Each is shrunk bicubically; PSNR in dB of the
8-bit result, 4 pixels at the border left out, as in benchmarks/quality.py.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import napari_mgbpv2 as mgbp
from napari_mgbpv2.imaging.resampling import bicubic_resize_array
from napari_mgbpv2.training.options import make_options
from napari_mgbpv2.training.trainer import train
from quality import Picture, load, psnr


def gain(model: str | Path, target: Picture, scale: int) -> float:
    """PSNR of a model over bicubic upscaling."""
    height, width = target.shape[:2]
    source = bicubic_resize_array(target, height // scale, width // scale)
    upscaled = np.asarray(mgbp.upscale(source, scale, model=model, axes="yxs"[: source.ndim]))
    return psnr(upscaled, target) - psnr(bicubic_resize_array(source, height, width), target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--images", nargs="+", default=["immunohistochemistry", "brick", "gravel"], metavar="NAME")
    parser.add_argument("--model", default="x4")
    options = parser.parse_args()
    scale = mgbp.load_model(options.model).scale or 1
    print(f"{options.minutes:g} minutes of training each; gain over bicubic on the half that was not trained on, in dB")
    print(f"{'image':24}{options.model:>9}{'tuned':>9}{'more':>8}")
    for name in options.images:
        image = load(name, 2 * scale)
        left, right = np.split(image, 2, axis=1)
        with tempfile.TemporaryDirectory() as folder:
            Image.fromarray(left).save(Path(folder) / "left.png")
            wanted = {"images": [Path(folder) / "left.png"], "output": Path(folder) / "tuned.safetensors"}
            tuned = train(make_options({**wanted, "init": options.model, "minutes": options.minutes}))
            before, after = gain(options.model, right, scale), gain(tuned, right, scale)
        print(f"{name:24}{before:+9.2f}{after:+9.2f}{after - before:+8.2f}", flush=True)


if __name__ == "__main__":
    main()
