"""A network prepared for inference: the recursion of Algorithm 1 without redundant work.

- Features of the image are rectified once per level, for all upscalings from that level, and never concatenated.
- Without noise, the noise features are left out.
- The biases of the upscalings are part of those of the convolutions before them. A downscaling that sees some of them
  too early subtracts their share in its own bias. This is exact, because its kernel never leaves the image.
- The last upscaling and the synthesis are one convolution, with the channels of the image.
- A residual network adds the image last, in full precision.
- Rows that only an unused part of the output depends on are left out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mgbpv2.model.network import MGBPv2, ZeroSumConv2d, module_label
from napari_mgbpv2.runtime.inference.convolutions import Convolution
from napari_mgbpv2.runtime.inference.receptive_fields import RowRange, StepRows, plan_receptive_rows
from napari_mgbpv2.runtime.inference.transposed_convolution import (
    DirectTransposedConvolution,
    GemmTransposedConvolution,
    TransposedConvolution,
)
from napari_mgbpv2.runtime.inference.workspace import Workspace, as_image, is_exact_on_cpu


@dataclass(frozen=True)
class _Step:
    """One step of the recursion: downscaling, the steps of the level below, and upscaling."""

    down: Convolution
    below: tuple[_Step, ...]
    up: TransposedConvolution


class InferenceNetwork:
    """A network prepared for one device and one precision.

    Parameters
    ----------
    network
        The network. It is not changed. Its weights are copied, so that later changes do not matter.
    workspace
        Memory for features. Networks that never run at the same time may share it.
    device
        Device of the weights.
    dtype
        Type of weights and features: float32, bfloat16 or float16.

    Notes
    -----
    The output equals that of the network up to rounding. It depends on image, noise and device alone, and neither on
    the number of threads nor on earlier forwards.
    """

    def __init__(
        self, network: MGBPv2, workspace: Workspace, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.config = config = network.config
        self.workspace, self._dtype = workspace, dtype
        top = config.levels - 1
        preparation = _WeightPreparation(network, device, dtype)
        self._steps, biases = preparation.steps(top)
        # Biases of the highest level's upscalings, added at the start of each cycle.
        self._initial_bias = biases.to(device, dtype)
        self._first = preparation.convolution(f"Analysis_{top}", biases)
        self._analyses = [preparation.convolution(f"Analysis_{level}") for level in range(top)]
        noisy = range(top if config.noise_channels else 0)
        self._noise_analyses = [preparation.convolution(f"AnalysisN_{level}") for level in noisy]
        self._synthesis = preparation.convolution("Synthesis")
        self._output_upscaling = preparation.last_upscaling_and_synthesis()

    def with_workspace(self, workspace: Workspace) -> InferenceNetwork:
        """Return the same network, sharing the weights, whose forwards use another workspace."""
        other = copy.copy(self)
        other.workspace = workspace
        return other

    @torch.inference_mode()
    def __call__(
        self,
        image: Tensor,
        noise: Tensor | None = None,
        noise_amplitude: float = 0.0,
        output_region: tuple[slice, slice] | None = None,
    ) -> Tensor:
        """Restore the details of a bicubically upscaled image.

        Parameters
        ----------
        image
            (1, C, H, W), float32, of natural size.
        noise
            (1, C, H, W), standard normal. Needed only if ``noise_amplitude`` is not 0.
        noise_amplitude
            W of the paper.
        output_region
            Rows and columns to return, as slices with start and stop; by default all.

        Returns
        -------
        Tensor
            (1, C, rows, columns) of the output region, float32.
        """
        if output_region is None:
            output_region = slice(0, image.shape[2]), slice(0, image.shape[3])
        rows = RowRange(output_region[0].start, output_region[0].stop)
        *cycles, (*steps, last) = plan_receptive_rows(self.config, image.shape[2], rows)
        source = image
        image = image.to(self._dtype, memory_format=torch.channels_last)
        if noise_amplitude:
            assert noise is not None
            noise = noise.to(self._dtype, memory_format=torch.channels_last)
        else:
            noise = None
        stacked_features = self._analyse(image, noise, noise_amplitude)
        features = self._initial_features(image)
        for cycle in cycles:
            self._refine(features, 0, self._steps, stacked_features, cycle)
            features += self._initial_bias[:, None, None]
        self._refine(features, 0, self._steps[:-1], stacked_features, steps)
        stacked = self._upscaling_input(features, 0, self._steps[-1], stacked_features, last)
        output = self._synthesis.pointwise(last.refined.of(features))
        self._output_upscaling.add_to(output, stacked, self.workspace)
        output = rows.of(output, last.refined.start)[..., output_region[1]].float()
        if self.config.residual:  # in full precision: only the details are computed in fewer bits
            output += rows.of(source)[..., output_region[1]]
        return output

    def _initial_features(self, image: Tensor) -> Tensor:
        """Return the features of the image at the highest level, which the steps refine."""
        halo = self._first.weight.shape[-1] // 2
        if not halo:
            return self._first.pointwise(image, self._take("features", len(self._initial_bias), image))
        padded = F.pad(image, (halo,) * 4, mode="reflect").contiguous(memory_format=torch.channels_last)
        return self._first(padded, self.workspace, "features")

    def _refine(
        self,
        features: Tensor,
        first: int,
        steps: Sequence[_Step],
        stacked_features: Sequence[Tensor],
        plan: Sequence[StepRows],
    ) -> None:
        """Refine ``features``, whose first row is ``first``, in place: BP of Algorithm 1."""
        for step, step_rows in zip(steps, plan, strict=True):
            stacked = self._upscaling_input(features, first, step, stacked_features, step_rows)
            step.up.add_to(step_rows.refined.of(features, first), stacked, self.workspace)

    def _upscaling_input(
        self, features: Tensor, first: int, step: _Step, stacked_features: Sequence[Tensor], step_rows: StepRows
    ) -> Tensor:
        """Return the input of a step's upscaling: features of the image, features from below, and noise."""
        *lower, stacked = stacked_features
        below = step.down(step_rows.read.of(features, first), self.workspace, f"level {len(lower)}")
        self._refine(below, step_rows.incoming.start, step.below, lower, step_rows.below)
        stacked, channels = step_rows.stacked.of(stacked), below.shape[1]
        below = step_rows.stacked.of(below, step_rows.incoming.start)
        torch.clamp_min(below, 0, out=stacked[:, channels : 2 * channels])
        return stacked

    def _analyse(self, image: Tensor, noise: Tensor | None, amplitude: float) -> list[Tensor]:
        """Return the rectified input of the upscalings from each level but the highest, without features from below.

        Returns
        -------
        list of Tensor
            (1, 2 C, h, w), or (1, 2 C + noise channels, h, w) with noise, lowest level first: C features of the image,
            space for C features from below, and noise features.
        """
        stacked_features: list[Tensor] = []
        height, width = image.shape[2:]
        for level in reversed(range(self.config.levels - 1)):
            height, width = ((size - self.config.kernel) // 2 + 1 for size in (height, width))
            channels, more = self.config.features[level], self.config.noise_channels if noise is not None else 0
            stacked = as_image(self.workspace.take(f"stack {level}", height, width, 2 * channels + more, like=image))
            self._analyses[level].rectify_into(image, stacked[:, :channels])
            if noise is not None:
                self._noise_analyses[level].rectify_into(noise, stacked[:, 2 * channels :], amplitude)
            stacked_features.insert(0, stacked)
        return stacked_features

    def _take(self, name: str, channels: int, like: Tensor) -> Tensor:
        return self.workspace.take(name, *like.shape[2:], channels, like=like)


class _WeightPreparation:
    """Conversion of a network's weights to those of its prepared form."""

    def __init__(self, network: MGBPv2, device: torch.device, dtype: torch.dtype) -> None:
        self._network, self._config = network, network.config
        self._device, self._dtype = device, dtype

    def convolution(self, name: str, more_bias: Tensor | None = None) -> Convolution:
        """Prepare a convolution. ``more_bias`` is added to its bias, if it has one."""
        module = self._module(name)
        weight = module.zero_sum_weight if isinstance(module, ZeroSumConv2d) else module.weight
        weight = weight.detach().to(self._device, self._dtype, memory_format=torch.channels_last, copy=True)
        bias = module.bias
        if bias is not None:
            bias = bias.detach().cpu() if more_bias is None else bias.detach().cpu() + more_bias
            bias = bias.to(self._device, self._dtype, copy=True)
        return Convolution(weight, bias, module.stride[0])

    def steps(self, level: int, counters: tuple[int, ...] | None = None) -> tuple[tuple[_Step, ...], Tensor]:
        """Prepare the steps of a level; also return the biases to add to its features before the first step."""
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

    def last_upscaling_and_synthesis(self) -> TransposedConvolution:
        """Prepare the last upscaling of the highest level and the synthesis as one transposed convolution."""
        top, steps = self._config.levels - 1, self._config.steps
        label = module_label(top, (steps - 1,) * top, steps)
        up, synthesis = self._module(f"Upscale_{label}").weight, self._module("Synthesis").weight[:, :, 0, 0]
        product = torch.einsum("sckl,oc->sokl", up.detach().double().cpu(), synthesis.detach().double().cpu())
        return self._upscaling(product.float())

    def _upscaling(self, weight: Tensor) -> TransposedConvolution:
        weight = weight.to(self._device, self._dtype)
        if is_exact_on_cpu(weight):
            return GemmTransposedConvolution(weight)
        return DirectTransposedConvolution(weight)

    def _module(self, name: str) -> nn.Conv2d | nn.ConvTranspose2d:
        module = self._network.get_submodule(name)
        found = module[1] if isinstance(module, nn.Sequential) else module
        assert isinstance(found, nn.Conv2d | nn.ConvTranspose2d)
        return found
