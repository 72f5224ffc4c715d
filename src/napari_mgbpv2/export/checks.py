"""Describe a model to export, and check that an exported file computes the network's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.export.graph import UpscalingGraph
from napari_mgbpv2.imaging.resampling import bicubic_resize
from napari_mgbpv2.model.network import Network, configurations

TOLERANCE = 1e-4  # of the value range, or of the largest value beyond it


@dataclass(frozen=True)
class ExportedModel:
    """Network with its metadata.

    Attributes
    ----------
    network
        Network on the CPU, in evaluation mode.
    scale
        Upscaling factor.
    noise
        Amplitude W of the noise, which is a second input; 0 for the image alone.
    name, trained_on, scores
        Metadata of the model card.
    """

    network: Network
    scale: int
    noise: float = 0.0
    name: str = "model"
    trained_on: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return configurations(self.network)[0].channels

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs of the graph."""
        return ("image", "noise") if self.noise else ("image",)

    def graph(self) -> UpscalingGraph:
        """Make the graph to export."""
        return UpscalingGraph(self.network, self.scale, self.noise).eval()

    def inputs(self, height: int, width: int, batch: int = 1) -> tuple[Tensor, ...]:
        """Make random inputs of the graph, the image of ``height`` x ``width`` pixels."""
        generator = torch.Generator().manual_seed(height * width)
        image = torch.rand(batch, self.channels, height, width, generator=generator)
        if not self.noise:
            return (image,)
        larger = (batch, self.channels, height * self.scale, width * self.scale)
        return image, torch.randn(larger, generator=generator)

    def expected(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Compute the output for the inputs of the graph by the network itself."""
        height, width = image.shape[-2:]
        with torch.inference_mode():
            larger = bicubic_resize(image, height * self.scale, width * self.scale)
            result: Tensor = self.network(larger, noise, self.noise)
        return result

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Heights and widths to try: around the smallest natural size, and far below it."""
        smallest = max(config.smallest for config in configurations(self.network))
        side = -(-smallest // self.scale)
        return (side + 1, side + 6), (side + 4, side + 2), (1, 2)


def check_outputs(model: ExportedModel, run: Callable[..., Tensor], what: str) -> None:
    """Compare the outputs of an exported file with those of the network, at several sizes and a batch of two.

    Raises
    ------
    ModelError
        They differ by more than `TOLERANCE`.
    """
    for batch, (height, width) in enumerate(model.sizes(), start=1):
        inputs = model.inputs(height, width, min(batch, 2))
        expected, result = model.expected(*inputs), run(*inputs)
        difference = float((result - expected).abs().max()) if result.shape == expected.shape else float("inf")
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise ModelError(
                f"{what} of {model.name} gives other pixels than the network, by {difference:.1e} on an image of "
                f"{height} x {width} px, and was not kept; try another form."
            )
