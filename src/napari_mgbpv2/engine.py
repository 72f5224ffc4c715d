"""The engine: source pixels through bicubic upscaling and the network, one tile at a time, on one device.

A process keeps one engine for each model, device and precision, and never runs two forwards at once on one device.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_mgbpv2.checkpoints import load_model
from napari_mgbpv2.config import ModelConfig
from napari_mgbpv2.errors import DeviceError, ModelError
from napari_mgbpv2.model_zoo import file_hash
from napari_mgbpv2.network import MGBPv2, Network, configurations, fold_channels, reflect
from napari_mgbpv2.noise import noise_window
from napari_mgbpv2.resampling import Taps, upscale_window
from napari_mgbpv2.tiling import Span

Pixels = npt.NDArray[np.float32]
Read = Callable[[slice, slice], Pixels]
Area = tuple[Span, Span]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GUARD_TOLERANCE = 2e-6  # of the value range: what a tile and the whole image may differ by beyond the guard
_PROBE_SEED = 0

_device_locks: dict[torch.device, threading.Lock] = {}
_engines: dict[tuple[str, bool, str, str], Engine] = {}
_registry_lock = threading.RLock()  # held while a model is loaded: whoever asks for it meanwhile waits


@dataclass(frozen=True)
class ModelFile:
    """A model named by its file and the hash of its content: what a graph holds instead of weights.

    Parameters
    ----------
    path
        The file.
    sha256
        Hash of its content, in hexadecimal.
    cycles
        As `load_model` has it.
    """

    path: Path
    sha256: str
    cycles: int | None = None

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Name a file by what it holds now."""
        return cls(path, file_hash(path))

    def load(self) -> Network:
        """Load the network, if the file is still the same.

        Raises
        ------
        ModelError
            The file has gone or changed.
        """
        if not self.path.is_file() or file_hash(self.path) != self.sha256:
            raise ModelError(f"{self.path}: the model has been changed or removed since the work was planned.")
        return load_model(self.path, cycles=self.cycles)


