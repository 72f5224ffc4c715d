"""The numbers of an MGBPv2 network: configuration, natural sizes, border and reach (standard library only).

Sizes are in pixels of the target resolution, along one axis. "Natural" sizes are those that every strided
convolution of the network divides without remainder (``spec`` section 8.3 of the authors' geometry):

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
# Far beyond any network that has been trained. The reach is computed step by step, so more would take long.
LARGEST = {
    "features": 2**16,
    "cycles": 16,
    "kernel": 31,
    "channels": 2**12,
    "noise_channels": 2**16,
    "border_multiple": 64,
}
MOST_STEPS = 1500  # back-projections of one cycle, on all levels together


@dataclass(frozen=True)
class ModelConfig:
    """Configuration of one MGBPv2 network (Algorithm 1 of the paper).

    Parameters
    ----------
    features
        Number of features a level, lowest resolution first; its length is the number of levels L (2 to 6).
    steps
        Back-projection steps mu a level (at least 1).
    cycles
        Outer cycles nu: how often the whole recursion runs, with shared weights (at least 1).
    kernel
        Odd size K of the down- and upscaling kernels (at least 3).
    channels
        Image channels, the same for input and output.
    noise_channels
        Noise features concatenated before every upscaling; 0 for a network without a noise input.
    bias
        Whether the convolutions have biases. A network without them is positively homogeneous: f(a x) = a f(x).
    border_multiple
        The number of reflected pixels before the image is a multiple of this number (at least 1). Networks that were
        trained on crops that start at multiples of the scale have the scale here, so that the grid of the source
        pixels lies on the network's grid as in training, for images of any size. 1 centres the image, as the authors
        do.
    residual
        Whether the output is image + network(image), where each analysis kernel sums to zero for each input channel,
        and that of the highest level has size K. The result then follows the image's values affinely,
        f(a x + b) = a f(x) + b for a > 0 and any b, whatever the weights. Such a network has no biases. The authors'
        networks are not residual.
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
            raise ModelError(f"the numbers of a network are whole ones: {error}.") from error
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
        """Refuse numbers that no network has: a file that claims them would keep a machine busy for ever."""
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
        """Pixels 2^(L-1) to which tile origins are aligned: one pixel of the lowest level."""
        return 1 << (self.levels - 1)

    @property
    def follows_offsets(self) -> bool:
        """Whether the network gives f(x + b) = f(x) + b for any b, as `residual` ones do."""
        return self.residual

    @property
    def smallest(self) -> int:
        """The smallest natural size (p = 2)."""
        return self.alignment + (self.alignment - 1) * (self.kernel - 1) + 1

    @property
    def reach(self) -> int:
        """Pixels on one side beyond which no input pixel can influence an output pixel.

        The exact bound of the network's graph, by interval arithmetic over the recursion: the largest over
        all 2^(L-1) phases and both sides.
        """
        base = 1 << 16  # far from both borders and a multiple of every alignment, so that no interval is cut
        reach = 0
        for phase in range(self.alignment):
            position = base + phase
            low, high = self._needed(position, position)
            reach = max(reach, position - low, high - position)
        return reach

    @property
    def bytes_per_pixel(self) -> int:
        """Memory that a float32 forward needs at its peak for each target pixel, estimated.

        Counts the image and what its upscaling takes, the output, the features of the highest level, and for each of
        the others its features and what an upscaling from it reads, from the image, from below and from the noise;
        and a quarter more, which convolutions may take for themselves.
        """
        lower = sum(
            (3 * count + self.noise_channels) / self.analysis_stride(level) ** 2
            for level, count in enumerate(self.features[:-1])
        )
        images = 7 if self.residual else 5
        return round(4 * 1.25 * (images * self.channels + self.features[-1] + lower))

    def is_natural(self, size: int) -> bool:
        """Whether ``size`` pixels pass through the network without padding."""
        return size >= self.smallest and (size - self.smallest) % self.alignment == 0

    def natural_up(self, size: int) -> int:
        """The smallest natural size that is at least ``size``."""
        return self.smallest + max(0, -(-(size - self.smallest) // self.alignment)) * self.alignment

    def natural_down(self, size: int) -> int:
        """The largest natural size that is at most ``size`` (``size`` must not be below `smallest`)."""
        if size < self.smallest:
            raise ModelError(f"no natural size fits into {size} px; the smallest is {self.smallest} px.")
        return self.smallest + (size - self.smallest) // self.alignment * self.alignment

    def border(self, size: int) -> tuple[int, int]:
        """Reflected pixels (before, after) that take ``size`` up to the next natural size."""
        missing = self.natural_up(size) - size
        before = missing - missing // 2
        before -= before % self.border_multiple
        return before, missing - before

    def window(self, first: int, last: int, size: int) -> tuple[int, int]:
        """Natural, aligned window of the padded image around some positions.

        Parameters
        ----------
        first, last
            The positions first <= p < last, in pixels of the image; outside it, they are border.
        size
            Pixels of the image.

        Returns
        -------
        start, length
            In pixels of the image; ``start`` is negative where the window takes in the border. It is the smallest
            window that holds all of the positions that lie on the padded image.
        """
        before, _ = self.border(size)
        padded = self.natural_up(size)
        start = max(0, (first + before) // self.alignment * self.alignment)
        length = min(self.natural_up(min(last + before, padded) - start), padded)
        return min(start, padded - length) - before, length

    def analysis_kernel(self, level: int) -> int:
        """Kernel size of the analysis convolution of ``level`` (0 is the lowest resolution)."""
        if self.residual and level == self.levels - 1:
            return self.kernel
        return (self.kernel - 1) * (self.analysis_stride(level) - 1) + 1

    def analysis_stride(self, level: int) -> int:
        """Stride of the analysis convolution of ``level``: 2^(L-1-level)."""
        return 1 << (self.levels - 1 - level)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"features": list(self.features)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`; a missing name has its default, an unknown one raises `ModelError`."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"the model's configuration is not one of this version: {error}") from error

    def _needed(self, first: int, last: int) -> tuple[int, int]:
        """Image interval that the output interval [first, last] of the last sum depends on (inclusive)."""
        needed: list[tuple[int, int]] = []
        state = (first, last)
        for _ in range(self.cycles):
            state = self._needed_by_level(self.levels - 1, *state, needed)
        halo = self.analysis_kernel(self.levels - 1) // 2
        needed.append((state[0] - halo, state[1] + halo))
        return min(low for low, _ in needed), max(high for _, high in needed)

    def _needed_by_level(self, level: int, first: int, last: int, image: list[tuple[int, int]]) -> tuple[int, int]:
        """Interval of ``level``'s incoming features needed for [first, last] of its outgoing ones.

        Walks the steps of one level backwards; image intervals needed by analysis convolutions are appended.
        """
        if level == 0:
            return first, last
        for _ in range(self.steps):
            # h_new = h + Up([x, c, noise]) with c = level below(Down(h)); Up: transposed, stride 2, K taps
            below = (-(-(first - self.kernel + 1) // 2), last // 2)
            stride, kernel = self.analysis_stride(level - 1), self.analysis_kernel(level - 1)
            image.append((stride * below[0], stride * below[1] + kernel - 1))
            incoming = self._needed_by_level(level - 1, *below, image)
            down = (2 * incoming[0], 2 * incoming[1] + self.kernel - 1)
            first, last = min(first, down[0]), max(last, down[1])
        return first, last
