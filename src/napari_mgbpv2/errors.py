"""What can go wrong with what a user gives: one class a cause, one clear sentence each.

Every message says what is wrong, where, and what to do. The commands print it alone, without a traceback.
"""

from __future__ import annotations


class MGBPv2Error(Exception):
    """Base of every error that this package raises about a user's input."""


class ImageError(MGBPv2Error, ValueError):
    """The image cannot be upscaled: its dimensions, axes, dtype or value range."""


class ModelError(MGBPv2Error, ValueError):
    """A model is unknown, does not fit the image or the scale, or its file is not one."""


class TilingError(MGBPv2Error, ValueError):
    """Tile, overlap and guard do not fit together or do not fit the network."""


class DeviceError(MGBPv2Error, ValueError):
    """The device or precision is unknown or not available on this machine."""


class SourceError(MGBPv2Error, OSError):
    """A source file is missing, damaged, or of a kind that is not read."""


class DestinationError(MGBPv2Error, OSError):
    """The destination exists already or cannot be written."""


class ClusterError(MGBPv2Error, RuntimeError):
    """A cluster has no workers, or such as cannot do the work."""


class OutOfMemory(MGBPv2Error, MemoryError):
    """The machine or its accelerator has not enough memory, even with smaller tiles."""


class Cancelled(MGBPv2Error):
    """The work was stopped on request before it was complete."""


class TrainingError(MGBPv2Error, ValueError):
    """The options of a training run do not fit together, or it cannot go on."""


class ValueRangeWarning(UserWarning):
    """An image holds values that its model does not know, and no value range was given."""
