"""Score noise amplitudes from fidelity to perceptual quality against a sharp image, as in figure 10."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.resampling import shrink
from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.inspection.networks import require_noise
from napari_mgbpv2.metrics.contextual import contextual_loss
from napari_mgbpv2.metrics.niqe import BLOCK, niqe
from napari_mgbpv2.metrics.scores import luma, psnr, rmse_y
from napari_mgbpv2.runtime import run_on_engine_thread
from napari_mgbpv2.upscaling import image_and_axes, plan_upscale
from napari_mgbpv2.upscaling.options import UpscaleOptions

if TYPE_CHECKING:
    from napari_mgbpv2.upscaling.options import Model

Pixels = npt.NDArray[Any]

AMPLITUDES = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class SweepRow:
    """Scores of an image upscaled with one amplitude of the noise.

    Attributes
    ----------
    amplitude
        W.
    psnr
        In dB, over all channels; higher is better.
    rmse
        RMSE of luma in 0..255; lower is better.
    niqe
        NIQE of luma; lower is better. None for images of less than two blocks of 96 x 96 px.
    contextual
        Contextual similarity CX, 0 to 1, in features of the feature network; higher is better. None without one.
    """

    amplitude: float
    psnr: float
    rmse: float
    niqe: float | None
    contextual: float | None


def noise_sweep(
    model: Model | None,
    target: Any,
    source: Any = None,
    *,
    amplitudes: Sequence[float] = AMPLITUDES,
    scale: int | None = None,
    axes: str | None = None,
    seed: int = 0,
    features: Callable[[Tensor], Tensor] | None = None,
    value_range: tuple[float, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> list[SweepRow]:
    """Score a model between fidelity and perceptual quality: amplitudes of its noise against a sharp image.

    Parameters
    ----------
    model
        Packaged name, file or network with a noise input; None for the default model of the scale.
    target
        The sharp image: (y, x) grey or (y, x, 3) RGB, or with other axes of size 1. It is read as a whole.
    source
        The image to upscale, ``scale`` times smaller; by default the target, shrunk bicubically and rounded to its
        type. Its right and bottom remainder that the scale does not divide is then left out.
    amplitudes
        W, one row each.
    axes
        Letters of the axes of target and source; by default guessed from their shapes.
    scale
        Upscaling factor; by default that of the model.
    seed
        Seed of the noise.
    value_range
        Values of black and white; by default those of the type.
    features
        Feature network of the contextual similarity: images (1, C, H, W) to (1, features, h, w), such as
        the result of `napari_mgbpv2.training.features.load_feature_network`. None leaves that score out.
    progress
        Called with (amplitudes done, all).
    **options
        Any other option of `upscale`: tile, device, precision, ...

    Returns
    -------
    list of SweepRow
        In the order of the amplitudes. Results are scored as they would be stored: rounded to their type, and clipped
        to [0, 1].

    Raises
    ------
    ModelError
        The model has no noise input or cannot be used.
    ImageError
        Target and source do not fit together, or are not single grey or RGB images.
    """
    sharp, letters = _read_plane(*image_and_axes(target, axes))
    values = ValueMap.of(sharp.dtype, value_range)
    options |= {"model": model, "axes": letters, "value_range": value_range, "seed": seed}
    plan = plan_upscale(sharp, UpscaleOptions(scale=scale, **options))
    require_noise(plan)
    if source is None:
        sharp = sharp[tuple(slice(size // plan.scale * plan.scale) for size in sharp.shape[:2])]
        source = _shrink_image(sharp, plan.scale, values)
    else:
        source, _ = _read_plane(*image_and_axes(source, axes))
        _check_pair(source, sharp, plan.scale)
    truth = _to_planes(sharp, values)
    rows = []
    for number, amplitude in enumerate(amplitudes):
        if progress is not None:
            progress(number, len(amplitudes))
        whole = plan_upscale(source, UpscaleOptions(scale=plan.scale, noise=amplitude, **options)).tiled_image()
        rows.append(_score(float(amplitude), _to_planes(np.asarray(whole), values), truth, features))
    if progress is not None:
        progress(len(amplitudes), len(amplitudes))
    return rows


def as_csv(rows: Sequence[SweepRow]) -> str:
    """Write rows as CSV with a line of names; a missing score is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(SweepRow))
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def _score(amplitude: float, output: Pixels, truth: Pixels, features: Callable[[Tensor], Tensor] | None) -> SweepRow:
    height, width = output.shape[1:]
    has_blocks = (height // BLOCK) * (width // BLOCK) >= 2
    return SweepRow(
        amplitude=amplitude,
        psnr=psnr(output, truth),
        rmse=rmse_y([output], [truth]),
        niqe=niqe(luma(output)) if has_blocks else None,
        contextual=None if features is None else _contextual_similarity(output, truth, features),
    )


def _contextual_similarity(output: Pixels, truth: Pixels, features: Callable[[Tensor], Tensor]) -> float:
    """Return CX of the whole images, at the same sampled positions for every amplitude."""

    @torch.inference_mode()
    def loss() -> float:
        found, wanted = (features(torch.from_numpy(image)[None].float()) for image in (output, truth))
        return float(contextual_loss(found, wanted, generator=torch.Generator().manual_seed(0)))

    return math.exp(-run_on_engine_thread(loss))


def _read_plane(image: Any, axes: str) -> tuple[Pixels, str]:
    """Read (y, x) or (y, x, s) pixels, and return them with the letters of their axes."""
    sizes = dict(zip(axes, image.shape, strict=True))
    if any(sizes[axis] != 1 for axis in axes if axis not in "yxs") or sizes.get("s", 1) not in (1, 3):
        raise ImageError(
            f"the image has the axes {axes!r} of {tuple(image.shape)}; a sweep scores a single grey or RGB plane, "
            "so cut one out."
        )
    kept = "yxs" if sizes.get("s") == 3 else "yx"
    whole = tuple(slice(0, size) for size in image.shape)
    pixels = np.asarray(image[whole]).transpose(
        [axes.index(axis) for axis in kept] + [number for number, axis in enumerate(axes) if axis not in kept]
    )
    return pixels.reshape(pixels.shape[: len(kept)]), kept


def _check_pair(source: Pixels, target: Pixels, scale: int) -> None:
    expected = (source.shape[0] * scale, source.shape[1] * scale, *source.shape[2:])
    if expected != target.shape or source.dtype != target.dtype:
        raise ImageError(
            f"source {source.shape} {source.dtype} and target {target.shape} {target.dtype} do not belong together: "
            f"upscaled {scale} times, the source has the shape {expected}."
        )


def _to_planes(image: Pixels, values: ValueMap) -> Pixels:
    """Convert (y, x) or (y, x, s) to (C, H, W), clipped to [0, 1]."""
    unit = np.clip(values.to_unit(image), 0, 1)
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(unit), 2, 0))


def _shrink_image(image: Pixels, scale: int, values: ValueMap) -> Pixels:
    """Shrink an image bicubically (S_f) and round it to its type."""
    planes = np.moveaxis(np.atleast_3d(values.to_unit(image)), 2, 0)
    tensor = torch.from_numpy(np.ascontiguousarray(planes))[None]
    small = run_on_engine_thread(lambda: shrink(tensor, scale))[0].numpy()
    return np.moveaxis(values.from_unit(small), 0, 2).reshape(*small.shape[1:], *image.shape[2:])
