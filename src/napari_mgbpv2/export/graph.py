"""The graph that is exported: a source image in, the upscaled image out, of any size.

The network itself works at target resolution, on natural sizes. Other programs are spared both: bicubic upscaling, the
reflected border and its cutting are in the graph, in operations whose sizes stay open when they are traced, scripted or
exported, and that give the same bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import MGBPv2, Network, configurations


class UpscalingGraph(nn.Module):
    """What a program needs to upscale an image by a network.

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
        Noise is asked of a network that takes none.
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
        # that of `bicubic_resize`, which cannot be scripted
        image = F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)
        total = torch.zeros_like(image)
        if noise is not None:
            image = torch.cat([image, noise], dim=1)
        for member in self.members:
            total = total + member(image)
        return total


class BorderedNetwork(nn.Module):
    """A network with what `MGBPv2.forward` does around it for sizes that are not natural, without a branch.

    Parameters
    ----------
    network
        Takes and gives images of a natural size.
    config
        Of the network.
    """

    def __init__(self, network: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        self.network = network
        self.smallest, self.alignment = config.smallest, config.alignment
        self.border_multiple = config.border_multiple

    def forward(self, image: Tensor) -> Tensor:
        """Reflect the border, run the network, and cut the border off: (B, any, H, W) to (B, C, H, W)."""
        height, width = image.size(2), image.size(3)
        image = image.index_select(2, self.mirrored(height, image)).index_select(3, self.mirrored(width, image))
        result: Tensor = self.network(image)
        rows = torch.arange(height, device=image.device) + self.before(height)
        columns = torch.arange(width, device=image.device) + self.before(width)
        return result.index_select(2, rows).index_select(3, columns)

    def natural(self, size: int) -> int:
        """`ModelConfig.natural_up`."""
        steps = (size - self.smallest + self.alignment - 1) // self.alignment
        return self.smallest + _larger(steps, 0) * self.alignment

    def before(self, size: int) -> int:
        """The first of `ModelConfig.border`."""
        missing = self.natural(size) - size
        before = missing - missing // 2
        return before - before % self.border_multiple

    def mirrored(self, size: int, image: Tensor) -> Tensor:
        """`network.reflect` of all positions of the padded image."""
        positions = torch.arange(self.natural(size), device=image.device) - self.before(size)
        period = torch.full_like(positions, _larger(2 * (size - 1), 1))
        folded = positions % period
        return torch.minimum(folded, period - folded)


class _NoiseAsChannels(nn.Module):
    """A network that takes its noise as further channels of the image: border and cutting then see one tensor."""

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
    """The larger of two sizes, as an operation of the graph."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return max(a, b)
    larger: int = torch.sym_max(a, b)  # type: ignore[no-untyped-call]
    return larger
