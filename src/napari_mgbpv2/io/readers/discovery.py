"""Discovery of images by paths, folders, glob patterns and addresses."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from napari_mgbpv2.addresses import expand_path, is_url
from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers.tiff.multi_file import parts_of_other_images
from napari_mgbpv2.io.results import is_result

PathPredicate = Callable[[str], bool]
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup")
# Files with these suffixes count as images. Other files in folders count if their first bytes match a known format.
# Files that are named explicitly may have any name.
IMAGE_SUFFIXES = (
    ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".svs", ".ndpi", ".lsm", ".stk", ".qptiff",
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".jpx", ".webp", ".avif",
    ".j2c", ".jpc", ".bmp", ".dib", ".gif", ".tga", ".icb", ".vda", ".vst", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm",
    ".pcx", ".sgi", ".rgb", ".rgba", ".bw", ".dds", ".psd", ".qoi", ".ico", ".icns", ".ras", ".im", ".xbm", ".xpm",
    ".msp", ".fli", ".flc",
    ".npy", ".zarr.zip", ".ozx", ".nii", ".nii.gz", ".czi", ".dv", ".r3d", ".lif", ".nd2",
)  # fmt: skip
# Files that start like images, but are raw camera files with a small preview, or incomplete downloads.
_NOT_BY_CONTENT = (
    ".nef", ".nrw", ".cr2", ".arw", ".srf", ".sr2", ".dng", ".orf", ".rw2", ".pef", ".srw", ".3fr", ".iiq", ".erf",
    ".kdc", ".dcr", ".mos", ".part", ".partial", ".crdownload", ".tmp", ".lock",
)  # fmt: skip
_IMAGE_MAGICS = (
    b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x93NUMPY", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a",
    b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51\0", b"8BPS\0\x01", b"qoif",
)  # fmt: skip
_NIFTI_AT, _NIFTI_MARKS = 344, (b"ni1\0", b"n+1\0")
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"}
_MISSING = "there is no such file or folder; check the path."
_NO_MATCH = "no file or folder matches this pattern; check the path."
_RESULT = "a result of this program"


@dataclass(frozen=True)
class FoundImage:
    """An image that was found.

    Attributes
    ----------
    path
        Absolute path or address, for `open_source`.
    folder
        Folder below which it was found; None if it was named explicitly.
    """

    path: str
    folder: str | None = None


@dataclass(frozen=True)
class SkippedFile:
    """A path that was not used as an image.

    Attributes
    ----------
    path
        The path, or the pattern.
    reason
        The reason: "no image", "a result of this program", "a link that leads nowhere", ...
    is_failure
        Whether a requested image is missing because of it.
    """

    path: str
    reason: str
    is_failure: bool = False


@dataclass(frozen=True)
class Search:
    """Result of a search.

    Attributes
    ----------
    images
        The images in order, each once.
    skipped
        All other paths, except hidden files and system files.
    """

    images: tuple[FoundImage, ...]
    skipped: tuple[SkippedFile, ...] = ()


@dataclass(frozen=True)
class SearchLocation:
    """An existing file, folder or address to search.

    Attributes
    ----------
    path
        Absolute path, or an address.
    folder
        Fixed leading folder of the pattern that it matches; None if it was named explicitly.
    any_file
        Whether to accept a file of any name and content: it was named explicitly, or by a pattern that specifies more
        of its name than ``*``.
    """

    path: str
    folder: str | None = None
    any_file: bool = True


def find_sources(patterns: Paths) -> list[str]:
    """Find images. Of files in folders, only the first bytes are read.

    Parameters
    ----------
    patterns
        One or several of: an image file or a Zarr of any name; a folder, which is searched recursively for Zarrs and
        for files with the suffix or first bytes of an image, except hidden ones; a pattern such as
        ``scans/**/*.tif``; an address, ``https://...`` or ``s3://...``. ``~`` is the home folder. Results of this
        program are found only by their own path, not in folders or by patterns. An OME-TIFF in several files is found
        once.

    Returns
    -------
    list of str
        Absolute paths and addresses for `open_source`, each once, in the order of ``patterns`` and in natural order
        within each.

    Raises
    ------
    SourceError
        A path does not exist, a folder does not hold an image, or a pattern matches nothing.
    """
    return [image.path for image in search(patterns, strict=True).images]


def search(patterns: Paths, *, strict: bool = False) -> Search:
    """Find images, and list the skipped paths.

    Parameters
    ----------
    patterns
        One or several image files, Zarrs, folders, glob patterns or addresses; see `find_sources`.
    strict
        Whether each pattern must yield an image. By default, a pattern without images is listed as skipped.

    Raises
    ------
    SourceError
        No image was found, or with ``strict`` none for one of the patterns.
    """
    several = [patterns] if isinstance(patterns, (str, os.PathLike)) else list(patterns)
    if not several:
        raise SourceError("no image is given; name image files, folders or patterns such as 'scans/*.tif'.")
    images: dict[str, FoundImage] = {}
    skipped: dict[str, SkippedFile] = {}
    for pattern in several:
        try:
            found = [images_in(location) for location in find_locations(pattern)]
            if strict or len(several) == 1:
                check_found(pattern, found)
        except MissingError as error:
            if strict or len(several) == 1:
                raise
            skipped.setdefault(error.path, SkippedFile(error.path, error.reason, is_failure=True))
            continue
        for each in found:
            for image in each.images:
                images.setdefault(image.path, image)
            for other in each.skipped:
                skipped.setdefault(other.path, other)
    for part, first in parts_of_other_images(
        image.path for image in images.values() if image.folder is not None
    ).items():
        del images[part]
        skipped[part] = SkippedFile(part, f"a part of the image in {os.path.basename(first)}")
    if not images:
        failure = next((each for each in skipped.values() if each.is_failure), None)
        raise MissingError(failure.path, failure.reason) if failure else _no_image(str(several[0]), skipped.values())
    return Search(tuple(images.values()), tuple(each for path, each in skipped.items() if path not in images))


class MissingError(SourceError):
    """A path or a match of a pattern is missing.

    Attributes
    ----------
    path, reason
        Parts of the message.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[MissingError], tuple[str, str]]:
        return MissingError, (self.path, self.reason)


