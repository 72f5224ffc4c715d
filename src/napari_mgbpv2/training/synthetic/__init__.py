"""Synthetic images to train on, of several kinds, each a function of numbers: drawn, not taken, and nobody's."""

from __future__ import annotations

from napari_mgbpv2.training.synthetic.kinds import KINDS, SyntheticKind, numbered_generator, numbered_image

__all__ = ["KINDS", "SyntheticKind", "numbered_generator", "numbered_image"]
