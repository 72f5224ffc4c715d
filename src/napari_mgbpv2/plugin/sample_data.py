"""The sample: a small picture that comes with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SAMPLE = Path(__file__).parents[1] / "samples" / "astronaut.png"

LayerData = tuple[Any, dict[str, Any], str]


def astronaut() -> list[LayerData]:
    """Read the sample picture as one napari image layer."""
    from PIL import Image

    with Image.open(SAMPLE) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return [(pixels, {"name": "astronaut", "rgb": True}, "image")]
