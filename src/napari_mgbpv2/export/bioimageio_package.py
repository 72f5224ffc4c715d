"""Packages of the BioImage Model Zoo (https://bioimage.io): weights, description, and a test image."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.export.checks import TOLERANCE, ExportedModel
from napari_mgbpv2.export.onnx_file import OUTPUT, write_onnx
from napari_mgbpv2.export.torch_files import write_torchscript
from napari_mgbpv2.model.network import configurations

SAMPLE = Path(__file__).parents[1] / "samples" / "astronaut.png"
SMALLEST_IMAGE = 16  # smallest size per axis that a package declares; the graph takes any
_TEST_PIXELS = 256  # along an axis of the test output, about
_PAPER = "P. Navarrete Michelini, W. Chen, H. Liu, D. Zhu: MGBPv2, ICCV Workshops 2019"
_PAPER_URL = "https://arxiv.org/abs/1909.12983"

_README = """\
# {name}

Upscales images {scale} times along y and x with the Multi-Grid Back-Projection network, version 2 ({paper},
{url}). Trained on: {trained_on}.

Input: {channels} in 32-bit floats, black 0 and white 1 (8-bit values divided by 255). Output: the same, {scale} times
larger; values are not clipped. The bicubic upscaling that comes before the network is part of the weights, and so is
the reflected border that makes any size fit. The noise of the network is 0.

In tiles, an image comes out nearly, not exactly, as in one piece: let them overlap by {overlap} px of the input.
`napari-mgbpv2`, which wrote this package, places them so that there is no difference.

## Validation

{scores}