def find_locations(path: str | os.PathLike[str]) -> list[SearchLocation]:
    """Return a path or address itself, or the sorted matches of a pattern.

    An existing path is never treated as a pattern, and neither are existing folders above a pattern.

    Raises
    ------
    SourceError
        The path does not exist, or the pattern matches nothing.
    """
    given = expand_path(os.fspath(path))
    if is_url(given):
        return [SearchLocation(given)]
    if not given:
        raise MissingError("''", "an empty name is no image; " + _MISSING)
    whole = os.path.abspath(given)
    if os.path.lexists(whole):
        return [SearchLocation(whole)]
    _check_reachable(whole)
    if not glob.has_magic(given):
        advice = "standard input is not read; give a file." if given == "-" else _MISSING
        raise MissingError(whole, advice)
    fixed, varying = _fixed_and_varying(given)
    matches = glob.glob(os.path.join(glob.escape(fixed), varying), recursive=True)
    if not matches:  # brackets in the name of an existing folder may also be part of the pattern
        matches = glob.glob(given, recursive=True)
    if not matches:
        raise MissingError(whole, _NO_MATCH)
    any_file = os.path.basename(varying) not in ("", "*", "**")
    root = os.path.abspath(fixed)
    absolute = sorted({os.path.abspath(match) for match in matches}, key=natural_order)
    zarrs = {match for match in absolute if is_zarr(match)}
    return [SearchLocation(match, root, any_file) for match in absolute if not _is_below(match, zarrs)]


def images_in(
    location: SearchLocation, *, is_skipped: PathPredicate = lambda _: False, every_file: bool = False
) -> Search:
    """Return the place itself, or the sorted images below a folder, and the skipped paths.

    Parameters
    ----------
    place
        One result of `find_locations`.
    is_skipped
        Function from a folder to whether it is skipped. Hidden folders and links to folders are always skipped.
    every_file
        Whether to return all files in folders, for callers that detect images themselves.
    """
    path, root = location.path, location.folder
    if is_url(path) or (root is None and (not os.path.isdir(path) or is_zarr(path))):
        return Search((FoundImage(path),))
    images: list[FoundImage] = []
    skipped: list[SkippedFile] = []
    if os.path.isdir(path) and not is_zarr(path):
        found = _below(path, is_skipped, every_file)
    else:
        found = iter([_classify(path, any_file=every_file or location.any_file)])
    for each in found:
        if isinstance(each, SkippedFile):
            skipped.append(each)
        else:
            images.append(FoundImage(each, path if root is None else root))
    images.sort(key=lambda image: natural_order(image.path))
    skipped.sort(key=lambda other: natural_order(other.path))
    return Search(tuple(images), tuple(skipped))


def check_found(pattern: str | os.PathLike[str], found: Iterable[Search]) -> None:
    """Raise `SourceError` if a path, folder or pattern yielded no image."""
    found = list(found)
    if not any(each.images for each in found):
        skipped = [other for each in found for other in each.skipped]
        failure = next((other for other in skipped if other.is_failure), None)
        if failure is not None:
            raise MissingError(failure.path, failure.reason)
        raise _no_image(os.path.abspath(expand_path(os.fspath(pattern))), skipped)


def is_zarr(folder: str) -> bool:
    """Return whether a folder is a Zarr array or group."""
    return any(os.path.exists(os.path.join(folder, marker)) for marker in ZARR_MARKERS)


