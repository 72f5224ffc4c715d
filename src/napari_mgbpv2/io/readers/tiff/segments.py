"""The size that an encoded tile or strip says of itself, read before it is decoded: it may be a few bytes' claim.

Codecs of bytes (Deflate, LZW, Zstandard, ...) are given no more room than the TIFF says that a segment needs. Codecs of
images have a size of their own, which need not be that of the TIFF.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from tifffile import COMPRESSION

Size = tuple[int, int, int]  # height, width and samples; 0 where it is not known, negative of lossless JPEG
_MORE_ROWS = 16  # that a codec may have, which counts in whole blocks
_LOSSLESS_JPEG = (0xC3, 0xC7, 0xCB, 0xCF)


def check_size(compression: int, encoded: bytes, whole: tuple[int, int], inside: tuple[int, int], samples: int) -> None:
    """Refuse an encoded segment that says to have another size than the TIFF has it.

    Parameters
    ----------
    compression
        Of the segment, as TIFF numbers it.
    encoded
        The segment.
    whole
        Height and width of a segment.
    inside
        The same, cut to the image.
    samples
        Samples of a pixel; one more is let through, as a codec may add an opaque alpha.

    Raises
    ------
    ValueError
        It has another size: it would need more memory, or its rows would be cut at wrong places.
    """
    reader = _READERS.get(int(compression))
    if reader is None:
        return
    try:
        found = reader(encoded)
    except (struct.error, IndexError):  # it is cut short, which its decoder notices
        return
    if found is None:
        return
    height, width, own_samples = found
    if own_samples < 0:  # lossless JPEG may take two pixels for two samples of one
        fits = height * width * -own_samples <= (whole[0] + _MORE_ROWS) * whole[1] * samples
    else:
        as_whole = width == whole[1] and height <= whole[0] + _MORE_ROWS
        fits = (as_whole or (height, width) == inside) and own_samples <= max(4, samples + 1)
    if not fits:
        raise ValueError(f"is {height:,} x {width:,} pixels where the TIFF has {whole[0]:,} x {whole[1]:,}")


def _jpeg(data: bytes) -> Size | None:
    if not data.startswith(b"\xff\xd8"):  # NDPI has the header elsewhere
        return None
    place = 2
    while place < len(data) - 9:
        if data[place] != 0xFF:
            place += 1
            continue
        marker = data[place + 1]
        if marker == 0xFF or marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, samples = struct.unpack_from(">HHB", data, place + 5)
            return height, width, -samples if marker in _LOSSLESS_JPEG else samples
        if marker == 0xDA:
            return None
        place += 2 + int(struct.unpack_from(">H", data, place + 2)[0])
    return None


def _jpeg_2000(data: bytes) -> Size | None:
    start = data.find(b"\xff\x4f\xff\x51")  # of the codestream, which a JP2 file wraps
    if start < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    (samples,) = struct.unpack_from(">H", data, start + 40)
    return max(0, bottom - top), max(0, right - left), samples


def _png(data: bytes) -> Size | None:
    if not data.startswith(b"\x89PNG"):
        return None
    width, height = struct.unpack_from(">2I", data, 16)
    return height, width, 0


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little"), 0
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF), 0
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<2H", data, 26)
        return height & 0x3FFF, width & 0x3FFF, 0
    return None


def _jpeg_xr(data: bytes) -> Size | None:
    """Read the tags of its container, which is like a TIFF of its own."""
    if data[:2] != b"II":
        return None
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    sizes = {0xBC80: 0, 0xBC81: 0}  # width, height
    for number in range(min(count, 256)):
        code, kind, _, value = struct.unpack_from("<HHII", data, place + 2 + 12 * number)
        if code in sizes:
            sizes[code] = value & {1: 0xFF, 3: 0xFFFF}.get(kind, 0xFFFFFFFF)
    return sizes[0xBC81], sizes[0xBC80], 0


def _jpeg_xl(data: bytes) -> Size | None:
    start = 0
    if not data.startswith(b"\xff\x0a"):
        start = data.find(b"\xff\x0a")  # in a box of a container
        if start < 0:
            return None
    bits, place = int.from_bytes(data[start + 2 : start + 24], "little"), 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return bits >> (place - count) & ((1 << count) - 1)

    def length() -> int:
        return 1 + take((9, 13, 18, 30)[take(2)])

    if take(1):  # in units of 8 pixels
        height = 8 * (1 + take(5))
        ratio = take(3)
        width = 8 * (1 + take(5)) if ratio == 0 else 0
    else:
        height = length()
        ratio = take(3)
        width = length() if ratio == 0 else 0
    if ratio:
        above, below = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
        width = height * above // below
    return height, width, 0


def _lerc(data: bytes) -> Size | None:
    if not data.startswith(b"Lerc2 "):
        return None
    (version,) = struct.unpack_from("<i", data, 6)
    place = 14 if version >= 3 else 10  # a checksum comes first
    height, width = struct.unpack_from("<2i", data, place)
    samples = struct.unpack_from("<i", data, place + 8)[0] if version >= 4 else 1
    return height, width, samples


_READERS: dict[int, Callable[[bytes], Size | None]] = {
    **dict.fromkeys((6, 7, 33007, 34892), _jpeg),
    **dict.fromkeys((33003, 33004, 33005, 34712), _jpeg_2000),
    **dict.fromkeys((22610, 34934), _jpeg_xr),
    **dict.fromkeys((50002, 52546), _jpeg_xl),
    int(COMPRESSION.PNG): _png,
    int(COMPRESSION.WEBP): _webp,
    int(COMPRESSION.LERC): _lerc,
}
