"""Draw synthetic training images of several kinds, each a function of (seed, number)."""

from __future__ import annotations

from napari_mgbpv2.training.synthetic.kinds import KINDS, SyntheticKind, numbered_generator, numbered_image

__all__ = ["KINDS", "SyntheticKind", "numbered_generator", "numbered_image"]
