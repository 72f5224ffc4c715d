"""What is fuzzed: readers of strangers' bytes, which may raise nothing but this package's own errors.

The first byte of each input says what the others are, so that changed bytes get beyond lengths and checksums.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import zarr

from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.model.checkpoints import load_model, published_state_dict
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import MGBPv2


def checkpoints(data: bytes) -> None:
    """Load a model: a file of either kind, the header of a .safetensors file, or the pickle within an archive."""
    kind, rest = data[:1], data[1:]
    if kind == b"\1":
        rest = safetensors_of(rest)
    elif kind == b"\2":
        rest = archive_of(rest)
    path = _folder() / "model"
    path.write_bytes(rest)
    load_model(path)


def ome_zarr(data: bytes) -> None:
    """Open an image: the attributes of its group as OME-Zarr 0.5 or 0.4 has them, or the metadata of its array."""
    kind, rest = data[:1], data[1:]
    path = _folder() / "image.ome.zarr"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(_template(2 if kind == b"\1" else 3), path)
    changed = {b"\1": ".zattrs", b"\2": "0/zarr.json"}.get(kind, "zarr.json")
    (path / changed).write_bytes(rest)
    _read_a_corner(path)


def tiff(data: bytes) -> None:
    """Open a TIFF: a whole file, or the description in one, which is OME-XML or ImageJ's."""
    kind, rest = data[:1], data[1:]
    path = _folder() / "image.tif"
    path.write_bytes(described_tiff(rest) if kind == b"\1" else rest)
    _read_a_corner(path)


def ome_xml(data: bytes) -> None:
    """Open an OME-TIFF by OME-XML: that in a TIFF of three pages, or in a companion file beside one."""
    kind, text = data[:1], data[1:]
    folder = _folder() / "ome"
    folder.mkdir(exist_ok=True)
    path = folder / "image.ome.tif"
    if kind == b"\1":
        path.write_bytes(described_tiff(BINARY_ONLY))
        (folder / "image.companion.ome").write_bytes(text)
    else:
        path.write_bytes(described_tiff(text))
    source = open_source(path, missing="blank")
    source.data[tuple(slice(0, min(size, 2)) for size in source.data.shape)]


BINARY_ONLY = (
    b'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
    b'<BinaryOnly MetadataFile="image.companion.ome" UUID="urn:uuid:2"/></OME>'
)

TARGETS: dict[str, Callable[[bytes], None]] = {
    "checkpoints": checkpoints,
    "ome_xml": ome_xml,
    "ome_zarr": ome_zarr,
    "tiff": tiff,
}


def survives(target: str) -> Callable[[bytes], None]:
    """Return the target, content with one clear error."""

    def read(data: bytes) -> None:
        with suppress(MGBPv2Error):
            TARGETS[target](data)

    return read


def a_model() -> MGBPv2:
    """Return a network of random weights, as small as they come."""
    torch.manual_seed(0)
    network = MGBPv2(ModelConfig(features=(2, 2), steps=1, kernel=3))
    network.scale = 2
    return network


def safetensors_of(header: bytes) -> bytes:
    """Return a .safetensors file with this header, and as many numbers as it says."""
    ends = [int(end) for end in re.findall(rb'"data_offsets":\[\d+,(\d+)\]', header)]
    return len(header).to_bytes(8, "little") + header + bytes(min(max(ends, default=0), 1_000_000))


def archive_of(pickled: bytes) -> bytes:
    """Return a file as torch saves a network, with this pickle in the place of its own."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model_archive())) as model, zipfile.ZipFile(file, "w") as archive:
        for entry in model.infolist():
            archive.writestr(entry, pickled if entry.filename.endswith("data.pkl") else model.read(entry))
    return file.getvalue()


@cache
def model_archive() -> bytes:
    """Return a network as the authors save theirs."""
    file = io.BytesIO()
    torch.save(published_state_dict(a_model()), file)
    return file.getvalue()


def described_tiff(description: bytes) -> bytes:
    """Return a TIFF of three small pages with this description."""
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(
        file,
        np.arange(3 * 8 * 8, dtype="u1").reshape(3, 8, 8),
        photometric="minisblack",
        metadata=None,
        description=description.replace(b"\0", b" ") or b" ",
    )
    return file.getvalue()


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


@cache
def _template(version: Literal[2, 3]) -> Path:
    path = _folder() / f"v{version}"
    group = zarr.open_group(path, mode="w", zarr_format=version)
    pixels = np.arange(2 * 8 * 8, dtype="u2").reshape(2, 8, 8)
    group.create_array(
        "0",
        data=pixels,
        chunks=(1, 8, 8),
        chunk_key_encoding={"name": "default" if version == 3 else "v2", "separator": "/"},
    )
    return path


def _read_a_corner(path: Path) -> None:
    data = open_source(path).data
    data[tuple(slice(0, min(size, 2)) for size in data.shape)]