class Engine:
    """One network on one device, in one precision.

    Parameters
    ----------
    network
        Copied: later changes of its weights have no effect.
    device
        As `choose_device` gives it.
    precision
        One of `PRECISIONS`. float32 is exact; the others run the convolutions in fewer bits.
    """

    def __init__(self, network: Network, device: torch.device, precision: str = "float32") -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.network.to(device)
        for parameter in self.network.parameters():
            if parameter.ndim == 4:  # the layout that convolutions are fastest in, on CPUs and GPUs
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.device = device
        self.dtype = PRECISIONS[precision]
        with _registry_lock:
            self._lock = _device_locks.setdefault(device, threading.Lock())

    def run(
        self,
        read: Read,
        tile: Area,
        core: Area,
        shape: tuple[int, int],
        scale: int,
        *,
        noise: float = 0.0,
        seed: int = 0,
        first_channel: int = 0,
    ) -> Pixels:
        """Upscale a part of an image with one forward of each network.

        Parameters
        ----------
        read
            Gives (C, h, w) float32 source pixels, nominally in [0, 1], for slices of rows and columns.
        tile
            Rows and columns to compute, in target pixels; those outside the image are its reflected border.
        core
            Rows and columns to give, a part of the tile.
        shape
            Height and width of the whole source.
        scale
            Upscaling factor.
        noise, seed, first_channel
            Noise amplitude W, seed, and number of this plane's first channel among those of the whole image.

        Returns
        -------
        ndarray
            (C, rows, columns) of the core, float32. Pixels closer than the guard to an end of the tile that is no
            end of the image are not those of the whole image.
        """
        members = [self.network] if isinstance(self.network, MGBPv2) else list(self.network.children())
        total: Tensor | None = None
        for member, config in zip(members, configurations(self.network), strict=True):
            windows = [_Window.around(span, size, scale, config) for span, size in zip(tile, shape, strict=True)]
            source = np.ascontiguousarray(read(*(window.taps.window for window in windows)), dtype=np.float32)
            # the fidelity ensemble hears no noise
            amplitude = noise if isinstance(self.network, MGBPv2) else 0.0
            field = self._noise(windows, seed, first_channel, len(source)) if amplitude else None
            crop = [window.crop(span) for window, span in zip(windows, core, strict=True)]
            with self._lock, torch.inference_mode(), self._arithmetic():
                image = upscale_window(torch.from_numpy(source).to(self.device), *(window.taps for window in windows))
                image = image[None].contiguous(memory_format=torch.channels_last)
                output = member(image, field, amplitude)[0, :, crop[0], crop[1]].float()
                total = output if total is None else total + output
        assert total is not None
        with self._lock:
            result: Pixels = total.contiguous().cpu().numpy()
        return result

    def _noise(self, windows: list[_Window], seed: int, first_channel: int, channels: int) -> Tensor:
        rows, columns = (window.positions for window in windows)
        top, left = int(rows.min()), int(columns.min())
        size = (int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
        fields = [noise_window(seed, first_channel + channel, top, left, *size) for channel in range(channels)]
        field = np.stack(fields)[:, rows - top][:, :, columns - left]
        return torch.from_numpy(field[None]).to(self.device, memory_format=torch.channels_last)

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Full float32 unless fewer bits are asked for, and always the same ones.

        By default, CUDA convolutions would round to TF32, and add up in whatever order.
        """
        flags = torch.backends.cudnn.flags
        with contextlib.ExitStack() as stack:
            if self.device.type == "cuda":
                stack.enter_context(flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False))
            if self.dtype != torch.float32:
                stack.enter_context(torch.autocast(self.device.type, self.dtype))
            yield


@dataclass(frozen=True)
class _Window:
    """What a network computes along one axis for a part of an image: aligned, and of natural size.

    Attributes
    ----------
    start
        First target position; negative within the reflected border.
    positions
        Target pixel of the image that stands at each position.
    taps
        Source pixels of these.
    """

    start: int
    positions: npt.NDArray[np.int64]
    taps: Taps

    @classmethod
    def around(cls, span: Span, source_size: int, scale: int, config: ModelConfig) -> _Window:
        size = source_size * scale
        start, length = config.window(span.start, span.stop, size)
        positions = reflect(torch.arange(start, start + length), size).numpy()
        return cls(start, positions, Taps.of(positions, scale, source_size))

    def crop(self, span: Span) -> slice:
        return slice(span.start - self.start, span.stop - self.start)


def get_engine(model: ModelFile, folded: bool, device: str, precision: str) -> Engine:
    """Return this process's engine for a model file; loads it when it is asked for first.

    Parameters
    ----------
    model
        The file.
    folded
        Whether a network of three equal channels is to stand as one of one channel, see `fold_channels`.
    device, precision
        Names, as `choose_device` and `choose_precision` give them.
    """
    key = (f"{model.sha256}:{model.cycles}", folded, device, precision)
    with _registry_lock:
        if key not in _engines:
            _engines[key] = engine_of(model.load(), folded, device, precision)
        return _engines[key]


def engine_of(network: Network, folded: bool, device: str, precision: str) -> Engine:
    """Make an engine for a network in memory; parameters as `get_engine` has them."""
    return Engine(fold_channels(network) if folded else network, torch.device(device), precision)


def release_device_memory() -> None:
    """Give back what accelerators keep for later forwards; engines and their weights stay."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def available_devices() -> list[str]:
    """Names of the devices that there are, the fastest kind first: "cuda", "cuda:0", ..., "mps", "cpu"."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found[:0] = ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return found


def device_title(name: str) -> str:
    """Return what a CUDA device is called by its maker, nothing of others; wakes the device."""
    return str(torch.cuda.get_device_name(name)) if name.startswith("cuda") else ""


def choose_device(name: str | None = None) -> str:
    """Check the name of a device, or choose the fastest kind there is: cuda, then mps, then cpu.

    Raises
    ------
    DeviceError
        The device is unknown or not available.
    """
    available = available_devices()
    if name is None:
        return available[0]
    if name not in available:
        raise DeviceError(f"device {name!r} is not available; choose one of {', '.join(available)}.")
    return name


def choose_precision(name: str | None, device: str) -> str:
    """Check the name of a precision for a device; float32, the exact one, by default.

    Raises
    ------
    DeviceError
        It is unknown, or the device does not compute in it.
    """
    offered = [each for each in PRECISIONS if (device, each) != ("cpu", "float16")]
    if name is None:
        return "float32"
    if name not in offered:
        raise DeviceError(f"precision {name!r} is not offered on {device}; choose one of {', '.join(offered)}.")
    return name


def measure_guard(network: Network, scale: int) -> int:
    """Measure how far a tile's border spoils its output: an aligned tile against the whole image.

    The probe is black and white noise of single source pixels, whose disturbances reach further than those of
    any picture. One unit of alignment is added for safety; more than the structural reach, beyond which no pixel
    has any influence, is never needed.

    Parameters
    ----------
    network
        The network, on any device; it is measured on the CPU.
    scale
        Upscaling factor of the probe image.

    Returns
    -------
    int
        Target pixels, a multiple of the alignment: beyond them tile and whole image differ by less than
        `GUARD_TOLERANCE`.
    """
    engine = Engine(network, torch.device("cpu"))
    config, reach = configurations(network)[0], max(config.reach for config in configurations(network))
    inner = config.natural_up(2 * reach + 8 * config.alignment)
    source_size = -(-(inner + 4 * reach) // scale)
    size = source_size * scale
    generator = np.random.default_rng(_PROBE_SEED)
    probe = generator.integers(0, 2, (config.channels, source_size, source_size)).astype(np.float32)

    def run(span: Span) -> Pixels:
        area = (span, span)
        return engine.run(lambda rows, columns: probe[:, rows, columns], area, area, (source_size, source_size), scale)

    start = -(-2 * reach // config.alignment) * config.alignment - config.border(size)[0]
    tile = Span(start, start + inner)
    difference = run(tile) - run(Span(0, size))[:, slice(*tile), slice(*tile)]
    from_end = np.minimum(np.arange(inner), np.arange(inner)[::-1])
    depth = np.minimum(from_end[:, np.newaxis], from_end[np.newaxis, :])
    spoilt = np.abs(difference).max(axis=0) > GUARD_TOLERANCE
    units = -(-(int(depth[spoilt].max(initial=-1)) + 1) // config.alignment)
    return min(units + 1, -(-reach // config.alignment)) * config.alignment
