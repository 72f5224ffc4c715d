"""Make the folders of photographs that the models of photographs are trained on, from packages of Debian.

    python recipes/photographs.py -o photographs              # fetch the packages with apt-get
    python recipes/photographs.py --debs FOLDER -o photographs

`photographs.toml` lists the packages, `photographs.csv` the photographs in them: file, author, licence, shrink factor,
hashes. Both the packages and every file are checked against their SHA-256. A photograph is shrunk 2 to 4 times with an
antialiasing bicubic filter, which removes the traces of its compression, and written as an 8-bit RGB PNG. Photographs
of the validation set go to a second folder, by default `photographs-validation`. Each folder gets an `index.csv` with
the author and licence of every photograph. Photographs that are already there and right are left as they are.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

TABLES = Path(__file__).parent
INSIDE = "!/"  # separates the name of an archive of Qt resources from that of the file in it
INDEX_COLUMNS = (
    "name",
    "set",
    "author",
    "licence",
    "source",
    "package",
    "version",
    "file",
    "shrink",
    "width",
    "height",
)


class PhotographError(ValueError):
    """A package or a photograph that is missing, damaged or not the one in the table."""


@dataclass(frozen=True)
class Package:
    """A Debian package that holds photographs.

    `release` is the Debian release, `size` the bytes of the .deb.
    """

    name: str
    version: str
    release: str
    architecture: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """Name of the .deb as apt-get writes it."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


@dataclass(frozen=True)
class Photograph:
    """One row of the table.

    `file` is the path in the package, with `!/` before the path in a Qt resource archive. `shrink` divides width and
    height, `width` and `height` are those of the result, in pixels. `sha256` is that of the file,
    `pixels_sha256` that of the result's RGB bytes, row by row.
    """

    name: str
    set: str
    package: str
    file: str
    shrink: int
    width: int
    height: int
    licence: str
    author: str
    source: str
    sha256: str
    pixels_sha256: str


def read_tables(folder: Path = TABLES) -> tuple[dict[str, Package], list[Photograph]]:
    """Packages by name, and photographs.

    Raises
    ------
    PhotographError
        If a photograph names a package that is not listed, or two photographs share a name.
    """
    document = tomllib.loads((folder / "photographs.toml").read_text(encoding="utf-8"))
    packages = {values["name"]: Package(**values) for values in document["package"]}
    with (folder / "photographs.csv").open(encoding="utf-8", newline="") as file:
        photographs = [
            Photograph(**row | {key: int(row[key]) for key in ("shrink", "width", "height")})
            for row in csv.DictReader(file)
        ]
    names = [photograph.name for photograph in photographs]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise PhotographError(f"photographs.csv lists {sorted(repeated)[0]} more than once")
    for photograph in photographs:
        if photograph.package not in packages:
            raise PhotographError(f"photographs.toml does not list {photograph.package}, which holds {photograph.name}")
    return packages, photographs


