"""The MGBPv2 network: Algorithm 1 of the paper.

P. Navarrete Michelini, W. Chen, H. Liu, D. Zhu: "MGBPv2: Scaling Up Multi-Grid Back-Projection Networks",
ICCV Workshops 2019, arXiv 1909.12983.

Levels are counted here as in the published files: 0 is the lowest resolution, L-1 the target resolution
(the paper counts 1 to L). All convolutions are valid (no padding). A reflected border extends the image to a natural
size and is cropped at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.model.config import ModelConfig


class MGBPv2(nn.Module):
    """Multi-Grid Back-Projection network, version 2 (Algorithm 1).

    Parameters
    ----------
    config
        Levels, steps, features and kernel; see `ModelConfig`.

    Attributes
    ----------
    scale
        Upscaling factor that the weights were trained for; None if unknown.
    guard
        Target pixels at the border of a tile that its border affects, as measured on the weights; None if unknown.

    Notes
    -----
    Input and output have the same size, the target resolution. The caller upscales the source image bicubically.
    `forward` stores nothing on the module, so several threads can use one network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.scale: int | None = None
        self.guard: int | None = None
        features, top = config.features, config.levels - 1
        for name, level in scaling_modules(config):
            low, high = features[level - 1], features[level]
            if name.startswith("Downscale"):
                self.add_module(name, nn.Conv2d(high, low, config.kernel, stride=2, bias=config.bias))
            else:
                channels = 2 * low + config.noise_channels
                upscale = nn.ConvTranspose2d(channels, high, config.kernel, stride=2, bias=config.bias)
                # In place: the concatenated features are not used again, and are the largest ones.
                self.add_module(name, nn.Sequential(nn.ReLU(inplace=True), upscale))
        for level in range(config.levels):
            kernel, stride = config.analysis_kernel(level), config.analysis_stride(level)
            if config.residual:
                padding = kernel // 2 if level == top else 0
                analysis: nn.Conv2d = ZeroSumConv2d(config.channels, features[level], kernel, stride, padding)
            else:
                analysis = nn.Conv2d(config.channels, features[level], kernel, stride, bias=config.bias)
            self.add_module(f"Analysis_{level}", analysis)
        for level in range(config.levels if config.noise_channels else 0):
            kernel, stride = config.analysis_kernel(level), config.analysis_stride(level)
            # In the published networks the noise analysis has a bias even if no other convolution has one.
            self.add_module(f"AnalysisN_{level}", nn.Conv2d(config.channels, config.noise_channels, kernel, stride))
        self.add_module("Synthesis", nn.Conv2d(features[top], config.channels, 1, bias=config.bias))

    def forward(self, image: Tensor, noise: Tensor | None = None, noise_amplitude: float | Tensor = 0.0) -> Tensor:
        """Restore the details of a bicubically upscaled image.

        Parameters
        ----------
        image
            (B, C, H, W), float, values nominally in [0, 1], at target resolution.
        noise
            (B, C, H, W), standard normal. Needed only if ``noise_amplitude`` is not 0.
        noise_amplitude
            W of the paper: 0 for fidelity, 1 for perceptual quality. A number, or (B,) with one per image.

        Returns
        -------
        Tensor
            (B, C, H, W).

        Raises
        ------
        ImageError
            The image or the noise has another shape.
        ModelError
            The noise amplitude is not 0 and the network has no noise input.
        """
        config = self.config
        if image.ndim != 4 or image.shape[1] != config.channels or 0 in image.shape:
            raise ImageError(
                f"the network takes (batch, {config.channels}, height, width), none of them 0; "
                f"this image is {tuple(image.shape)}."
            )
        amplitude = _amplitude(noise_amplitude, image)
        if amplitude is not None:
            if not config.noise_channels:
                raise ModelError("this model has no noise input; use noise amplitude 0 or another model.")
            if noise is None or noise.shape != image.shape:
                raise ImageError("a noise amplitude other than 0 needs noise of the shape of the image.")
            noise = pad_to_natural(noise, config)
        height, width = image.shape[-2:]
        image = pad_to_natural(image, config)

        analysed = [self._module(f"Analysis_{level}")(image) for level in range(config.levels)]
        u = analysed.pop()  # The recursion starts with the features of the highest level.
        noises = self._noise_features(analysed, noise, amplitude)
        for _ in range(config.cycles):
            u = self._back_project(u, config.levels - 1, analysed, noises, counters=(0,) * (config.levels - 1))
        output: Tensor = self._module("Synthesis")(u)
        if config.residual:
            output = output + image
        (top, _), (left, _) = config.border(height), config.border(width)
        return output[..., top : top + height, left : left + width]

    def _back_project(
        self, u: Tensor, level: int, analysed: list[Tensor], noises: list[Tensor | None], counters: tuple[int, ...]
    ) -> Tensor:
        """Refine the features ``u`` of ``level`` by mu steps through the level below: BP of Algorithm 1."""
        if level == 0:
            return u
        for step in range(self.config.steps):
            counters = (*counters[: level - 1], step, *counters[level:])
            label = module_label(level, counters, self.config.steps)
            below = self._module(f"Downscale_{label}")(u)
            below = self._back_project(below, level - 1, analysed, noises, counters)
            concatenated = [analysed[level - 1], below]
            noise = noises[level - 1]
            if noise is not None:
                concatenated.append(noise)
            update: Tensor = self._module(f"Upscale_{label}")(torch.cat(concatenated, dim=1))
            u = update.add_(u)
        return u

    def _noise_features(
        self, analysed: list[Tensor], noise: Tensor | None, amplitude: Tensor | None
    ) -> list[Tensor | None]:
        """Return the noise features of each level but the highest, or None for each without a noise input."""
        if not self.config.noise_channels:
            return [None] * (self.config.levels - 1)
        features: list[Tensor | None] = []
        for level, image in enumerate(analysed):
            if amplitude is None:
                batch, _, height, width = image.shape
                features.append(image.new_zeros(batch, self.config.noise_channels, height, width))
            else:
                features.append(amplitude * self._module(f"AnalysisN_{level}")(noise))
        return features

    def _module(self, name: str) -> nn.Module:
        module = self._modules[name]
        assert module is not None
        return module


