"""Which licences may stand beside ours: those that ask for a notice and no more, and files of Mozilla's as they are."""

from __future__ import annotations

import re

# How names of licences begin, by SPDX and by the classifiers of packages.
_FREE = (
    "0bsd",
    "3-clause bsd",
    "apache",
    "bsd",
    "bsl-1.0",
    "cc0",
    "cnri-python",
    "hpnd",
    "isc",
    "mit",
    "mozilla public license 2",
    "mpl-2.0",
    "psf",
    "python software foundation",
    "the unlicense",
    "unlicense",
    "zlib",
)
# What torch requires on Linux for CUDA. It is NVIDIA's own and not free; users get it from NVIDIA, never from us.
_NOT_OURS_TO_JUDGE = ("cuda-", "nvidia-")


def is_free(licence: str) -> bool:
    """Whether all parts of a licence are free; of alternatives ("OR"), one."""
    parts = re.split(r"\band\b|;", re.sub(r"[()]", " ", licence.lower().replace("(mpl 2.0)", "")))
    return all(any(each.strip().startswith(_FREE) for each in re.split(r"\bor\b", part)) for part in parts)


def not_free(packages: list[dict[str, str]]) -> list[str]:
    """Name the packages, of a list by pip-licenses, of whose licence nobody has thought."""
    judged = (each for each in packages if not each["Name"].startswith(_NOT_OURS_TO_JUDGE))
    return [f"{each['Name']} ({each['License']})" for each in judged if not is_free(each["License"])]
