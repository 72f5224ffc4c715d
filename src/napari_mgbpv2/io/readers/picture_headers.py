"""What the headers of pictures say that Pillow does not: more than 8 bits a sample, and whether they are bombs.

Pillow reads some formats as 8 bits whatever they hold. Those that imagecodecs reads in full are known here by their
depth, from their headers alone.
"""

from __future__ import annotations

import mmap
import os
import re
import zlib
from typing import NamedTuple

import numpy as np

from napari_mgbpv2.formatting import format_bytes
from napari_mgbpv2.io.image import Pixels, UnsupportedPicture

MOST_JPEG_SCANS = 64  # writers make about 10; each is a pass over the whole picture
_HARMLESS_BYTES = 2**28  # of pixels, whatever a file does to make them
_LARGEST_RATIO = 4096  # bytes of pixels for a byte of a file: more than Deflate, LZW or Huffman codes can give

_PNM = re.compile(rb"P([2356])(?:\s|#[^\r\n]*[\r\n])+(\d+)(?:\s|#[^\r\n]*[\r\n])+(\d+)(?:\s|#[^\r\n]*[\r\n])+(\d+)\s")
_NO_NUMBERS = re.compile(rb"[^\s\d]")
_BLOCK = 2**18  # values that are converted at once
_J2K_START = b"\xff\x4f\xff\x51"
_AV1_CONFIGURATION = b"av1C"
_AVIF_HEAD, _PNM_HEAD, _PNG_TAIL = 2**16, 2**12, 2**16


def check_ratio(path: str, pixel_bytes: int) -> None:
    """Refuse a small file that announces a huge picture, before anything is made room for.

    Raises
    ------
    UnsupportedPicture
        No picture is so even that it could be true.
    """
    size = os.path.getsize(path)
    if pixel_bytes > _HARMLESS_BYTES and pixel_bytes > _LARGEST_RATIO * size:
        raise UnsupportedPicture(
            f"{path}: announces {format_bytes(pixel_bytes)} of pixels in a file of {format_bytes(size)}; it is "
            "damaged or a decompression bomb: export it again."
        )


def check_scans(path: str) -> None:
    """Refuse a progressive JPEG of more scans than a picture has: a small file of them takes hours.

    Raises
    ------
    UnsupportedPicture
        It has too many.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        scans, place = 0, _first_scan(content)
        while place >= 0 and scans <= MOST_JPEG_SCANS:
            scans, place = scans + 1, content.find(b"\xff\xda", place + 2)
    if scans > MOST_JPEG_SCANS:
        raise UnsupportedPicture(
            f"{path}: this JPEG has more than {MOST_JPEG_SCANS} scans, as no picture has; save it as a PNG."
        )


def _first_scan(content: mmap.mmap) -> int:
    """Return where the first scan begins, behind segments that may hold a thumbnail with scans of its own."""
    place = 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] != b"\xda":
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return place if content[place : place + 2] == b"\xff\xda" else -1


class PNMHeader(NamedTuple):
    """What a PGM or PPM says.

    Attributes
    ----------
    plain
        Whether its numbers are text.
    samples
        1 for grey, 3 for colours.
    width, height
        Pixels.
    white
        Its largest value.
    offset
        Where its numbers begin.
    """

    plain: bool
    samples: int
    width: int
    height: int
    white: int
    offset: int


def pnm_header(path: str) -> PNMHeader | None:
    """Return the header of a PGM or PPM; None of what is none, or not understood."""
    with open(path, "rb") as file:
        match = _PNM.match(file.read(_PNM_HEAD))
    if match is None:
        return None
    kind, width, height, white = (int(part) for part in match.groups())
    return PNMHeader(kind < 5, 3 if kind in (3, 6) else 1, width, height, white, match.end())


def read_pnm(path: str, header: PNMHeader) -> Pixels:
    """Return the pixels of a PGM or PPM of more than 8 bits, (height, width) or (height, width, 3), white 65535."""
    count = header.height * header.width * header.samples
    with open(path, "rb") as file:
        file.seek(header.offset)
        if header.plain:
            text = file.read()
            if (wrong := _NO_NUMBERS.search(text)) is not None:
                raise ValueError(f"{wrong[0]!r} is no number")
            values = np.fromstring(text, dtype=np.int32, sep=" ")[:count]
        else:
            values = np.frombuffer(file.read(2 * count), dtype=">u2")
    if values.size < count:
        raise ValueError(f"{count} values are announced and {values.size} are there")
    pixels = spread_to_16_bits(values, header.white)
    return pixels.reshape((header.height, header.width) + (header.samples,) * (header.samples > 1))


def spread_to_16_bits(values: Pixels, white: int) -> Pixels:
    """Return values whose largest is ``white`` as 16 bits, so that they are as bright."""
    if white == 2**16 - 1:
        return values.astype(np.uint16)
    flat, spread = values.reshape(-1), np.empty(values.size, np.uint16)
    for start in range(0, flat.size, _BLOCK):  # all in floating point would take four times the memory of the image
        part = slice(start, start + _BLOCK)
        spread[part] = np.minimum(np.rint(flat[part] * (65535 / white)), 65535)
    return spread.reshape(values.shape)


class JPEG2000Header(NamedTuple):
    """What a JPEG 2000 says.

    Attributes
    ----------
    depths
        Bits of each component.
    signed
        Whether one has a sign.
    alike
        Whether all have the same depth, sign and size.
    has_alpha
        Whether one is called opacity.
    """

    depths: tuple[int, ...]
    signed: bool
    alike: bool
    has_alpha: bool


def jpeg2000_header(path: str) -> JPEG2000Header | None:
    """Return what the codestream and the box of channel definitions say; None where there is no codestream."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(_J2K_START)
        if start < 0:
            return None
        count = int.from_bytes(content[start + 40 : start + 42], "big")
        parts = content[start + 42 : start + 42 + 3 * count]
        definition = content.find(b"cdef", 0, start)
        kinds: list[int] = []
        if definition >= 0:
            number = int.from_bytes(content[definition + 4 : definition + 6], "big")
            entries = content[definition + 6 : definition + 6 + 6 * number]
            kinds = [int.from_bytes(entries[place + 2 : place + 4], "big") for place in range(0, len(entries), 6)]
    components = [parts[place : place + 3] for place in range(0, len(parts), 3)]
    if not components or len(components[-1]) < 3:
        return None
    depths = tuple((part[0] & 0x7F) + 1 for part in components)
    alike = len(set(components)) == 1 and components[0][1:] == b"\1\1"
    return JPEG2000Header(depths, any(part[0] & 0x80 for part in components), alike, bool({1, 2} & set(kinds)))


def avif_depth(path: str) -> int:
    """Return the bits of a sample of an AVIF: 8, 10 or 12."""
    with open(path, "rb") as file:
        head = file.read(_AVIF_HEAD)
    flags = [head[match.end() + 2] for match in re.finditer(_AV1_CONFIGURATION, head) if match.end() + 2 < len(head)]
    return 12 if any(each & 0x60 == 0x60 for each in flags) else 10 if any(each & 0x40 for each in flags) else 8


def trailing_exif(path: str) -> bytes | None:
    """Return the EXIF of a PNG that stands behind its pixels, as some programs write it; None without."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - _PNG_TAIL))
        tail = file.read()
    place = tail.rfind(b"eXIf")
    if place < 4:
        return None
    length = int.from_bytes(tail[place - 4 : place], "big")
    chunk, check = tail[place : place + 4 + length], tail[place + 4 + length : place + 8 + length]
    return chunk[4:] if check == zlib.crc32(chunk).to_bytes(4, "big") else None
