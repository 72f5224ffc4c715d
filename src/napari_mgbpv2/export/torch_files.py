"""Write files for torch without this package: `torch.export` programs and TorchScript."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_mgbpv2.export.checks import ExportedModel, check_outputs
from napari_mgbpv2.model.network import configurations

EXAMPLE = (2, 7, 9)  # batch, height and width during export; torch would specialise on 0 and 1


def open_sizes(scale: int, noise: bool) -> tuple[dict[int, Any], ...]:
    """Return the dynamic axes of the inputs, with the size of the noise derived from the image's."""
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    image = {0: batch, 2: height, 3: width}
    return (image, {0: batch, 2: scale * height, 3: scale * width}) if noise else (image,)


def write_torch_export(model: ExportedModel, path: Path) -> None:
    """Write a program of `torch.export` (``.pt2``) and check it. It computes on the CPU."""
    batch, height, width = EXAMPLE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            model.graph(),
            model.inputs(height, width, batch),
            dynamic_shapes=open_sizes(model.scale, model.noise != 0),
            strict=False,
        )
        torch.export.save(program, path)
        check_outputs(model, torch.export.load(path).module(), "the torch.export program")


def write_torchscript(model: ExportedModel, path: Path) -> None:
    """Write TorchScript (``.pt``) and check it. It computes on any device."""
    graph = model.graph()
    channels = len(model.input_names) * model.channels
    with warnings.catch_warnings():  # torch prefers torch.export by now, which other programs do not read
        warnings.simplefilter("ignore")
        for member, config in zip(graph.members, configurations(model.network), strict=True):
            size = config.natural_up(config.smallest + 1)  # no branch depends on sizes, as long as they are natural
            example = torch.rand(1, channels, size, size + config.alignment)
            member.network = torch.jit.trace(member.network, example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(torch.jit.script(graph), path)
        loaded: nn.Module = torch.jit.load(path)  # type: ignore[no-untyped-call]
        check_outputs(model, loaded, "the TorchScript")
