"""Build the exported graph, which upscales an image of any size.

The network itself works at target resolution, on natural sizes. The graph includes bicubic upscaling, the reflected
border and its removal. Its operations keep dynamic sizes when they are traced, scripted or exported, and compute the
same bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import MGBPv2, Network, configurations


class UpscalingGraph(nn.Module):
    """Graph of a network with bicubic upscaling and border.

    Parameters
    ----------
    network
        The network, on the CPU.
    scale
        Upscaling factor.
    noise
        Amplitude W of the noise; with 0 the graph takes the image alone.

    Raises
    ------
    ModelError
        Noise is requested, and the network has no noise input.
    """

    def __init__(self, network: Network, scale: int, noise: float = 0.0) -> None:
        super().__init__()
        configs = configurations(network)
        if noise and not (isinstance(network, MGBPv2) and configs[0].noise_channels):
            raise ModelError("this model has no noise input; export it with noise 0.")
        self.scale = scale
        members = [network] if isinstance(network, MGBPv2) else list(network.children())
        self.members = nn.ModuleList(
            BorderedNetwork(_NoiseAsChannels(member, config.channels, noise), config)
            for member, config in zip(members, configs, strict=True)
        )

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Upscale images.

        Parameters
        ----------
        image
            (B, C, H, W), float32, nominally in [0, 1].
        noise
            (B, C, scale H, scale W), standard normal; only for a graph with noise.

        Returns
        -------
        Tensor
            (B, C, scale H, scale W).
        """
        size = [image.size(2) * self.scale, image.size(3) * self.scale]
        # the same as `bicubic_resize`, which cannot be scripted
        image = F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)
        total = torch.zeros_like(image)
        if noise is not None:
            image = torch.cat([image, noise], dim=1)
        for member in self.members:
            total = total + member(image)
        return total


class BorderedNetwork(nn.Module):
    """Network with the border that `MGBPv2.forward` adds for sizes that are not natural, without a branch.

    Parameters
    ----------
    network
        Network on images of a natural size.
    config
        Configuration of the network.
    """

    def __init__(self, network: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        self.network = network
        self.smallest, self.alignment = config.smallest, config.alignment
        self.border_multiple = config.border_multiple

    def forward(self, image: Tensor) -> Tensor:
        """Add a reflected border, run the network and crop: (B, any, H, W) to (B, C, H, W)."""
        height, width = image.size(2), image.size(3)
        image = image.index_select(2, self.mirrored(height, image)).index_select(3, self.mirrored(width, image))
        result: Tensor = self.network(image)
        rows = torch.arange(height, device=image.device) + self.before(height)
        columns = torch.arange(width, device=image.device) + self.before(width)
        return result.index_select(2, rows).index_select(3, columns)

    def natural(self, size: int) -> int:
        """Return the next natural size, as `ModelConfig.natural_up`."""
        steps = (size - self.smallest + self.alignment - 1) // self.alignment
        return self.smallest + _larger(steps, 0) * self.alignment

    def before(self, size: int) -> int:
        """Return the border before the image, the first of `ModelConfig.border`."""
        missing = self.natural(size) - size
        before = missing - missing // 2
        return before - before % self.border_multiple

    def mirrored(self, size: int, image: Tensor) -> Tensor:
        """Return the reflected source position of each position of the padded image."""
        positions = torch.arange(self.natural(size), device=image.device) - self.before(size)
        period = torch.full_like(positions, _larger(2 * (size - 1), 1))
        folded = positions % period
        return torch.minimum(folded, period - folded)


class _NoiseAsChannels(nn.Module):
    """Network whose noise is passed as further channels of the image, so that border and crop handle one tensor."""

    def __init__(self, network: nn.Module, channels: int, noise: float) -> None:
        super().__init__()
        self.network, self.channels, self.noise = network, channels, noise

    def forward(self, image: Tensor) -> Tensor:
        if self.noise == 0:
            result: Tensor = self.network(image)
        else:
            result = self.network(image[:, : self.channels], image[:, self.channels :], self.noise)
        return result


def _larger(a: int, b: int) -> int:
    """Return the larger of two sizes, as an operation of the graph."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return max(a, b)
    larger: int = torch.sym_max(a, b)  # type: ignore[no-untyped-call]
    return larger