def read_deb(path: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """Contents of some files of a Debian package, by their path without a leading "./".

    Raises
    ------
    PhotographError
        If the file is not a Debian package, is compressed in another way than gzip or xz, or lacks a wanted file.
    """
    missing = set(wanted)
    found: dict[str, bytes] = {}
    with path.open("rb") as package:
        archive = _data_archive(path, package)
        try:
            with tarfile.open(fileobj=archive, mode="r|*") as files:
                for member in files:
                    name = member.name.removeprefix("./")
                    if name in missing and member.isfile():
                        stream = files.extractfile(member)
                        assert stream is not None
                        found[name] = stream.read()
                        missing.remove(name)
                    if not missing:
                        break
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
            raise PhotographError(f"{path} is damaged, or its data is neither gzip nor xz: {error}") from error
    if missing:
        raise PhotographError(f"{path} does not hold {sorted(missing)[0]}")
    return found


def _data_archive(path: Path, package: IO[bytes]) -> IO[bytes]:
    """Read-only view of the member data.tar.* of an ar archive."""
    if package.read(8) != b"!<arch>\n":
        raise PhotographError(f"{path} is not a Debian package")
    while header := package.read(60):
        if len(header) < 60 or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise PhotographError(f"{path} is damaged: bad header at byte {package.tell() - len(header)}")
        size = int(header[48:58])
        if header[:16].startswith(b"data.tar"):
            return io.BufferedReader(_Slice(package, size))
        package.seek(size + size % 2, os.SEEK_CUR)  # members start at even offsets
    raise PhotographError(f"{path} is damaged: it has no data.tar")


class _Slice(io.RawIOBase):
    """The next `size` bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def read_rcc(blob: bytes) -> dict[str, bytes]:
    """Contents of a Qt resource archive (.rcc) by path.

    Raises
    ------
    PhotographError
        If it is not such an archive, is damaged, or holds a file compressed with Zstandard.
    """
    try:
        magic, version, tree, data, names = struct.unpack_from(">4s4I", blob)
        if magic != b"qres":
            raise PhotographError("not a Qt resource archive")
        return dict(_rcc_files(blob, (tree, 22 if version >= 2 else 14), data, names))
    except (struct.error, zlib.error, UnicodeDecodeError, RecursionError) as error:
        raise PhotographError(f"damaged Qt resource archive: {error}") from error


def _rcc_files(
    blob: bytes, tree: tuple[int, int], data: int, names: int, node: int = 0, folder: str = ""
) -> Iterator[tuple[str, bytes]]:
    """Walk the tree below a node; `tree` is the offset of the nodes and the size of each."""
    offset = tree[0] + node * tree[1]
    name_offset, flags = struct.unpack_from(">IH", blob, offset)
    (length,) = struct.unpack_from(">H", blob, names + name_offset)
    # A name is its length, a hash of 4 bytes and the characters. The root has none.
    start = names + name_offset + 6
    path = folder + (blob[start : start + 2 * length].decode("utf-16-be") if node else "")
    if flags & 2:
        count, first = struct.unpack_from(">II", blob, offset + 6)
        for child in range(first, first + count):
            yield from _rcc_files(blob, tree, data, names, child, path + ("/" if path else ""))
        return
    (data_offset,) = struct.unpack_from(">I", blob, offset + 10)
    (size,) = struct.unpack_from(">I", blob, data + data_offset)
    content = blob[data + data_offset + 4 : data + data_offset + 4 + size]
    if len(content) < size:
        raise PhotographError(f"damaged Qt resource archive: {path} ends early")
    if flags & 4:
        raise PhotographError(f"{path} is compressed with Zstandard, which this script does not read")
    yield path, zlib.decompress(content[4:]) if flags & 1 else content  # 4 bytes say the size


def shrink_photograph(blob: bytes, factor: int) -> Image.Image:
    """Decode a photograph and shrink it with an antialiasing bicubic filter.

    Parameters
    ----------
    blob : bytes
        JPEG, WebP, PNG, TIFF or another format of Pillow's, opaque.
    factor : int
        Divides width and height. Rows and columns that are left over at the bottom and right are cut off.

    Returns
    -------
    PIL.Image.Image
        RGB, 8 bits. The values are resampled as they are, gamma included.
    """
    with Image.open(io.BytesIO(blob)) as image:
        image.load()
        if "A" in image.getbands() and image.getchannel("A").getextrema() != (255, 255):
            raise PhotographError("partly transparent")
        colours = image.convert("RGB")
    width, height = colours.width // factor, colours.height // factor
    whole = colours.crop((0, 0, width * factor, height * factor))
    return whole.resize((width, height), Image.Resampling.BICUBIC)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixels_sha256(image: Image.Image) -> str:
    """SHA-256 of an image's RGB bytes: the same whatever wrote the file."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def find_deb(package: Package, folder: Path) -> Path:
    """Path of a package in a folder.

    Raises
    ------
    PhotographError
        If it is not there, or its SHA-256 is not that of the table.
    """
    path = folder / package.file_name
    if not path.is_file():
        raise PhotographError(f"{folder} does not hold {package.file_name} (Debian {package.release})")
    if (digest := sha256_of(path)) != package.sha256:
        raise PhotographError(f"{path} has SHA-256 {digest}, the table {package.sha256}")
    return path


def download_debs(packages: Sequence[Package], folder: Path) -> None:
    """Fetch packages with apt-get into a folder.

    Raises
    ------
    PhotographError
        If there is no apt-get, or it fails, for example because the configured release has other versions.
    """
    if shutil.which("apt-get") is None:
        wanted = ", ".join(package.file_name for package in packages)
        raise PhotographError(f"there is no apt-get here; put these packages into a folder for --debs: {wanted}")
    names = [f"{package.name}={package.version}" for package in packages]
    done = subprocess.run(
        ["apt-get", "download", "--quiet", *names], cwd=folder, stdout=sys.stderr, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
        releases = ", ".join(sorted({package.release for package in packages}))
        raise PhotographError(f"apt-get download failed (the packages are those of {releases}): {reason}")


def extract(photograph: Photograph, files: Mapping[str, bytes]) -> Image.Image:
    """Make one photograph from the files of its package, and of the archives in it.

    Raises
    ------
    PhotographError
        If the file or the result is not the one of the table.
    """
    blob = files.get(photograph.file)
    try:
        if blob is None:
            raise PhotographError("not in the archive")
        if (digest := hashlib.sha256(blob).hexdigest()) != photograph.sha256:
            raise PhotographError(f"SHA-256 {digest}, in the table {photograph.sha256}")
        image = shrink_photograph(blob, photograph.shrink)
        if (image.width, image.height) != (photograph.width, photograph.height):
            raise PhotographError(f"{image.width} x {image.height}, not {photograph.width} x {photograph.height}")
        if pixels_sha256(image) != photograph.pixels_sha256:
            raise PhotographError(
                "decoded to other pixels than in the table: this Pillow decodes or resamples otherwise"
            )
    except (PhotographError, OSError) as error:
        raise PhotographError(f"{photograph.package}: {photograph.file}: {error}") from error
    return image


def is_made(photograph: Photograph, path: Path) -> bool:
    """Whether a photograph is already there.

    Raises
    ------
    PhotographError
        If another image has its name: it is the user's, and not overwritten.
    """
    if not path.exists():
        return False
    try:
        with Image.open(path) as image:
            same = pixels_sha256(image) == photograph.pixels_sha256
    except OSError:
        same = False
    if not same:
        raise PhotographError(
            f"{path} exists and is not the photograph of the table; remove it or choose another folder"
        )
    return True


def write_index(path: Path, photographs: Sequence[Photograph], packages: Mapping[str, Package]) -> None:
    """Write author, licence and origin of each photograph as CSV, in one step."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, INDEX_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for photograph in photographs:
            writer.writerow(vars(photograph) | {"version": packages[photograph.package].version})
    partial.replace(path)


def make_folders(
    packages: Mapping[str, Package],
    photographs: Sequence[Photograph],
    folders: Mapping[str, Path],
    debs: Path | None = None,
) -> int:
    """Write all photographs.

    Parameters
    ----------
    packages : mapping of str to Package
    photographs : sequence of Photograph
    folders : mapping of str to Path
        Folder of each set, "training" and "validation".
    debs : Path, optional
        Folder with the packages. By default they are fetched with apt-get.

    Returns
    -------
    int
        How many photographs were written; the others were there.
    """
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    paths = {photograph: folders[photograph.set] / f"{photograph.name}.png" for photograph in photographs}
    missing = [photograph for photograph, path in paths.items() if not is_made(photograph, path)]
    needed = [package for name, package in packages.items() if any(one.package == name for one in missing)]
    with tempfile.TemporaryDirectory(prefix="photographs-") as temporary:
        if debs is None and needed:
            download_debs(needed, Path(temporary))
        for package in needed:
            deb = find_deb(package, debs or Path(temporary))
            wanted = [photograph for photograph in missing if photograph.package == package.name]
            files = read_deb(deb, {photograph.file.partition(INSIDE)[0] for photograph in wanted})
            for archive in {photograph.file.partition(INSIDE)[0] for photograph in wanted if INSIDE in photograph.file}:
                files |= {f"{archive}{INSIDE}{name}": blob for name, blob in read_rcc(files[archive]).items()}
            for photograph in wanted:
                path = paths[photograph]
                partial = path.with_name(f".{path.name}.partial")
                extract(photograph, files).save(partial, format="PNG", optimize=False)
                partial.replace(path)
            print(f"{package.name} {package.version}: {len(wanted)} photographs", flush=True)
    for name, folder in folders.items():
        write_index(folder / "index.csv", [one for one in photographs if one.set == name], packages)
    return len(missing)


def summary(photographs: Sequence[Photograph]) -> str:
    """Count photographs and megapixels of both sets."""
    counts = []
    for name in ("training", "validation"):
        chosen = [photograph for photograph in photographs if photograph.set == name]
        megapixels = sum(photograph.width * photograph.height for photograph in chosen) / 1e6
        counts.append(f"{name}: {len(chosen)} photographs, {megapixels:.1f} megapixels")
    return "; ".join(counts)


def main(arguments: Sequence[str] | None = None, tables: Path = TABLES) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", required=True, help="for the training set")
    parser.add_argument("--validation", type=Path, metavar="FOLDER", help="default: the output with -validation")
    parser.add_argument("--debs", type=Path, metavar="FOLDER", help="with the packages; default: apt-get download")
    options = parser.parse_args(arguments)
    output = Path(os.path.abspath(options.output))
    validation = options.validation or output.with_name(f"{output.name}-validation")
    try:
        packages, photographs = read_tables(tables)
        written = make_folders(packages, photographs, {"training": output, "validation": validation}, options.debs)
    except (PhotographError, OSError) as error:
        print(f"photographs.py: {error}", file=sys.stderr)
        return 1
    print(f"{summary(photographs)}; {written} written, the others were there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
