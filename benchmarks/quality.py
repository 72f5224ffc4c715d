"""Scores of models against bicubic and Lanczos upscaling.

    python benchmarks/quality.py            # the packaged models
    python benchmarks/quality.py MODEL...   # packaged names or files
    python benchmarks/quality.py --write docs/quality.md
    python benchmarks/quality.py --peers    # other networks next to ours, see benchmarks/peers.py

Models of colours are scored on photographs of scikit-image, models of one channel on synthetic fields of microscopy
that are drawn for nothing else, and on two micrographs of scikit-image. Each image is shrunk bicubically by the model's
scale, then upscaled. Filters are computed in floating point and rounded once, to the type of the image. 4 pixels at the
border are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage.color
import skimage.data
from PIL import Image

import napari_mgbpv2 as mgbp
from napari_mgbpv2.imaging.resampling import bicubic_resize_array
from napari_mgbpv2.metrics.niqe import niqe
from napari_mgbpv2.metrics.scores import luma, psnr, ssim
from napari_mgbpv2.model.network import configurations
from napari_mgbpv2.model.zoo import default_model
from napari_mgbpv2.training.synthetic import numbered_generator
from napari_mgbpv2.training.synthetic.camera import Camera
from napari_mgbpv2.training.synthetic.fields import random_field

Picture = npt.NDArray[Any]  # (H, W) or (H, W, 3), uint8 or uint16
Scores = dict[str, float]

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "camera")
OTHERS = ("retina", "immunohistochemistry", "hubble_deep_field", "cell")
MICROGRAPHS = ("cell", "immunohistochemistry")  # in grey
FIELDS = range(1000, 1024)  # numbers of held-out fields; a run that trains on fields validates on the first ones
BRIGHTNESSES = {"below 300": (0, 300), "300 to 3000": (300, 3000), "above 3000": (3000, np.inf)}  # electrons
BORDER = 4
PAGE = """# Quality of the packaged models

Written by `python benchmarks/quality.py --write docs/quality.md`. An image is shrunk bicubically, rounded to its type,
and upscaled by the bicubic and Lanczos filters and by the model. "Gain" is PSNR over bicubic, in dB.

Both filters, and the shrinking, are computed in floating point and rounded once, to the type of the image. Pillow's
filters for 8 bits round after the rows and again after the columns: on the smooth micrograph `cell`, that makes bicubic
upscaling 1.8 dB worse at 2 times, which a model would seem to gain.

## Photographs

Images of scikit-image, none of which has been trained on; the photographs are astronaut, chelsea, coffee, rocket and
camera, which is grey and goes through the network of colours folded. PSNR in dB and SSIM over all channels, and over
luma (Y); NIQE of luma, lower is better.

All scores are those of W = 0. What x4-perceptual, the one with a noise input, gains and loses with W is told in
"Looking inside".

The micrograph `cell` is a grey image of 8 bits, so it gets one of these models by default. Bicubic upscaling gets it
right to less than one of 256 grey values. `x2` takes the steps of the rounding for detail and makes it worse: where the
source is not rounded, it gains 0.2 dB. `x4`, `x8` and `x16` gain on it. For images like this one, use bicubic upscaling
at 2 times.
"""
MICROSCOPY = """## Single-channel microscopy

Synthetic fields: blobs, filaments and membranes as a camera records them in 16 bits, noise included, sorted by the
electrons of a bright pixel; and micrographs of scikit-image in grey, 8 bits. "Folded" is the model of colours of the
same scale, folded to one channel. The peak of PSNR and SSIM is a field's 99.9th percentile. "Mean error" is how far
the mean of the model's result is from that of its source, of several fields the largest.

The image `cell` is so smooth that bicubic upscaling is right to less than one of 256 grey values. A network that has
seen few such images takes the steps of their rounding for detail. At 2 times, both networks are worse than bicubic
upscaling for that reason. Where the source is not rounded, `microscopy-x2` gains 0.1 dB and "folded" 0.2 dB. Without
`--model`, `cell` gets "folded", because it has 8 bits; the same values in 16 bits get the microscopy model.
"""


def load(name: str, scale: int, *, grey: bool = False) -> Picture:
    """(H, W) or (H, W, 3) uint8, cut to a multiple of the scale."""
    image = np.asarray(getattr(skimage.data, name)())
    if image.ndim == 3:
        image = np.rint(255 * skimage.color.rgb2gray(image)).astype(np.uint8) if grey else image[..., :3]
    height, width = (size // scale * scale for size in image.shape[:2])
    return image[:height, :width]


def lanczos(image: Picture, height: int, width: int) -> Picture:
    """Resize by Pillow's Lanczos filter in floating point, rounded once as `bicubic_resize_array` does."""
    planes = [Image.fromarray(plane) for plane in np.moveaxis(np.atleast_3d(image), -1, 0).astype(np.float32)]
    resized = [np.asarray(plane.resize((width, height), Image.Resampling.LANCZOS)) for plane in planes]
    values = np.clip(np.rint(np.stack(resized, -1)), 0, np.iinfo(image.dtype).max).astype(image.dtype)
    return values.reshape(height, width, *image.shape[2:])


