"""Writes the two images of the fine-tuning tutorial: halves of a tissue section that ships with scikit-image.

python docs/fine_tuning_images.py FOLDER
"""

import sys
from pathlib import Path

import skimage.data
from PIL import Image

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
image = skimage.data.immunohistochemistry()
Image.fromarray(image[:, :256]).save(folder / "left.png")
Image.fromarray(image[:, 256:]).save(folder / "right.png")
