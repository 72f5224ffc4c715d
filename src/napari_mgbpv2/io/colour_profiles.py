"""ICC profiles: what the numbers of an image mean as colours. They travel as they are, and only with such numbers."""

from __future__ import annotations

_SPACE, _SIGNATURE = slice(16, 20), slice(36, 40)  # of the header of 128 bytes
_SPACES = {1: b"GRAY", 2: b"GRAY", 3: b"RGB ", 4: b"RGB "}  # by samples of a pixel, alpha included


def fitting_profile(profile: object, samples: int) -> bytes | None:
    """Return an ICC profile if it is one, and one of pixels of so many samples; else None."""
    if not isinstance(profile, (bytes, bytearray)) or len(profile) < 128 or profile[_SIGNATURE] != b"acsp":
        return None
    return bytes(profile) if profile[_SPACE] == _SPACES.get(samples) else None
