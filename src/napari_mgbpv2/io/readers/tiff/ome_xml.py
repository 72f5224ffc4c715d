"""Parser of the OME-XML of TIFFs: image sizes, locations of planes, pixel sizes and positions."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.units import convert_length

MOST_XML_BYTES = 2**28
_MOST_DIGITS = 12
_REFERENCE_FRAME = "reference frame"  # default unit of positions in OME, whose relation to lengths is unknown


class DamagedXml(SourceError):
    """The text is not XML."""


Length = tuple[float, str]  # a number and its unit as written


@dataclass(frozen=True)
class PlaneBlock:
    """Consecutive planes in a file.

    Attributes
    ----------
    first
        Position of the first plane in the image, along each page axis.
    ifd
        Page number of the first plane in the file.
    count
        Number of planes; None for all pages of the file.
    file, uuid
        Name and UUID of the file; None for the file with the XML.
    """

    first: tuple[int, ...]
    ifd: int
    count: int | None
    file: str | None
    uuid: str | None


@dataclass(frozen=True)
class OmeImage:
    """An image in OME-XML.

    Attributes
    ----------
    name
        Name, may be empty.
    page_axes, page_shape
        Axes that number the pages, slowest first, out of "TCZ", and the length of each.
    height, width, samples
        Size of a page in pixels, and samples per pixel.
    blocks
        Locations of the planes.
    pixel_size
        Pixel size and unit of those of t, z, y and x that have one.
    position
        Position and unit of the first plane along those of t, z, y and x that have one; the default unit is
        "reference frame".
    moves
        Whether planes have different positions along y and x.
    channel_names, channel_colors
        One value per channel, or empty.
    notes
        Sentences on pixel sizes and positions that are impossible and not used.
    """

    name: str
    page_axes: str
    page_shape: tuple[int, ...]
    height: int
    width: int
    samples: int
    blocks: tuple[PlaneBlock, ...]
    pixel_size: dict[str, Length]
    position: dict[str, Length]
    moves: bool
    channel_names: tuple[str, ...]
    channel_colors: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def planes(self) -> int:
        """Number of pages."""
        return math.prod(self.page_shape)

    def translation(self, axis: str) -> float | None:
        """Return the position along an axis in the unit of its pixel size; None if it is unknown."""
        if axis not in self.position:
            return None
        number, unit = self.position[axis]
        size, size_unit = self.pixel_size.get(axis, (1.0, "pixel"))
        if unit == size_unit:
            return number
        return number * size if unit == "pixel" else convert_length(number, unit, size_unit)


@dataclass(frozen=True)
class OmeMetadata:
    """A whole OME-XML document.

    Attributes
    ----------
    uuid
        UUID of the file with the document.
    images
        The images in order.
    metadata_file
        Name of the file with the metadata, if the document only refers to it.
    has_modulo
        Whether axes are split by modulo annotations, which only tifffile supports.
    """

    uuid: str | None
    images: tuple[OmeImage, ...]
    metadata_file: str | None
    has_modulo: bool

    @property
    def files(self) -> set[str]:
        """Names of all referenced files."""
        return {block.file for image in self.images for block in image.blocks if block.file is not None}


def parse_ome_xml(path: str, text: str | bytes) -> OmeMetadata:
    """Parse OME-XML.

    Parameters
    ----------
    path
        File of the document, for messages.
    text
        The document.

    Raises
    ------
    DamagedXml
        The document is not XML.
    SourceError
        The document has impossible or unsupported values.
    """
    if len(text) > MOST_XML_BYTES:
        raise SourceError(f"{path}: its OME-XML has {len(text):,} bytes, more than is read; export it again.")
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DamagedXml(f"{path}: its OME-XML is damaged ({error}).") from error
    binary_only = next(_children(root, "BinaryOnly"), None)
    return OmeMetadata(
        uuid=root.get("UUID"),
        images=tuple(
            _image(path, element, pixels)
            for element in _children(root, "Image")
            for pixels in _children(element, "Pixels")
        ),
        metadata_file=None if binary_only is None else binary_only.get("MetadataFile", ""),
        has_modulo=any(
            "modulo" in annotation.get("Namespace", "").lower()
            for group in _children(root, "StructuredAnnotations")
            for annotation in group
        ),
    )


def _children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _image(path: str, image: ET.Element, pixels: ET.Element) -> OmeImage:
    sizes = {axis: _count(path, pixels, f"Size{axis}", least=1) for axis in "TCZYX"}
    channels = list(_children(pixels, "Channel"))
    samples = _count(path, channels[0], "SamplesPerPixel", 1, least=1) if channels else 1
    if any(_count(path, channel, "SamplesPerPixel", 1, least=1) != samples for channel in channels):
        raise SourceError(f"{path}: its channels have different numbers of samples, which are not read; split them.")
    order = pixels.get("DimensionOrder", "XYZCT")
    if sorted(order) != sorted("XYZCT") or order[:2] != "XY":
        raise SourceError(f"{path}: its OME-XML has the impossible DimensionOrder {order!r}; export it again.")
    page_axes = order[:1:-1]
    sizes["C"] = max(1, sizes["C"] // samples)
    page_shape = tuple(sizes[axis] for axis in page_axes)
    position, moves = _positions(pixels)
    colors = [channel.get("Color") for channel in channels]
    return OmeImage(
        name=image.get("Name", ""),
        page_axes=page_axes,
        page_shape=page_shape,
        height=sizes["Y"],
        width=sizes["X"],
        samples=samples,
        blocks=tuple(_block(path, data, page_axes) for data in _children(pixels, "TiffData")),
        pixel_size=_pixel_sizes(pixels),
        position=position,
        moves=moves,
        channel_names=tuple(channel.get("Name", "") for channel in channels),
        channel_colors=_colors([color for color in colors if color]) if all(colors) else (),
        notes=_length_notes(pixels),
    )


def _block(path: str, data: ET.Element, page_axes: str) -> PlaneBlock:
    uuid = next(_children(data, "UUID"), None)
    counted = next((name for name in ("PlaneCount", "NumPlanes") if name in data.attrib), None)
    count = 1 if "IFD" in data.attrib else None
    if counted is not None:
        count = _count(path, data, counted, least=0) or count
    return PlaneBlock(
        first=tuple(_count(path, data, f"First{axis}", 0) for axis in page_axes),
        ifd=_count(path, data, "IFD", 0),
        count=count,
        file=None if uuid is None else uuid.get("FileName"),
        uuid=None if uuid is None else (uuid.text or "").strip(),
    )


def _count(path: str, element: ET.Element, name: str, default: int | None = None, *, least: int = 0) -> int:
    text = element.get(name, "" if default is None else str(default)).strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) >= least):
        raise SourceError(f"{path}: its OME-XML is damaged: {name} is {text[:40]!r}; export it again.")
    return int(text)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _pixel_sizes(pixels: ET.Element) -> dict[str, Length]:
    found = {}
    for axis in "xyz":
        name = f"PhysicalSize{axis.upper()}"
        size = _number(pixels.get(name))
        if size is not None and size > 0:
            found[axis] = (size, pixels.get(f"{name}Unit", "µm"))
    step = _number(pixels.get("TimeIncrement"))
    if step is not None and step > 0:
        found["t"] = (step, pixels.get("TimeIncrementUnit", "s"))
    return found


def _positions(pixels: ET.Element) -> tuple[dict[str, Length], bool]:
    """Return the position of the first plane, and whether other planes have different positions along y and x."""
    planes = list(_children(pixels, "Plane"))
    first = _first_plane(planes)
    if first is None:
        return {}, False
    found: dict[str, Length] = {}
    for axis, name, default in (
        *((axis, f"Position{axis.upper()}", _REFERENCE_FRAME) for axis in "xyz"), ("t", "DeltaT", "s")
    ):  # fmt: skip
        number = _number(first.get(name))
        if number is not None:
            found[axis] = (number, first.get(f"{name}Unit", default))
    positions = {(plane.get("PositionX"), plane.get("PositionY")) for plane in planes}
    return found, len(positions) > 1


def _first_plane(planes: list[ET.Element]) -> ET.Element | None:
    return next((plane for plane in planes if all(plane.get(f"The{axis}", "0") == "0" for axis in "TCZ")), None)


def _length_notes(pixels: ET.Element) -> tuple[str, ...]:
    """Return a sentence on each pixel size and position of the first plane that is no length."""
    notes = []
    first = _first_plane(list(_children(pixels, "Plane")))
    for axis in "xyz":
        size = pixels.get(f"PhysicalSize{axis.upper()}")
        if size is not None and not ((number := _number(size)) is not None and number > 0):
            notes.append(f"its pixel size along {axis} ({size[:40]!r}) cannot be one and is not used")
        position = None if first is None else first.get(f"Position{axis.upper()}")
        if position is not None and _number(position) is None:
            notes.append(f"its position along {axis} ({position[:40]!r}) cannot be one and is not used")
    return tuple(notes)


def _colors(values: list[str]) -> tuple[str, ...]:
    """Convert signed 32-bit RGBA values to "RRGGBB"."""
    try:
        return tuple(f"{int(value) >> 8 & 0xFFFFFF:06X}" for value in values)
    except ValueError:
        return ()