class ZeroSumConv2d(nn.Conv2d):
    """A convolution without bias whose kernels sum to zero for each input channel, which makes it ignore offsets.

    Parameters
    ----------
    in_channels, out_channels
        Number of channels.
    kernel_size
        Height and width of the kernel in pixels.
    stride
        Pixels between results, along both axes.
    padding
        Reflected pixels at each side, without repeating those of the edge.

    Notes
    -----
    ``weight`` may have any values, for example rounded ones of a file in half precision. `zero_sum_weight` is applied.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False, padding_mode="reflect")

    @property
    def zero_sum_weight(self) -> Tensor:
        """The weight minus its mean over each kernel, (out_channels, in_channels, K, K)."""
        return self.weight - self.weight.mean(dim=(2, 3), keepdim=True)

    def forward(self, image: Tensor) -> Tensor:
        """Convolve (B, in_channels, H, W) images."""
        result: Tensor = self._conv_forward(image, self.zero_sum_weight, None)
        return result


class Ensemble(nn.Module):
    """The fidelity ensemble: the sum of several networks' outputs.

    The published one is the sum, and not the mean, of a K=3, a K=5 and a K=7 network: their weights include the
    shares. Names of tensors begin with ``model0.``, ``model1.``, ... The members get no noise.
    """

    def __init__(self, configs: Sequence[ModelConfig]) -> None:
        super().__init__()
        if not configs or len({config.channels for config in configs}) != 1:
            raise ModelError("an ensemble needs at least one network, and all of them the same number of channels.")
        if any(config.residual for config in configs):
            raise ModelError("an ensemble is the sum of its networks, which must not be residual.")
        self.configs = tuple(configs)
        self.scale: int | None = None
        self.guard: int | None = None
        for index, config in enumerate(configs):
            self.add_module(f"model{index}", MGBPv2(config))

    def forward(self, image: Tensor, noise: Tensor | None = None, noise_amplitude: float | Tensor = 0.0) -> Tensor:
        """Return the sum of the members' outputs, (B, C, H, W), for (B, C, H, W) images. The noise is not used."""
        outputs = [member(image) for member in self.children()]
        total: Tensor = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total


Network = MGBPv2 | Ensemble


def configurations(network: Network) -> tuple[ModelConfig, ...]:
    """Return the configuration of each member: one for `MGBPv2`, several for `Ensemble`."""
    return (network.config,) if isinstance(network, MGBPv2) else network.configs