def check_file(path: str) -> None:
    """Refuse anything but files and folders, before reading would block.

    Raises
    ------
    SourceError
        The path is missing, a broken or circular link, a pipe, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if (reason := _link_or_missing_reason(path, error)) is None:
            reason = f"cannot be read ({error.strerror}); check the file and its permissions."
        raise MissingError(path, reason) from None
    if (kind := _kind_of(mode)) is not None:
        raise SourceError(f"{path}: is {kind}, not a file; save the image to a file and give that.")


def natural_order(path: str) -> tuple[list[str | int], str]:
    """Return a sort key for natural order: "2.tif" comes before "10.tif"."""
    parts: list[str | int] = [*re.split(r"([0-9]+)", path.casefold())]  # text and digits alternate
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, path


def _check_reachable(path: str) -> None:
    """Raise `MissingError` if the folder of a path cannot be accessed."""
    try:
        os.lstat(path)
    except PermissionError as error:
        raise MissingError(path, f"cannot be looked for ({error.strerror}); check the folder's permissions.") from error
    except (OSError, ValueError):  # missing
        return


def _fixed_and_varying(pattern: str) -> tuple[str, str]:
    """Split a pattern into its fixed leading folder and the varying rest."""
    fixed, names = "", pattern.split(os.sep) if os.altsep is None else re.split(r"[\\/]", pattern)
    for number, name in enumerate(names[:-1]):
        further = f"{fixed}{name}{os.sep}"
        if glob.has_magic(name) and not os.path.isdir(further):
            return fixed, os.sep.join(names[number:])
        fixed = further
    return fixed, names[-1]


def _no_image(path: str, skipped: Iterable[SkippedFile]) -> SourceError:
    reasons = [each.reason for each in skipped]
    if _RESULT in reasons:
        return SourceError(
            f"{path}: holds no image but {reasons.count(_RESULT)} that this program has made; "
            "to upscale one of those again, name it."
        )
    return SourceError(f"{path}: this folder holds no image; give one with TIFF, PNG, JPEG, .npy or Zarr images.")


def _below(folder: str, is_skipped: PathPredicate, every_file: bool) -> Iterator[str | SkippedFile]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        yield SkippedFile(folder, f"cannot be searched ({error.strerror}); check its permissions.", is_failure=True)
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.casefold() in _SYSTEM_FILES:
            continue
        if not os.path.isdir(entry.path) or is_zarr(entry.path):  # entry.is_dir() fails at a link to itself
            yield _classify(entry.path, any_file=every_file)
        elif entry.is_symlink():  # links may be circular
            yield SkippedFile(entry.path, "a link to a folder; name it itself")
        elif is_skipped(entry.path):
            yield SkippedFile(entry.path, "prepared patches")
        else:
            yield from _below(entry.path, is_skipped, every_file)


def _classify(path: str, *, any_file: bool = False) -> str | SkippedFile:
    """Return the path of a file or Zarr if it is an image, else why it is skipped."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        reason = _link_or_missing_reason(path, error) or f"cannot be read ({error.strerror}); check its permissions."
        return SkippedFile(path, reason, is_failure=any_file or _has_suffix(path))
    if (kind := _kind_of(mode)) is not None:
        return SkippedFile(path, f"{kind}, no file")
    is_image = any_file or stat.S_ISDIR(mode) or _has_suffix(path) or _starts_like_image(path)
    if not is_image:
        return SkippedFile(path, "no image")
    return SkippedFile(path, _RESULT) if is_result(path) else path


def _link_or_missing_reason(path: str, error: OSError) -> str | None:
    """Return the reason if a path is a bad link or missing; None for other errors."""
    if error.errno == errno.ELOOP:
        return "is a link that leads to itself; fix or remove it."
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "is a link that leads nowhere; fix or remove it." if os.path.islink(path) else _MISSING
    return None


def _kind_of(mode: int) -> str | None:
    """Return the name of a special file; None for files and folders."""
    for kind, name in (("FIFO", "a pipe (FIFO)"), ("SOCK", "a socket"), ("CHR", "a device"), ("BLK", "a device")):
        if getattr(stat, f"S_IS{kind}")(mode):
            return name
    return None


def _starts_like_image(path: str) -> bool:
    """Return whether the first bytes of a file are those of an image format."""
    if path.lower().endswith(_NOT_BY_CONTENT):
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(_NIFTI_AT + 4)
    except OSError:
        return False
    return (
        start.startswith(_IMAGE_MAGICS)
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or start[4:12] in (b"ftypavif", b"ftypavis")
        or (start[:2] == b"BM" and start[6:10] == bytes(4) and start[15:18] == bytes(3))
        or start[_NIFTI_AT:] in _NIFTI_MARKS
    )


def _is_below(path: str, folders: set[str]) -> bool:
    above = os.path.dirname(path)
    while above not in folders and above != os.path.dirname(above):
        above = os.path.dirname(above)
    return above in folders


def _has_suffix(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES)
