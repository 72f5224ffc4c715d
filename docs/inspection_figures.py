"""Make the figures of `inspection.md`: filters, maps, and under an X server (``xvfb-run`` will do) the widget's window.

python docs/inspection_figures.py               # the figures, and the table of the filters
python docs/inspection_figures.py sweep FILE    # W from 0 to 1; FILE: weights of the contextual similarity
xvfb-run python docs/inspection_figures.py window
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

import napari_mgbpv2 as mgbp
from napari_mgbpv2.imaging.resampling import ResamplingWeights
from napari_mgbpv2.inspection import DeepFilter, consistency_map

FOLDER = Path(__file__).parent / "pictures"
MODEL, NOISY = "x4", "x4-perceptual"
PLACES = {"wall": (39, 79), "rim of the helmet": (87, 105), "strap": (95, 62), "collar": (60, 47)}
AROUND = 10  # source pixels that are shown to each side
DIVERGING = LinearSegmentedColormap.from_list("diverging", [(0.0, 0.3, 1.0), (1, 1, 1), (1.0, 0.2, 0.0)])


def photograph() -> np.ndarray:
    """The astronaut, four times smaller: (128, 128, 3) uint8."""
    return np.asarray(Image.fromarray(skimage.data.astronaut()).resize((128, 128), Image.Resampling.BICUBIC))


def bicubic(found: DeepFilter, at: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """What bicubic upscaling alone makes of a pixel, where the filter lies."""
    profiles = []
    for start, length, pixel, size in zip(found.offset, found.filter.shape[:2], at, shape, strict=True):
        taps = ResamplingWeights.of(np.arange(start, start + length), found.factor, size)
        profiles.append(np.where(taps.indices == pixel, taps.weights, 0).sum(axis=1))
    return np.multiply.outer(*profiles)


def correlation(found: DeepFilter, at: tuple[int, int], image: np.ndarray) -> float:
    """How alike a filter is to the bicubic kernel."""
    grey = found.filter.mean(axis=2)
    return float(np.corrcoef(grey.ravel(), bicubic(found, at, image.shape[:2]).ravel())[0, 1])


def show_filter(axes: Any, found: DeepFilter, at: tuple[int, int], values: np.ndarray) -> None:
    """Draw a filter in source pixels, symmetric about zero."""
    (top, left), (height, width) = found.offset, values.shape
    extent = [edge / found.factor - 0.5 for edge in (left, left + width, top + height, top)]
    limit = np.abs(values).max()
    axes.imshow(values, cmap=DIVERGING, vmin=-limit, vmax=limit, extent=extent, interpolation="nearest")
    frame(axes, at)


def frame(axes: Any, at: tuple[int, int]) -> None:
    axes.set_xlim(at[1] - AROUND, at[1] + AROUND)
    axes.set_ylim(at[0] + AROUND, at[0] - AROUND)
    axes.set_xticks([])
    axes.set_yticks([])


def filters() -> None:
    """Figure 8 of the paper: pixels, where they go, and where the result at that place comes from."""
    image = photograph()
    figure = Figure(figsize=(9, 3 * len(PLACES)), layout="constrained")
    print("| place | pixel | size in the result | peak | gain | correlation with bicubic | seconds |")
    print("|---|---|---|---|---|---|---|")
    for row, (name, at) in zip(figure.subplots(len(PLACES), 3), PLACES.items(), strict=True):
        began = time.perf_counter()
        column = mgbp.deep_filter(MODEL, image, at)
        seconds = time.perf_counter() - began
        made_of = mgbp.deep_filter(MODEL, image, [4 * each + 2 for each in at], reverse=True)
        grey, alike = column.filter.mean(axis=2), correlation(column, at, image)
        row[0].imshow(image)
        row[0].plot(at[1], at[0], "o", markersize=12, mfc="none", mec="#2060ff", mew=2)
        frame(row[0], at)
        row[0].set_ylabel(name)
        show_filter(row[1], column, at, grey)
        show_filter(row[2], made_of, at, made_of.filter.sum(axis=2))
        height, width = column.size
        numbers = f"{column.peak:.2f} | {column.gain:.2f} | {alike:.2f} | {seconds:.1f}"
        print(f"| {name} | {at} | {height} x {width} | {numbers} |")
    for axes, title in zip(figure.axes[:3], ("the pixel", "where it goes", "where the result comes from"), strict=True):
        axes.set_title(title)
    figure.savefig(FOLDER / "deep-filter.png", dpi=80)
    plain = np.full_like(image, 128)
    alike = correlation(mgbp.deep_filter(MODEL, plain, (64, 64)), (64, 64), plain)
    print(f"\nan image of a single grey: correlation with bicubic {alike:.4f}")


def consistency() -> None:
    """Where the result, shrunk again, departs from the image."""
    image = photograph()
    found = consistency_map(MODEL, image).compute().mean(axis=2)
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image)
    shown = right.imshow(found, cmap="inferno", vmin=0, vmax=np.percentile(found, 99.5))
    figure.colorbar(shown, ax=right, label="of 255")
    for axes, title in ((left, "image"), (right, "|S(result) - image|")):
        axes.set_title(title)
        axes.set_axis_off()
    figure.savefig(FOLDER / "consistency.png", dpi=80)
    print(f"\nconsistency: median {np.median(found):.2f}, 99th percentile {np.percentile(found, 99):.2f} of 255")


def hallucination() -> None:
    """What the noise invents: without it, two draws, and how far draws lie apart."""
    image = photograph()
    part = np.s_[170:330, 130:330]  # of the result
    results = {
        "W = 0": mgbp.upscale(image, model=NOISY, noise=0.0),
        "W = 1": mgbp.upscale(image, model=NOISY, noise=1.0),
        "W = 1, another seed": mgbp.upscale(image, model=NOISY, noise=1.0, seed=1),
    }
    spread = mgbp.hallucination_map(NOISY, image, samples=8).spread.compute().mean(axis=2)
    figure = Figure(figsize=(10, 8.6), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for axes, (title, result) in zip(panels, results.items(), strict=False):
        axes.imshow(result.compute()[part])
        axes.set_title(title)
    shown = panels[3].imshow(spread[part], cmap="inferno", vmin=0, vmax=np.percentile(spread, 99.5))
    panels[3].set_title("spread of 8 draws")
    figure.colorbar(shown, ax=panels[3], label="of 255")
    for axes in panels:
        axes.set_axis_off()
    figure.savefig(FOLDER / "invention.png", dpi=80)
    low, high = np.percentile(spread, (50, 99))
    print(f"\ninvention: spread of half of the pixels below {low:.2f}, of 99 % below {high:.2f} of 255")


def sweep(weights: str) -> None:
    """Figure 10 of the paper: distortion and perception while W goes from 0 to 1."""
    from napari_mgbpv2.cli.sweep import main

    Image.fromarray(skimage.data.astronaut()).save("astronaut.png")
    files = ["-o", "astronaut_sweep.csv", "--plot", str(FOLDER / "sweep.png")]
    main(["astronaut.png", "--model", NOISY, *files, "--feature-network", weights, "--overwrite"])
    print(Path("astronaut_sweep.csv").read_text())


def window() -> None:
    """The widget after a click."""
    from pictures import open_viewer, shoot, wait

    viewer, widget = open_viewer("Inspect (MGBPv2)")
    widget.view.pick.click()
    viewer.scene.camera.zoom, viewer.scene.camera.center = 25, (0, 45, 70)
    widget._ask((45, 70))
    wait(lambda: not widget.is_running, 60)
    shoot(viewer, "inspect")
    viewer.close()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    if sys.argv[1:2] == ["sweep"]:
        sweep(sys.argv[2])
    else:
        for make in [window] if "window" in sys.argv[1:] else [filters, consistency, hallucination]:
            make()
