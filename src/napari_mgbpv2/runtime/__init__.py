"""The engine: source pixels through bicubic upscaling and the network, one tile at a time, on one device.

A process keeps one engine for each model, device and precision, and never runs two forwards at once on one device.
"""

from napari_mgbpv2.runtime.bicubic import enlarge
from napari_mgbpv2.runtime.devices import (
    PRECISIONS,
    available_devices,
    choose_device,
    choose_precision,
    device_title,
)
from napari_mgbpv2.runtime.engine import Engine, release_device_memory
from napari_mgbpv2.runtime.guard import GUARD_TOLERANCE, measure_guard
from napari_mgbpv2.runtime.loading import ModelFile, engine_of, get_engine
from napari_mgbpv2.runtime.thread import run_on_engine_thread
from napari_mgbpv2.runtime.transfers import to_host, to_host_as

__all__ = [
    "GUARD_TOLERANCE",
    "PRECISIONS",
    "Engine",
    "ModelFile",
    "available_devices",
    "choose_device",
    "choose_precision",
    "device_title",
    "engine_of",
    "enlarge",
    "get_engine",
    "measure_guard",
    "release_device_memory",
    "run_on_engine_thread",
    "to_host",
    "to_host_as",
]
