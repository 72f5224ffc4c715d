"""Configuration of an MGBPv2 network, and its geometry: natural sizes, border and reach. Imports no torch.

Sizes are in pixels of the target resolution, along one axis. Every strided convolution of the network divides a
"natural" size without remainder (``spec`` section 8.3 of the authors' geometry):

    n = 2^(L-1) (p - 1) + (2^(L-1) - 1)(K - 1) + 1,    p >= 2

Any other size is reflect-padded up to the next natural one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from operator import index
from typing import Any

from napari_mgbpv2.errors import ModelError

PRECISIONS = ("float32", "bfloat16", "float16")  # names of torch's types that networks compute in
MINIMUM_LEVELS, MAXIMUM_LEVELS = 2, 6
# Far beyond any network that has been trained. The reach is computed step by step, so larger numbers would take long.
LARGEST = {
    "features": 2**16,
    "cycles": 16,
    "kernel": 31,
    "channels": 2**12,
    "noise_channels": 2**16,
    "border_multiple": 64,
}
MOST_STEPS = 1500  # back-projections per cycle, on all levels together


@dataclass(frozen=True)
class ModelConfig:
    """Configuration of one MGBPv2 network (Algorithm 1 of the paper).

    Parameters
    ----------
    features
        Number of features per level, lowest resolution first. Its length is the number of levels L (2 to 6).
    steps
        Back-projection steps mu per level (at least 1).
    cycles
        Outer cycles nu: runs of the whole recursion, with shared weights (at least 1).
    kernel
        Odd size K of the down- and upscaling kernels (at least 3).
    channels
        Image channels, the same for input and output.
    noise_channels
        Noise features concatenated before every upscaling; 0 for a network without a noise input.
    bias
        Whether the convolutions have biases. A network without them is positively homogeneous: f(a x) = a f(x).
    border_multiple
        The number of reflected pixels before the image is a multiple of this number (at least 1). It equals the scale
        for networks trained on crops that start at multiples of the scale: the grid of source pixels is then aligned
        with the network's grid as in training, for images of any size. 1 centres the image, as the authors do.
    residual
        Whether the output is image + network(image). Each analysis kernel then sums to zero for each input channel,
        that of the highest level has size K, and convolutions lack biases. The result follows the image's values
        affinely, f(a x + b) = a f(x) + b for a > 0 and any b, for any weights. The authors' networks are not residual.
    """

    features: tuple[int, ...] = (256, 192, 128, 48, 9)
    steps: int = 2
    cycles: int = 1
    kernel: int = 3
    channels: int = 3
    noise_channels: int = 1
    bias: bool = True
    border_multiple: int = 1
    residual: bool = False

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "features", tuple(map(index, self.features)))
            for name in ("steps", "cycles", "kernel", "channels", "noise_channels", "border_multiple"):
                object.__setattr__(self, name, index(getattr(self, name)))
        except TypeError as error:
            raise ModelError(f"the numbers of a network must be integers: {error}.") from error
        if not MINIMUM_LEVELS <= len(self.features) <= MAXIMUM_LEVELS:
            raise ModelError(
                f"features lists {len(self.features)} levels; a network has {MINIMUM_LEVELS} to {MAXIMUM_LEVELS}."
            )
        for name, value, least in (
            ("features", min(self.features), 1),
            ("steps", self.steps, 1),
            ("cycles", self.cycles, 1),
            ("channels", self.channels, 1),
            ("noise_channels", self.noise_channels, 0),
            ("border_multiple", self.border_multiple, 1),
        ):
            if value < least:
                raise ModelError(f"{name} is {value}; it must be at least {least}.")
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise ModelError(f"kernel is {self.kernel}; it must be odd and at least 3.")
        if self.residual and self.bias:
            raise ModelError("a residual network has no biases; set bias to false.")
        self._check_bounds()

    def _check_bounds(self) -> None:
        """Reject numbers that no network has. A file with such numbers would keep a machine busy forever."""
        for name, most in LARGEST.items():
            value = max(self.features) if name == "features" else getattr(self, name)
            if value > most:
                raise ModelError(f"{name} is {value}; it must be at most {most}.")
        for name in ("bias", "residual"):
            if not isinstance(getattr(self, name), bool):
                raise ModelError(f"{name} is {getattr(self, name)!r}; it must be true or false.")
        count = sum(self.steps**depth for depth in range(1, self.levels))
        if count > MOST_STEPS:
            raise ModelError(
                f"{self.steps} steps on {self.levels} levels are {count} back-projections; a network has at most "
                f"{MOST_STEPS}."
            )

    @property
    def levels(self) -> int:
        """Number of levels L."""
        return len(self.features)

    @property
    def alignment(self) -> int:
        """Alignment of tile origins in pixels, 2^(L-1): one pixel of the lowest level."""
        return 1 << (self.levels - 1)

    @property
    def follows_offsets(self) -> bool:
        """True for `residual` networks, which satisfy f(x + b) = f(x) + b for any b."""
        return self.residual

    @property
    def smallest(self) -> int:
        """Smallest natural size in pixels (p = 2)."""
        return self.alignment + (self.alignment - 1) * (self.kernel - 1) + 1

    @property
    def reach(self) -> int:
        """Largest distance in pixels of an input pixel that can influence an output pixel.

        This is the exact bound of the network's graph, by interval arithmetic over the recursion: the largest over all
        2^(L-1) phases and both sides.
        """
        base = 1 << 16  # far from both borders, to leave intervals whole, and a multiple of every alignment
        reach = 0
        for phase in range(self.alignment):
            position = base + phase
            low, high = self._receptive_interval(position, position)
            reach = max(reach, position - low, high - position)
        return reach

    @property
    def bytes_per_pixel(self) -> int:
        """Estimated peak memory of a float32 forward in bytes per target pixel.

        It counts the image and its upscaling, the output and the features of the highest level. For each other level
        it counts the features and the inputs of an upscaling: features of the image, features from below, and noise. A
        quarter is added for the working memory of convolutions.
        """
        lower = sum(
            (3 * count + self.noise_channels) / self.analysis_stride(level) ** 2
            for level, count in enumerate(self.features[:-1])
        )
        images = 7 if self.residual else 5
        return round(4 * 1.25 * (images * self.channels + self.features[-1] + lower))

    def is_natural(self, size: int) -> bool:
        """Return whether ``size`` pixels pass through the network without padding."""
        return size >= self.smallest and (size - self.smallest) % self.alignment == 0

    def natural_up(self, size: int) -> int:
        """Return the smallest natural size of at least ``size`` pixels."""
        return self.smallest + max(0, -(-(size - self.smallest) // self.alignment)) * self.alignment

    def natural_down(self, size: int) -> int:
        """Return the largest natural size of at most ``size`` pixels; ``size`` must be at least `smallest`."""
        if size < self.smallest:
            raise ModelError(f"no natural size fits into {size} px; the smallest is {self.smallest} px.")
        return self.smallest + (size - self.smallest) // self.alignment * self.alignment

    def border(self, size: int) -> tuple[int, int]:
        """Return the reflected pixels (before, after) that extend ``size`` to the next natural size."""
        missing = self.natural_up(size) - size
        before = missing - missing // 2
        before -= before % self.border_multiple
        return before, missing - before

    def window(self, first: int, last: int, size: int) -> tuple[int, int]:
        """Return the natural, aligned window of the padded image around some positions.

        Parameters
        ----------
        first
            First position, in pixels of the image. Positions outside the image are border.
        last
            End of the positions, exclusive.
        size
            Pixels of the image.

        Returns
        -------
        start, length
            In pixels of the image. ``start`` is negative if the window includes border. The window is the smallest one
            that contains all given positions of the padded image.
        """
        before, _ = self.border(size)
        padded = self.natural_up(size)
        start = max(0, (first + before) // self.alignment * self.alignment)
        length = min(self.natural_up(min(last + before, padded) - start), padded)
        return min(start, padded - length) - before, length

    def analysis_kernel(self, level: int) -> int:
        """Return the kernel size of the analysis convolution of ``level`` (0 is the lowest resolution)."""
        if self.residual and level == self.levels - 1:
            return self.kernel
        return (self.kernel - 1) * (self.analysis_stride(level) - 1) + 1

    def analysis_stride(self, level: int) -> int:
        """Return the stride of the analysis convolution of ``level``: 2^(L-1-level)."""
        return 1 << (self.levels - 1 - level)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"features": list(self.features)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Return the configuration of the values of `to_dict`. Missing names have their defaults.

        Raises
        ------
        ModelError
            A name is unknown or a value is invalid.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"this version does not know the model's configuration: {error}") from error

    def _receptive_interval(self, first: int, last: int) -> tuple[int, int]:
        """Return the image interval that the output interval [first, last] depends on, both inclusive."""
        needed: list[tuple[int, int]] = []
        state = (first, last)
        for _ in range(self.cycles):
            state = self._receptive_interval_of_level(self.levels - 1, *state, needed)
        halo = self.analysis_kernel(self.levels - 1) // 2
        needed.append((state[0] - halo, state[1] + halo))
        return min(low for low, _ in needed), max(high for _, high in needed)

    def _receptive_interval_of_level(
        self, level: int, first: int, last: int, image: list[tuple[int, int]]
    ) -> tuple[int, int]:
        """Return the interval of ``level``'s incoming features needed for [first, last] of its outgoing ones.

        Follows the steps of one level backwards. Image intervals needed by analysis convolutions are appended to
        ``image``.
        """
        if level == 0:
            return first, last
        for _ in range(self.steps):
            # h_new = h + Up([x, c, noise]) with c = level below(Down(h)); Up: transposed, stride 2, K taps
            below = (-(-(first - self.kernel + 1) // 2), last // 2)
            stride, kernel = self.analysis_stride(level - 1), self.analysis_kernel(level - 1)
            image.append((stride * below[0], stride * below[1] + kernel - 1))
            incoming = self._receptive_interval_of_level(level - 1, *below, image)
            down = (2 * incoming[0], 2 * incoming[1] + self.kernel - 1)
            first, last = min(first, down[0]), max(last, down[1])
        return first, last
