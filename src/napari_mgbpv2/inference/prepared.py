"""A network made ready to be run: the recursion of Algorithm 1 without what it does twice or for nothing.

- What comes from the image is rectified once a level, for all upscalings from it. Nothing is concatenated.
- The noise is left out where there is none.
- The biases of the upscalings are added in those of the convolutions before them. A downscaling that so sees some of
  them too early takes their share away again, in its own bias: its kernel never leaves the image.
- Nothing stands between the last upscaling and the synthesis. Their product has the channels of the image.
- What only the outer rows of a tile need is left out where these are not wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mgbpv2.inference.extents import Extent, StepExtents, plan_extents
from napari_mgbpv2.inference.products import convolutions_are_faster, convolve, has_onednn
from napari_mgbpv2.inference.upscaling_steps import ConvolutionStep, ProductStep, UpscalingStep, pixels
from napari_mgbpv2.inference.workspace import Workspace
from napari_mgbpv2.network import MGBPv2, module_label

# torch's convolutions to fewer pixels share out the sums between threads, and are rounded by how many there are.
FEW_PIXELS = 1024
# The memory for results of so many numbers is used again and again; for larger ones, the system gives new memory.
STRIP_NUMBERS = 1_000_000


@dataclass(frozen=True)
class _Convolution:
    """A convolution without padding; its weight is stored channels last."""

    weight: Tensor
    bias: Tensor | None
    stride: int

    def __call__(self, image: Tensor, workspace: Workspace, name: str) -> Tensor:
        """Convolve; a large result stands in the workspace, and is filled strip by strip."""
        if image.device.type != "cpu":
            return F.conv2d(image, self.weight, self.bias, self.stride)
        channels, _, side, _ = self.weight.shape
        height, width = ((size - side) // self.stride + 1 for size in image.shape[2:])
        if height * width < FEW_PIXELS and image.dtype == torch.float32 and has_onednn():
            return self._convolve_few(image)
        strips = height * width * channels // STRIP_NUMBERS
        if strips < 2:
            return F.conv2d(image, self.weight, self.bias, self.stride)
        result = workspace.take(name, height, width, channels, like=image)
        for first, last in pairwise(height * strip // strips for strip in range(strips + 1)):
            rows = image[:, :, self.stride * first : self.stride * (last - 1) + side]
            result[first:last] = pixels(F.conv2d(rows, self.weight, self.bias, self.stride))
        return _image(result)

    def _convolve_few(self, image: Tensor) -> Tensor:
        """Do it as a product of what each pixel of the result comes from."""
        side, stride = self.weight.shape[-1], self.stride
        patches = image[0].unfold(1, side, stride).unfold(2, side, stride).permute(1, 2, 3, 4, 0)
        kernel = self.weight.permute(0, 2, 3, 1).flatten(1)[:, :, None, None]
        return convolve(_image(patches.flatten(2)), kernel, self.bias)

    def pointwise(self, image: Tensor, out: Tensor | None = None) -> Tensor:
        """Do the same for a kernel of one pixel as a matrix product, into (h, w, C) memory if there is some."""
        if _is_exact_on_cpu(image) and convolutions_are_faster():
            result = convolve(image, self.weight, self.bias)
            return result if out is None else _image(out.copy_(pixels(result)))
        values, weight = pixels(image).flatten(0, 1), self.weight[:, :, 0, 0].t()
        flat = None if out is None else out.flatten(0, 1)
        if self.bias is None:
            result = torch.mm(values, weight, out=flat)
        else:
            result = torch.addmm(self.bias, values, weight, out=flat)
        return _image(result.view(*image.shape[2:], -1))


Parts = Sequence[Sequence[Tensor]]  # of each level, what comes from the image, and from the noise


@dataclass(frozen=True)
class _Step:
    """One step of the recursion: down, the steps of the level below, and up."""

    down: _Convolution
    below: tuple[_Step, ...]
    up: UpscalingStep


class PreparedNetwork:
    """A network ready to be run on one device, in one precision.

    Parameters
    ----------
    network
        The network. It is not touched, and its weights may change afterwards without any effect here.
    workspace
        Memory for features. Networks that never run at the same time may share it.
    device, dtype
        Where, and in which precision.

    Notes
    -----
    The output is that of the network but for rounding. It depends on image, noise and device alone: not on the number
    of threads, nor on what ran before.
    """

    def __init__(
        self, network: MGBPv2, workspace: Workspace, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.config = config = network.config
        self._workspace, self._dtype = workspace, dtype
        top = config.levels - 1
        preparation = _Preparation(network, workspace, device, dtype)
        self._steps, biases = preparation.steps(top)
        # what the features of the highest level are given in advance, at the start of each cycle
        self._advance = biases.to(device, dtype)
        self._first = preparation.convolution(f"Analysis_{top}", biases)
        self._analyses = [preparation.convolution(f"Analysis_{level}") for level in range(top)]
        noisy = range(top if config.noise_channels else 0)
        self._noise_analyses = [preparation.convolution(f"AnalysisN_{level}") for level in noisy]
        self._synthesis = preparation.convolution("Synthesis")
        self._last_up = preparation.last_upscaling_and_synthesis()

    @torch.inference_mode()
    def __call__(
        self,
        image: Tensor,
        noise: Tensor | None = None,
        noise_amplitude: float = 0.0,
        wanted: tuple[slice, slice] | None = None,
    ) -> Tensor:
        """Restore the details of a bicubically upscaled image.

        Parameters
        ----------
        image
            (1, C, H, W), float32, of natural size.
        noise
            (1, C, H, W), standard normal; needed only where ``noise_amplitude`` is not 0.
        noise_amplitude
            W of the paper.
        wanted
            Rows and columns to give, as slices with start and stop; by default all.

        Returns
        -------
        Tensor
            (1, C, H, W), or what is wanted of it, float32.
        """
        if wanted is None:
            wanted = slice(0, image.shape[2]), slice(0, image.shape[3])
        rows = Extent(wanted[0].start, wanted[0].stop)
        *cycles, (*steps, last) = plan_extents(self.config, image.shape[2], rows)
        image = image.to(self._dtype, memory_format=torch.channels_last)
        if noise_amplitude:
            assert noise is not None
            noise = noise.to(self._dtype, memory_format=torch.channels_last)
        else:
            noise = None
        parts = [self._analyse(level, image, noise, noise_amplitude) for level in range(self.config.levels - 1)]
        features = self._first.pointwise(image, self._take("features", len(self._advance), image))
        for cycle in cycles:
            self._refine(features, 0, self._steps, parts, cycle)
            features += self._advance[:, None, None]
        self._refine(features, 0, self._steps[:-1], parts, steps)
        stack = self._stack(features, 0, self._steps[-1], parts, last)
        output = self._synthesis.pointwise(last.refined.of(features))
        self._last_up.add_to(output, stack)
        return rows.of(output, last.refined.start)[..., wanted[1]].float()

    def _refine(
        self, features: Tensor, first: int, steps: Sequence[_Step], parts: Parts, plan: Sequence[StepExtents]
    ) -> None:
        """BP of Algorithm 1, in place; ``features`` begin with row ``first``, ``parts`` are of the levels below."""
        for step, extents in zip(steps, plan, strict=True):
            stack = self._stack(features, first, step, parts, extents)
            step.up.add_to(extents.refined.of(features, first), stack)

    def _stack(self, features: Tensor, first: int, step: _Step, parts: Parts, extents: StepExtents) -> list[Tensor]:
        """Give what the upscaling of a step reads: what comes from the image, from below, and from the noise."""
        below = step.down(extents.read.of(features, first), self._workspace, f"level {len(parts) - 1}")
        self._refine(below, extents.incoming.start, step.below, parts[:-1], extents.below)
        below = extents.stacked.of(below, extents.incoming.start).clamp_min_(0)
        image, *noise = (extents.stacked.of(part) for part in parts[-1])
        return [image, below, *noise]

    def _analyse(self, level: int, image: Tensor, noise: Tensor | None, amplitude: float) -> list[Tensor]:
        """Give what the upscalings from a level read of the image, and of the noise if there is some."""
        parts = [self._analyses[level](image, self._workspace, f"image {level}").clamp_min_(0)]
        if noise is not None:
            heard = self._noise_analyses[level](noise, self._workspace, f"noise {level}")
            parts.append(heard.mul_(amplitude).clamp_min_(0))
        return parts

    def _take(self, name: str, channels: int, like: Tensor) -> Tensor:
        return self._workspace.take(name, *like.shape[2:], channels, like=like)


class _Preparation:
    """Takes the weights of a network and gives what they become."""

    def __init__(self, network: MGBPv2, workspace: Workspace, device: torch.device, dtype: torch.dtype) -> None:
        self._network, self._config, self._workspace = network, network.config, workspace
        self._device, self._dtype = device, dtype

    def convolution(self, name: str, more_bias: Tensor | None = None) -> _Convolution:
        """Prepare a convolution, with something added to its bias if it has one."""
        module = self._module(name)
        weight = module.weight.detach().to(self._device, self._dtype, memory_format=torch.channels_last, copy=True)
        bias = module.bias
        if bias is not None:
            bias = bias.detach().cpu() if more_bias is None else bias.detach().cpu() + more_bias
            bias = bias.to(self._device, self._dtype, copy=True)
        return _Convolution(weight, bias, module.stride[0])

    def steps(self, level: int, counters: tuple[int, ...] | None = None) -> tuple[tuple[_Step, ...], Tensor]:
        """Prepare the steps of a level, and tell what must be added to its features before the first of them."""
        config = self._config
        biases = torch.zeros(config.features[level])
        steps: list[_Step] = []
        for step in reversed(range(config.steps if level else 0)):
            counters = counters or (0,) * (config.levels - 1)
            counters = (*counters[: level - 1], step, *counters[level:])
            label = module_label(level, counters, config.steps)
            up, down = self._module(f"Upscale_{label}"), self._module(f"Downscale_{label}")
            if up.bias is not None:
                biases = biases + up.bias.detach().cpu()
            below, biases_below = self.steps(level - 1, counters)
            too_early = down.weight.detach().cpu().sum(dim=(2, 3)) @ biases
            convolution = self.convolution(f"Downscale_{label}", biases_below - too_early)
            steps.append(_Step(convolution, below, self._upscaling(up.weight.detach())))
        return tuple(reversed(steps)), biases

    def last_upscaling_and_synthesis(self) -> UpscalingStep:
        """Prepare the last upscaling of the highest level and the synthesis as one."""
        top, steps = self._config.levels - 1, self._config.steps
        label = module_label(top, (steps - 1,) * top, steps)
        up, synthesis = self._module(f"Upscale_{label}").weight, self._module("Synthesis").weight[:, :, 0, 0]
        product = torch.einsum("sckl,oc->sokl", up.detach().double().cpu(), synthesis.detach().double().cpu())
        return self._upscaling(product.float())

    def _upscaling(self, weight: Tensor) -> UpscalingStep:
        weight = weight.to(self._device, self._dtype)
        if _is_exact_on_cpu(weight):
            return ProductStep(weight, self._workspace)
        return ConvolutionStep(weight)

    def _module(self, name: str) -> nn.Conv2d | nn.ConvTranspose2d:
        module = self._network.get_submodule(name)
        found = module[1] if isinstance(module, nn.Sequential) else module
        assert isinstance(found, nn.Conv2d | nn.ConvTranspose2d)
        return found


def _is_exact_on_cpu(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32


def _image(values: Tensor) -> Tensor:
    """View (h, w, C) pixels as a (1, C, h, w) image, channels last."""
    return values[None].permute(0, 3, 1, 2)