Every weights file was compared with its network on images of several sizes before packaging: they differ by less than
{tolerance} of the value range.
"""


def write_bioimageio(
    model: ExportedModel, path: Path, *, authors: Sequence[str] = (), licence: str | None = None
) -> None:
    """Write a package (``.zip``) with ONNX and TorchScript weights; `bioimageio.core` reproduces its test output.

    Parameters
    ----------
    model
        Model to write.
    path
        The ``.zip`` file to write.
    authors
        Authors of the weights.
    licence
        Licence of the weights, an SPDX identifier.

    Raises
    ------
    ModelError
        The packages of the extra ``bioimageio`` are missing or do not go together, the model takes noise, the licence
        is unknown, or a check has failed.
    """
    if model.noise:
        raise ModelError("a package of the BioImage Model Zoo takes the image alone: export it with noise 0.")
    try:
        from bioimageio.core import test_model
        from bioimageio.spec import save_bioimageio_package
        from loguru import logger
    except ImportError as error:
        raise ModelError(
            'BioImage Model Zoo packages are written by the extra "bioimageio": '
            f'`pip install "napari-mgbpv2[bioimageio]"` ({error}).'
        ) from error
    logger.disable("bioimageio")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".bioimageio-") as folder:
            description = _describe(model, Path(folder), authors, licence)
            save_bioimageio_package(description, output_path=path)
        summary = test_model(path, devices=["cpu"])
    except ModelError:
        raise
    except Exception as error:  # errors of pydantic and of the backends
        raise ModelError(f"{path}: bioimageio does not accept the package of {model.name}: {_reason(error)}") from error
    finally:
        logger.enable("bioimageio")
    if summary.status != "passed":
        problems = [entry.msg for detail in summary.details for entry in detail.errors]
        raise ModelError(f"{path}: bioimageio.core cannot use the package of {model.name}: {'; '.join(problems)}.")


def _describe(model: ExportedModel, folder: Path, authors: Sequence[str], licence: str | None) -> Any:
    """Write the files of a package into a folder and return its description."""
    import bioimageio.spec.model.v0_5 as spec

    def file(name: str) -> Any:
        return spec.FileDescr(source=folder / name)

    image = _test_image(model)
    np.save(folder / "test_input.npy", image.numpy())
    np.save(folder / "test_output.npy", model.expected(image).numpy())
    (folder / "README.md").write_text(_readme(model), encoding="utf-8")
    opset = write_onnx(model, folder / "weights.onnx")
    write_torchscript(model, folder / "weights.pt")

    names = {3: ["red", "green", "blue"], 1: ["intensity"]}.get(model.channels)
    names = names or [f"channel{number}" for number in range(model.channels)]
    ahead = [spec.BatchAxis(), spec.ChannelAxis(channel_names=[spec.Identifier(name) for name in names])]
    size = spec.ParameterizedSize(min=SMALLEST_IMAGE, step=1)
    source, result = spec.TensorId("image"), spec.TensorId(OUTPUT)
    return spec.ModelDescr(
        name=f"MGBPv2 {''.join(letter if letter.isalnum() and letter.isascii() else '-' for letter in model.name)}",
        description=f"Upscales images {model.scale} times: multi-grid back-projection super-resolution.",
        authors=[spec.Author(name=author) for author in authors],
        cite=[spec.CiteEntry(text=_PAPER, url=spec.HttpUrl(_PAPER_URL))],
        license=licence,
        documentation=file("README.md"),
        tags=["super-resolution", "image-restoration", "2d"],
        inputs=[
            spec.InputTensorDescr(
                id=source,
                axes=[*ahead, *(spec.SpaceInputAxis(id=spec.AxisId(axis), size=size) for axis in "yx")],
                data=spec.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
                test_tensor=file("test_input.npy"),
            )
        ],
        outputs=[
            spec.OutputTensorDescr(
                id=result,
                axes=[
                    *ahead,
                    *(
                        spec.SpaceOutputAxis(
                            id=spec.AxisId(axis),
                            scale=1 / model.scale,
                            size=spec.SizeReference(tensor_id=source, axis_id=spec.AxisId(axis)),
                        )
                        for axis in "yx"
                    ),
                ],
                data=spec.IntervalOrRatioDataDescr(type="float32"),
                test_tensor=file("test_output.npy"),
            )
        ],
        weights=spec.WeightsDescr(
            torchscript=spec.TorchscriptWeightsDescr(
                source=folder / "weights.pt", pytorch_version=spec.Version(torch.__version__.split("+")[0])
            ),
            onnx=spec.OnnxWeightsDescr(source=folder / "weights.onnx", opset_version=opset, parent="torchscript"),
        ),
        config=spec.Config(
            bioimageio=spec.BioimageioConfig(
                reproducibility_tolerance=[
                    spec.ReproducibilityTolerance(absolute_tolerance=TOLERANCE, relative_tolerance=TOLERANCE)
                ]
            )
        ),
    )


def _test_image(model: ExportedModel) -> Tensor:
    """Return (1, C, height, width): a crop of the sample photograph, grey for one channel; noise for other numbers."""
    from PIL import Image

    height = max(SMALLEST_IMAGE, _TEST_PIXELS // model.scale)
    width = height + SMALLEST_IMAGE // 2
    if model.channels not in (1, 3):
        return model.inputs(height, width)[0]
    with Image.open(SAMPLE) as photograph:
        part = photograph.convert("L" if model.channels == 1 else "RGB").crop((60, 20, 60 + width, 20 + height))
    pixels = np.asarray(part, dtype=np.float32).reshape(1, height, width, model.channels) / 255
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _readme(model: ExportedModel) -> str:
    reach = max(config.reach for config in configurations(model.network))
    guard = reach if model.network.guard is None else model.network.guard
    scores = "\n".join(f"- {name.replace('_', ' ')}: {value:g}" for name, value in model.scores.items())
    return _README.format(
        name=model.name,
        scale=model.scale,
        paper=_PAPER,
        url=_PAPER_URL,
        trained_on=model.trained_on or "unknown images",
        channels={1: "one channel", 3: "red, green and blue"}.get(model.channels, f"{model.channels} channels"),
        overlap=2 * -(-guard // model.scale),
        scores=scores or "No scores are known.",
        tolerance=TOLERANCE,
    )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any("index_key" in line for line in lines):  # what bioimageio.spec up to 0.5.13 gives pydantic
        return 'its version does not go with that of pydantic; `pip install "pydantic<2.14"`.'
    return f"{': '.join(lines[:3]) or type(error).__name__}."
