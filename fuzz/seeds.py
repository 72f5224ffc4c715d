"""Where fuzzing starts: small valid inputs of every kind, from which it makes others."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile
import torch
from targets import a_model, model_archive

from napari_mgbpv2.model.checkpoints import published_state_dict, save_model

SCALE = {"type": "scale", "scale": [1.0, 0.5, 0.5]}
SHIFT = {"type": "translation", "translation": [0.0, 1.5, 1.5]}
AXES = [{"name": "c", "type": "channel"}] + [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
OMERO = {"channels": [{"label": name, "color": "00FF00", "window": {"start": 0, "end": 9}} for name in ("a", "b")]}
OME_XML = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0" Name="a">'
    '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="1" SizeC="3" SizeT="1" '
    'PhysicalSizeX="0.5" PhysicalSizeXUnit="µm" PhysicalSizeY="0.5" PhysicalSizeYUnit="nm">'
    '<Channel ID="Channel:0:0" Name="DAPI" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="3"/>'
    "</Pixels></Image></OME>"
)
IMAGEJ = "ImageJ=1.54f\nimages=3\nchannels=3\nhyperstack=true\nmode=grayscale\nunit=micron\nspacing=2.0\nmin=0\nmax=9\n"


def seeds(target: str) -> dict[str, bytes]:
    """Return the inputs that fuzzing a target starts from, by name."""
    return {"checkpoints": _models, "ome_xml": _ome_xml, "ome_zarr": _zarrs, "tiff": _tiffs}[target]()


def write_seeds(target: str, folder: Path) -> None:
    """Write them into a folder, as libFuzzer has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds(target).items():
        (folder / name).write_bytes(data)


def _models() -> dict[str, bytes]:
    network = a_model()
    with TemporaryDirectory() as folder:
        ours = save_model(network, Path(folder) / "a.safetensors").read_bytes()
    size = int.from_bytes(ours[:8], "little")
    old = io.BytesIO()
    torch.save(published_state_dict(network), old, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(io.BytesIO(model_archive())) as archive:
        (pickled,) = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    return {
        "safetensors": b"\0" + ours,
        "safetensors-header": b"\1" + ours[8 : 8 + size],
        "archive": b"\0" + model_archive(),
        "pickle-in-archive": b"\2" + pickled,
        "old-pickle": b"\0" + old.getvalue(),
    }


def _zarrs() -> dict[str, bytes]:
    multiscale: dict[str, Any] = {
        "axes": AXES,
        "name": "a",
        "datasets": [{"path": "0", "coordinateTransformations": [SCALE, SHIFT]}],
        "coordinateTransformations": [{"type": "identity"}],
    }
    ome = {"multiscales": [multiscale], "omero": OMERO}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome | {"version": "0.5"}}}
    array = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [2, 8, 8],
        "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 8, 8]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
        ],
        "attributes": {},
        "dimension_names": ["c", "y", "x"],
    }
    old = {"multiscales": [multiscale | {"version": "0.4"}], "omero": OMERO}
    layout = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"bioformats2raw.layout": 3}}}
    plate = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"plate": {"wells": []}}}}
    bare = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    told = {"group": (0, group), "layout": (0, layout), "plate": (0, plate), "bare": (0, bare)}
    told |= {"old-attributes": (1, old), "array": (2, array)}
    return {name: bytes([kind]) + json.dumps(content).encode() for name, (kind, content) in told.items()}


def _ome_xml() -> dict[str, bytes]:
    placed = (
        '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="image.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData FirstC="1" IFD="1" PlaneCount="2"><UUID FileName="image.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<Plane TheZ="0" TheC="0" TheT="0" PositionX="9" PositionXUnit="mm" PositionY="-1" DeltaT="0.5"/>'
    )
    several = OME_XML.replace('<TiffData IFD="0" PlaneCount="3"/>', placed)
    samples = OME_XML.replace('SamplesPerPixel="1"', 'SamplesPerPixel="1" Color="-1"')
    stopped = OME_XML.replace('SizeT="1"', 'SizeT="4"')
    return {
        "described": b"\0" + OME_XML.encode(),
        "several-blocks": b"\0" + several.encode(),
        "coloured": b"\0" + samples.encode(),
        "stopped": b"\0" + stopped.encode(),
        "companion": b"\1" + several.encode(),
    }


def _tiffs() -> dict[str, bytes]:
    image = np.arange(3 * 32 * 32, dtype="u2").reshape(3, 32, 32)
    kinds: dict[str, dict[str, Any]] = {
        "ome": {
            "ome": True,
            "photometric": "minisblack",
            "metadata": {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"},
        },
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2.0, "unit": "um"}},
        "tiled": {"photometric": "minisblack", "tile": (16, 16), "compression": "zlib", "predictor": True},
        "big": {"bigtiff": True, "photometric": "minisblack"},
        "bigendian": {"byteorder": ">", "photometric": "minisblack"},
    }
    found = {"ome-xml": b"\1" + OME_XML.encode(), "imagej-text": b"\1" + IMAGEJ.encode()}
    for name, options in kinds.items():
        file = io.BytesIO()
        tifffile.imwrite(file, image, **options)
        found[name] = b"\0" + file.getvalue()
    return found
