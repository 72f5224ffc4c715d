"""Run networks on a device: source pixels through bicubic upscaling and the network, one tile at a time.

A process has one `Device` object for each device and one `Engine` for each model, device and precision. Two forwards
never run at once on a device.
"""

from napari_mgbpv2.model.config import PRECISIONS
from napari_mgbpv2.runtime.bicubic import enlarge
from napari_mgbpv2.runtime.device import (
    Device,
    available_devices,
    choose_device,
    choose_precision,
    device_title,
    get_device,
    release_device_memory,
    run_on_engine_thread,
    to_host,
)
from napari_mgbpv2.runtime.engine import Engine, to_host_as
from napari_mgbpv2.runtime.guard import GUARD_TOLERANCE, measure_guard
from napari_mgbpv2.runtime.loading import ModelFile, get_engine, make_engine

__all__ = [
    "GUARD_TOLERANCE",
    "PRECISIONS",
    "Device",
    "Engine",
    "ModelFile",
    "available_devices",
    "choose_device",
    "choose_precision",
    "device_title",
    "enlarge",
    "get_device",
    "get_engine",
    "make_engine",
    "measure_guard",
    "release_device_memory",
    "run_on_engine_thread",
    "to_host",
    "to_host_as",
]
