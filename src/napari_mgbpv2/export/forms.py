"""Export a model in one of the supported forms (file formats)."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.export.bioimageio_package import write_bioimageio
from napari_mgbpv2.export.checks import ExportedModel
from napari_mgbpv2.export.onnx_file import write_onnx
from napari_mgbpv2.export.torch_files import write_torch_export, write_torchscript
from napari_mgbpv2.model.checkpoints import (
    atomic_model_file,
    export_model,
    find_model_file,
    load_model,
    make_card,
    save_model,
)
from napari_mgbpv2.model.network import fold_channels
from napari_mgbpv2.model.zoo import WEIGHTS_FOLDER, find_published_by_path

FORMS = {  # file name extensions by form
    "safetensors": (".safetensors",),
    "authors": (".model", ".pth"),
    "torch-export": (".pt2",),
    "torchscript": (".pt",),
    "onnx": (".onnx",),
    "bioimageio": (".zip",),
}
_WEIGHTS_ALONE = ("safetensors", "authors")
_GRAPHS: dict[str, Callable[..., object]] = {
    "torch-export": write_torch_export,
    "torchscript": write_torchscript,
    "onnx": write_onnx,
    "bioimageio": write_bioimageio,
}

_PROJECT_AUTHORS: dict[str, Any] = {"authors": ["napari-mgbpv2 developers"], "licence": "BSD-3-Clause"}
_PAPER_AUTHORS: dict[str, Any] = {
    "authors": ["Pablo Navarrete Michelini", "Wenbin Chen", "Hanwen Liu", "Dan Zhu"],
    "licence": None,
}


def export(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    form: str | None = None,
    *,
    scale: int | None = None,
    grey: bool = False,
    noise: float = 0.0,
    precision: Literal["float32", "float16"] = "float32",
    authors: list[str] | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model in a form that other programs, or other versions of this one, read.

    Graphs are run and compared with the network before they get their final name.

    Parameters
    ----------
    source
        Packaged name or file of a model.
    destination
        The file to write.
    form
        One of `FORMS`; by default the one of the destination's extension. "safetensors" and "authors" contain only
        weights, the others a graph that upscales an image of any size, see `UpscalingGraph`.
    scale
        Upscaling factor, for model files without one.
    grey
        Whether to write the equivalent network of one channel for grey images, see `fold_channels`.
    noise
        Amplitude W of the noise that a graph takes as a second input; 0 for none.
    precision
        Precision of the weights in a ``.safetensors`` file; all else is float32.
    authors, licence
        Authors and licence of the weights, for a BioImage Model Zoo package; known for packaged and published models.
    overwrite
        Whether the destination may be replaced.

    Returns
    -------
    Path
        The destination.

    Raises
    ------
    ModelError
        The model or the form is unknown, they or the options do not fit together, the destination exists or cannot be
        written, a package is missing, or the exported file computes other pixels than the network.
    """
    destination = Path(destination)
    form = _resolve_form(destination, form)
    if form in _WEIGHTS_ALONE and noise:
        raise ModelError(
            f"the form {form} holds weights alone: noise is said when they are used, not when they are written."
        )
    if form != "safetensors" and precision != "float32":
        raise ModelError(f"the form {form} holds float32; float16 is for safetensors.")
    path = find_model_file(source)
    network = load_model(path, scale=scale)
    card = make_card(path, network)
    if grey:
        network = fold_channels(network).requires_grad_(False)
    if form == "safetensors":
        metadata: dict[str, Any] = {"trained_on": card.trained_on, "scores": card.scores, "training": card.training}
        return save_model(network, destination, precision=precision, overwrite=overwrite, **metadata)
    if form == "authors":
        return export_model(network, destination, overwrite=overwrite)
    if network.scale is None:
        raise ModelError(f"{path}: does not say its scale; give one.")
    model = ExportedModel(network, network.scale, noise, card.name, card.trained_on, card.scores)
    write = _GRAPHS[form]
    if form == "bioimageio":
        by_default = (
            _PROJECT_AUTHORS
            if path.parent == WEIGHTS_FOLDER
            else _PAPER_AUTHORS
            if find_published_by_path(path)
            else {}
        )
        requested = {"authors": authors, "licence": licence}
        write = partial(write, **by_default | {name: value for name, value in requested.items() if value})
    with atomic_model_file(destination, overwrite=overwrite) as partial_file:
        write(model, partial_file)
    return destination


def _resolve_form(destination: Path, form: str | None) -> str:
    if form is None:
        for name, endings in FORMS.items():
            if destination.suffix in endings:
                return name
        known = ", ".join(f"{ending} ({name})" for name, endings in FORMS.items() for ending in endings)
        raise ModelError(f"{destination}: its ending says no form; use one of {known}, or name the form.")
    if form not in FORMS:
        raise ModelError(f"there is no form {form!r}; choose one of {', '.join(FORMS)}.")
    if destination.suffix not in FORMS[form]:
        raise ModelError(f"{destination}: files of the form {form} end in {' or '.join(FORMS[form])}.")
    return form
