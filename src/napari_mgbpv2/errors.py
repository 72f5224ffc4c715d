"""Errors about a user's input, one class per cause.

Every message states what is wrong, where, and what to do. Commands print it without a traceback.
"""

from __future__ import annotations


class MGBPv2Error(Exception):
    """Base of every error that this package raises about a user's input."""


class ImageError(MGBPv2Error, ValueError):
    """The image cannot be upscaled: its dimensions, axes, dtype or value range."""


class ModelError(MGBPv2Error, ValueError):
    """A model is unknown, does not fit the image or the scale, or its file is not a model."""


class TilingError(MGBPv2Error, ValueError):
    """Tile, overlap and guard do not fit each other or the network."""


class DeviceError(MGBPv2Error, ValueError):
    """The device or precision is unknown or not available on this machine."""


class SourceError(MGBPv2Error, OSError):
    """A source file is missing, damaged, or of an unsupported format."""


class DestinationError(MGBPv2Error, OSError):
    """The destination exists already or cannot be written."""


class ClusterError(MGBPv2Error, RuntimeError):
    """A cluster is without workers, or its workers cannot do the work."""


class OutOfMemory(MGBPv2Error, MemoryError):
    """The machine or its GPU has too little memory, even with smaller tiles."""


class Cancelled(MGBPv2Error):
    """The work was stopped on request before it was complete."""


class TrainingError(MGBPv2Error, ValueError):
    """The options of a training run contradict each other, or it cannot continue."""


class ValueRangeWarning(UserWarning):
    """An image contains values outside the range that its model was trained on, and no value range was given."""
