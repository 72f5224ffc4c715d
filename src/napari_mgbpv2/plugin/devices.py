"""The devices that one can choose among: a name for the library, and what it is called for people."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

AUTOMATIC = "auto"


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes
    ----------
    name
        As `upscale` has it.
    title
        For people: "cuda:1 (NVIDIA H100)".
    """

    name: str
    title: str


# what there may be, as long as nobody has looked
ANY_DEVICES = tuple(Device(name, name) for name in ("cuda", "mps", "cpu"))


@cache
def find_devices() -> tuple[Device, ...]:
    """Find the devices of this machine, the fastest kind first: of several CUDA devices, each by its number.

    The first call loads torch, which takes seconds.
    """
    from napari_mgbpv2.runtime import available_devices, device_title

    names = available_devices()
    numbered = [name for name in names if name.startswith("cuda:")]
    left_out = ["cuda"] if len(numbered) > 1 else numbered
    return tuple(Device(name, _titled(name, device_title(name))) for name in names if name not in left_out)


def title_of(name: str, devices: tuple[Device, ...]) -> str:
    """Return what a device is called; without a number, CUDA's is the first one."""
    titles = {device.name: device.title for device in devices}
    return titles.get(name) or titles.get(f"{name}:0") or name


def _titled(name: str, title: str) -> str:
    return f"{name} ({title})" if title else name