def accepts_noise(network: Network) -> bool:
    """Return whether noise changes the output of a network: it has a noise input and is not an ensemble."""
    return isinstance(network, MGBPv2) and network.config.noise_channels > 0


def module_label(level: int, counters: Sequence[int], steps: int) -> str:
    """Return the label of a Downscale or Upscale module, the ``tag`` of Algorithm 1.

    >>> module_label(2, (1, 0), 2)
    '2-1-0'

    Parameters
    ----------
    level
        1 to L-1.
    counters
        Step counters of the levels 1 to L-1. Those from ``level`` upwards matter.
    steps
        mu.

    Notes
    -----
    In the published files the counters of lower levels are not reset between steps: they are 0 before the first pass
    and keep their last value mu-1 afterwards.
    """
    current = tuple(counters[level - 1 :])
    lower = 0 if not any(current) else steps - 1
    return "-".join(map(str, (level, *[lower] * (level - 1), *current)))


def scaling_modules(config: ModelConfig) -> Iterator[tuple[str, int]]:
    """Yield name and level of each Downscale and Upscale module, in the order of a dry run of Algorithm 1."""

    def visit(level: int, counters: tuple[int, ...]) -> Iterator[tuple[str, int]]:
        if level == 0:
            return
        for step in range(config.steps):
            counters = (*counters[: level - 1], step, *counters[level:])
            label = module_label(level, counters, config.steps)
            yield f"Downscale_{label}", level
            yield from visit(level - 1, counters)
            yield f"Upscale_{label}", level

    return visit(config.levels - 1, (0,) * (config.levels - 1))


def fold_channels(network: Network) -> Network:
    """Return the one-channel network whose output is the mean of the channels of ``network`` for a repeated channel.

    A grey image through an RGB network needs three equal input channels and the mean of three output channels. Both are
    linear. Weights of the analyses are therefore summed over input channels, and those of the synthesis averaged over
    output channels.
    """
    folded_configs = [replace(config, channels=1) for config in configurations(network)]
    folded = Ensemble(folded_configs) if isinstance(network, Ensemble) else MGBPv2(folded_configs[0])
    folded.scale, folded.guard = network.scale, network.guard
    weights = network.state_dict()
    for name, weight in weights.items():
        module, kind = name.split(".")[-2:]
        if module.startswith("Analysis") and kind == "weight":
            weights[name] = weight.sum(dim=1, keepdim=True)
        elif module == "Synthesis":
            weights[name] = weight.mean(dim=0, keepdim=True)
    folded.load_state_dict(weights)
    return folded.train(network.training)


def pad_to_natural(image: Tensor, config: ModelConfig) -> Tensor:
    """Reflect-pad (B, C, H, W) to the next natural size. A border wider than the image is reflected repeatedly."""
    for axis in (-2, -1):
        size = image.shape[axis]
        before, after = config.border(size)
        if before or after:
            positions = torch.arange(-before, size + after, device=image.device)
            image = image.index_select(axis, reflect(positions, size))
    return image


def reflect(positions: Tensor, size: int) -> Tensor:
    """Return positions mirrored into [0, size) at the centres of the first and last pixel, as often as needed."""
    period = max(2 * (size - 1), 1)
    folded = positions % period
    return torch.minimum(folded, period - folded) if size > 1 else torch.zeros_like(positions)


def _amplitude(value: float | Tensor, image: Tensor) -> Tensor | None:
    """Return (B, 1, 1, 1) amplitudes, or None if all are zero, so that leaving out the noise is exact."""
    amplitude = torch.as_tensor(value, dtype=image.dtype, device=image.device)
    if amplitude.ndim > 1 or (amplitude.ndim == 1 and amplitude.shape[0] != image.shape[0]):
        raise ImageError(f"the noise amplitude must be one number or one per image; it is {tuple(amplitude.shape)}.")
    if not bool(amplitude.any()):
        return None
    return amplitude.reshape(-1, 1, 1, 1)


def weights_hash(network: Network) -> str:
    """Return the SHA-256 of a network's configuration and weights in hexadecimal, to identify it without a file."""
    found = hashlib.sha256(repr(configurations(network)).encode())
    for name, weights in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(weights.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