def upscaled(target: Picture, scale: int, models: Mapping[str, str]) -> dict[str, Picture]:
    """What bicubic, Lanczos and models make of a target that has been shrunk, and the shrunk one as "source"."""
    height, width = target.shape[:2]
    source = bicubic_resize_array(target, height // scale, width // scale)
    axes = "yx" if source.ndim == 2 else "yxs"
    return {
        "source": source,
        "bicubic": bicubic_resize_array(source, height, width),
        "lanczos": lanczos(source, height, width),
        **{way: np.asarray(mgbp.upscale(source, scale, model=model, axes=axes)) for way, model in models.items()},
    }


def planes(image: Picture, white: float = 255) -> npt.NDArray[np.float32]:
    """(C, H, W) in [0, 1] without the border, as the metrics take it."""
    inner = image[BORDER:-BORDER, BORDER:-BORDER]
    return (np.moveaxis(np.atleast_3d(inner), -1, 0) / white).astype(np.float32)


def score(model: str, scale: int, name: str, *, grey: bool = False) -> tuple[float, float]:
    """PSNR of bicubic upscaling and of the model."""
    target = load(name, scale, grey=grey)
    made = upscaled(target, scale, {"model": model})
    bicubic, network = (psnr(planes(made[way]), planes(target)) for way in ("bicubic", "model"))
    return bicubic, network


def photograph_row(model: str, scale: int, name: str) -> Scores:
    """All scores of one photograph."""
    target = load(name, scale)
    made = upscaled(target, scale, {"model": model})
    ways = ("bicubic", "lanczos", "model")
    y = {way: luma(planes(made[way]))[None] / np.float32(255) for way in ways}
    target_y = luma(planes(target))[None] / np.float32(255)
    figures: dict[str, Callable[[str], float]] = {
        "PSNR": lambda way: psnr(planes(made[way]), planes(target)),
        "PSNR-Y": lambda way: psnr(y[way], target_y),
        "SSIM": lambda way: ssim(planes(made[way]), planes(target)),
        "SSIM-Y": lambda way: ssim(y[way], target_y),
        "NIQE": lambda way: niqe(luma(planes(made[way]))),
    }
    scores = {f"{figure} {way}": measure(way) for figure, measure in figures.items() for way in ways}
    return {"gain": scores["PSNR model"] - scores["PSNR bicubic"]} | scores


def micrograph_row(target: Picture, white: float, scale: int, models: Mapping[str, str]) -> Scores:
    """Scores of one image of one channel; of the first of the models, also how it keeps the mean."""
    made = upscaled(target, scale, models)
    ways = ("bicubic", "lanczos", *models)
    scores = {f"PSNR {way}": psnr(planes(made[way], white), planes(target, white)) for way in ways}
    gains = {f"gain {way}": scores[f"PSNR {way}"] - scores["PSNR bicubic"] for way in models}
    similarities = {f"SSIM {way}": ssim(planes(made[way], white), planes(target, white)) for way in ways}
    return scores | gains | similarities | {"mean error": abs(made[ways[2]].mean() / made["source"].mean() - 1)}


def field_rows(scale: int, models: Mapping[str, str], numbers: Sequence[int] = FIELDS) -> list[tuple[float, Scores]]:
    """Electrons of a bright pixel and scores of each of some held-out fields."""
    rows = []
    for number in numbers:
        generator = numbered_generator(0, number, held_out=True)
        camera = Camera.random(generator)
        field = random_field(generator, 512, camera)[..., 0]
        rows.append((camera.photons, micrograph_row(field, np.percentile(field, 99.9), scale, models)))
    return rows


def mean_of(rows: Sequence[Scores]) -> Scores:
    """Mean of each column, and the largest deviation of means."""
    return {name: float((max if name == "mean error" else np.mean)([row[name] for row in rows])) for name in rows[0]}


def photograph_rows(model: str, scale: int) -> dict[str, Scores]:
    """Scores of all photographs and other images, and the means of the photographs."""
    rows = {name: photograph_row(model, scale, name) for name in PHOTOGRAPHS + OTHERS}
    return rows | {"mean of the photographs": mean_of([rows[name] for name in PHOTOGRAPHS])}


def microscopy_rows(model: str, scale: int) -> dict[str, Scores]:
    """Scores of fields by their brightness, and of micrographs."""
    models = {"model": model, "folded": default_model(scale, 3).name}
    fields = field_rows(scale, models)
    rows = {
        f"fields, {name} electrons": mean_of([row for photons, row in fields if low <= photons < high])
        for name, (low, high) in BRIGHTNESSES.items()
    }
    rows["all fields"] = mean_of([row for _, row in fields])
    return rows | {name: micrograph_row(load(name, scale, grey=True), 255, scale, models) for name in MICROGRAPHS}


def measured(model: str, scale: int, channels: int) -> dict[str, Scores]:
    """Scores of a model on all images of its kind, and their means, by the name of the row."""
    return microscopy_rows(model, scale) if channels == 1 else photograph_rows(model, scale)


def card_scores(rows: Mapping[str, Scores]) -> Scores:
    """Scores for the card of a packaged model, of those that are `measured`."""
    colours = "mean of the photographs" in rows
    of, means = ("photographs", "mean of the photographs") if colours else ("fields", "all fields")
    scores = {f"{of}_{_plain(name)}": value for name, value in rows[means].items() if "folded" not in name}
    # `cell` is grey and has 8 bits: by default it gets a model of colours.
    gain, images = ("gain", ("cell",)) if colours else ("gain model", MICROGRAPHS)
    scores |= {f"{name}_gain_db": rows[name][gain] for name in images}
    return {name: round(value, 4) for name, value in scores.items()}


def _plain(column: str) -> str:
    """Name a column for a card: psnr_db for "PSNR model", ssim_y_bicubic for "SSIM-Y bicubic"."""
    figure, _, way = column.lower().replace("-", "_").partition(" ")
    figure += "_db" if figure.startswith(("psnr", "gain")) else ""
    return figure if way in ("", "model") else f"{figure}_{way}"


def table(rows: Mapping[str, Scores], *figures: str) -> str:
    """The columns of some figures as a table of Markdown."""
    columns = [name for figure in figures for name in rows[next(iter(rows))] if name.split()[0] == figure]
    lines = [f"| image | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    formats = {"gain": "+.2f", "SSIM": ".3f", "SSIM-Y": ".3f", "mean": ".2%"}
    for name, scores in rows.items():
        cells = (format(scores[column], formats.get(column.split()[0], ".2f")) for column in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def section(model: str, scale: int, rows: Mapping[str, Scores]) -> str:
    """Tables of the scores of one model."""
    if "all fields" in rows:
        tables = [table(rows, "PSNR", "gain"), table(rows, "SSIM", "mean")]
    else:
        tables = [table(rows, "PSNR", "gain", "PSNR-Y"), table(rows, "SSIM", "SSIM-Y"), table(rows, "NIQE")]
    return "\n\n".join([f"### {model}, {scale} times", *tables]) + "\n"


def write_page(page: Path, colours: Sequence[str], microscopy: Sequence[str]) -> None:
    """Write the sections of models into a page, whose section on other networks stays.

    Parameters
    ----------
    page : Path
        Markdown file to write; it need not exist.
    colours, microscopy : sequence of str
        Sections of the models of colours and of one channel, in their order.
    """
    import peers  # next to this script, which tests import as a module

    text = "\n".join([PAGE, *colours, MICROSCOPY, *microscopy])
    others = peers.section_of(page.read_text(encoding="utf-8")) if page.exists() else ""
    page.write_text(peers.with_section(text, others) if others else text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--scale", type=int, help="for model files that do not say theirs")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the tables into a page")
    parser.add_argument("--peers", action="store_true", help="other networks next to ours; writes just their section")
    options = parser.parse_args()
    if options.peers:
        import peers  # next to this script, which tests import as a module

        text = peers.section()
        print(text)
        if options.write is not None:
            page = options.write.read_text(encoding="utf-8") if options.write.exists() else ""
            options.write.write_text(peers.with_section(page, text), encoding="utf-8")
        return
    sections: dict[bool, list[str]] = {False: [], True: []}
    for model in options.models or [card.name for card in mgbp.list_models()]:
        network = mgbp.load_model(model)
        channels, scale = configurations(network)[0].channels, options.scale or network.scale
        if scale is None:
            parser.error(f"{model} does not say its scale; give --scale")
        sections[channels == 1].append(section(model, scale, measured(model, scale, channels)))
        print(sections[channels == 1][-1], flush=True)
    if options.write is not None:
        write_page(options.write, sections[False], sections[True])


if __name__ == "__main__":
    main()
