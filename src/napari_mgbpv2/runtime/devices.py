"""Devices and precisions: what there is, and what is chosen."""

from __future__ import annotations

import torch

from napari_mgbpv2.errors import DeviceError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
