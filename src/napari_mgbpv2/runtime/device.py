"""The devices of this process, by name, and everything that the process holds for one of them.

A `Device` owns the thread that does all arithmetic on it, the lock that lets one forward run at a time, the memory that
forwards share, the CUDA stream for copies to the host, and the engines by model. It does not own the weights (an
`Engine` does), nor the choice between devices (the caller's, checked by `choose_device`).

Why one thread: each thread that calls torch gets its own team of OpenMP threads. With more of them than processors,
GNU's OpenMP puts a waiting team to sleep, which costs a network of many short steps more than a third of its speed. A
copy of some ten thousand pixels in another thread already starts a second team.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakSet

import numpy.typing as npt
import torch
from torch import Tensor

from napari_mgbpv2.errors import DeviceError
from napari_mgbpv2.model.config import PRECISIONS
from napari_mgbpv2.runtime.inference.workspace import Workspace

if TYPE_CHECKING:
    from napari_mgbpv2.runtime.engine import Engine

Result = TypeVar("Result")


def available_devices() -> list[str]:
    """Return the names of all devices, the fastest kind first: "cuda", "cuda:0", ..., "mps", "cpu"."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found[:0] = ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return found


def device_title(name: str) -> str:
    """Return the product name of a CUDA device, "" for other devices. Initializes CUDA."""
    return str(torch.cuda.get_device_name(name)) if name.startswith("cuda") else ""


def choose_device(name: str | None = None) -> str:
    """Check the name of a device. Choose the fastest kind by default: cuda, then mps, then cpu.

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
    """Check the name of a precision for a device. The default is float32, the exact one.

    Raises
    ------
    DeviceError
        The precision is unknown, or the device does not compute in it.
    """
    offered = [each for each in PRECISIONS if (device, each) != ("cpu", "float16")]
    if name is None:
        return "float32"
    if name not in offered:
        raise DeviceError(f"precision {name!r} is not offered on {device}; choose one of {', '.join(offered)}.")
    return name


class Clearable(Protocol):
    """Retained memory that can be released."""

    def clear(self) -> None:
        """Release the memory."""


class Device:
    """Everything that this process holds for one device. Get it by `get_device`; never make a second one.

    Parameters
    ----------
    torch_device
        The device. One of CUDA has its index.

    Attributes
    ----------
    lock
        Held during a forward, and while memory is released.
    workspace
        Buffers that the forwards of all engines use in turn.
    measured_speeds
        Target pixels per second by network, for estimates.
    """

    def __init__(self, torch_device: torch.device) -> None:
        self.torch_device = torch_device
        self.workspace = Workspace()
        self.measured_speeds: dict[Hashable, float] = {}
        self._engines: dict[Hashable, Engine] = {}
        self._clearables: WeakSet[Clearable] = WeakSet()
        # Copies to the host have their own stream: they do not wait for the next tile.
        self._copy_stream = torch.cuda.Stream(torch_device) if self.has_own_memory else None  # type: ignore[no-untyped-call]
        self.renew_thread()

    def renew_thread(self) -> None:
        """Start with a new thread and free locks, as a forked process must: threads do not survive a fork."""
        self.lock = threading.Lock()
        self._engines_lock = threading.Lock()
        self._inside = threading.local()
        self._thread = ThreadPoolExecutor(1, f"mgbpv2-{self.torch_device}", initializer=self._mark_thread)

    @property
    def has_own_memory(self) -> bool:
        """Whether the device has fast memory apart from the host's."""
        return self.torch_device.type == "cuda"

    def run(self, work: Callable[[], Result]) -> Result:
        """Run arithmetic on the thread of this device, and return its result or raise its error.

        ``work`` must not wait for another thread that may call `run`: neither would end.
        """
        if getattr(self._inside, "is_device_thread", False):
            return work()
        return self._thread.submit(work).result()

    def get_engine(self, key: Hashable, create: Callable[[], Engine]) -> Engine:
        """Return the engine of a key; create it on the first request, while concurrent requests wait."""
        with self._engines_lock:
            if key not in self._engines:
                self._engines[key] = create()
            return self._engines[key]

    def register(self, *clearables: Clearable) -> None:
        """Add memory that `clear` releases. A weak reference is kept."""
        with self.lock:
            self._clearables.update(clearables)

    def clear(self) -> None:
        """Release memory that is retained for later forwards; engines and their weights stay."""
        with self.lock:
            self.workspace.clear()
            for clearable in self._clearables:
                clearable.clear()

    def to_device(self, array: npt.NDArray[Any]) -> Tensor:
        """Copy an array to the device, on CUDA without waiting for the copy. On the CPU, share its memory."""
        values = torch.from_numpy(array)
        if self.has_own_memory:
            return values.pin_memory().to(self.torch_device, non_blocking=True)
        return values.to(self.torch_device)

    def start_copy_to_host(self, values: Tensor) -> Callable[[], npt.NDArray[Any]]:
        """Start to copy a tensor to host memory.

        Parameters
        ----------
        values
            Any shape and dtype, on this device.

        Returns
        -------
        callable
            Waits for the copy and returns the array. It shares memory with a tensor on the CPU.
        """
        if self._copy_stream is None:
            array: npt.NDArray[Any] = values.cpu().numpy()
            return lambda: array
        values = values.contiguous()
        pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._copy_stream.wait_stream(torch.cuda.current_stream(self.torch_device))
        with torch.cuda.stream(self._copy_stream):
            pinned.copy_(values, non_blocking=True)
        values.record_stream(self._copy_stream)  # The allocator must not reuse its memory before the copy has ended.
        copied = self._copy_stream.record_event()

        def wait() -> npt.NDArray[Any]:
            copied.synchronize()
            return pinned.numpy().copy()  # Pinned memory is scarce, and callers may retain tiles.

        return wait

    def _mark_thread(self) -> None:
        self._inside.is_device_thread = True


_devices: dict[torch.device, Device] = {}
_devices_lock = threading.Lock()


def get_device(device: str | torch.device) -> Device:
    """Return this process's object for a device; "cuda" and "cuda:0" are the same one.

    Parameters
    ----------
    device
        A name that `choose_device` accepts, or a torch device.
    """
    device = torch.device(device)
    device = torch.device(device.type, device.index or 0) if device.type != "cpu" else torch.device("cpu")
    with _devices_lock:
        if device not in _devices:
            _devices[device] = Device(device)
        return _devices[device]


def run_on_engine_thread(work: Callable[[], Result]) -> Result:
    """Run arithmetic on the thread of the CPU's engines; see `Device.run`."""
    return get_device("cpu").run(work)


def to_host(values: Tensor) -> npt.NDArray[Any]:
    """Copy a tensor of any device to host memory, and wait for it."""
    return get_device(values.device).start_copy_to_host(values)()


def release_device_memory() -> None:
    """Release the memory that is retained for later forwards on all devices; engines and their weights stay."""
    with _devices_lock:
        devices = list(_devices.values())
    for device in devices:
        device.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _renew_after_fork() -> None:
    global _devices_lock
    _devices_lock = threading.Lock()
    for device in _devices.values():
        device.renew_thread()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_after_fork)
