"""recipes/photographs.py, on packages and resource archives that are made here."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

RECIPE = Path(__file__).parents[1] / "recipes" / "photographs.py"


def load_recipe() -> ModuleType:
    specification = importlib.util.spec_from_file_location("photographs", RECIPE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


photographs = load_recipe()


def picture(seed: int, width: int = 46, height: int = 33, file_format: str = "PNG") -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, file_format)
    return file.getvalue()


def make_deb(path: Path, files: dict[str, bytes], compression: str = "xz") -> Path:
    """A package as dpkg-deb lays it out: an ar archive with a tar archive of the files."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", f"data.tar.{compression}": tar.getvalue()}
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in members.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return path


def make_rcc(files: dict[str, bytes], *, version: int = 2, compressed: bool = True, flags: int = 0) -> bytes:
    """A Qt resource archive with all files in one folder, "pictures"."""
    names, data = b"", b""
    name_offsets, data_offsets = {}, {}
    for name in ("", "pictures", *files):
        name_offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    for name, content in files.items():
        data_offsets[name] = len(data)
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if compressed else content
        data += struct.pack(">I", len(stored)) + stored
    modified = struct.pack(">Q", 0) if version >= 2 else b""
    tree = struct.pack(">IHII", name_offsets[""], 2, 1, 1) + modified
    tree += struct.pack(">IHII", name_offsets["pictures"], 2, len(files), 2) + modified
    for name in files:
        kind = flags or int(compressed)
        tree += struct.pack(">IHHHI", name_offsets[name], kind, 0, 0, data_offsets[name]) + modified
    start = 20 if version < 3 else 24
    header = struct.pack(">4s4I", b"qres", version, start, start + len(tree) + len(names), start + len(tree))
    return header.ljust(start, b"\0") + tree + names + data


def row(name: str, file: str, blob: bytes, shrink: int = 2, chosen_set: str = "training"):
    image = photographs.shrink_photograph(blob, shrink)
    return photographs.Photograph(
        name=name,
        set=chosen_set,
        package="pictures-data",
        file=file,
        shrink=shrink,
        width=image.width,
        height=image.height,
        licence="CC0-1.0",
        author="Jane Doe",
        source="",
        sha256=hashlib.sha256(blob).hexdigest(),
        pixels_sha256=photographs.pixels_sha256(image),
    )


class Folder:
    """A folder with a package of two photographs, and the tables that list them."""

    def __init__(self, folder: Path) -> None:
        self.debs, self.tables = folder / "debs", folder / "tables"
        self.debs.mkdir()
        self.tables.mkdir()
        self.output, self.validation = folder / "photographs", folder / "photographs-validation"
        tree, cat = picture(1, file_format="JPEG"), picture(2)
        files = {"usr/share/tree.jpg": tree, "usr/share/all.rcc": make_rcc({"cat.png": cat, "README": b"free"})}
        self.deb = make_deb(self.debs / "pictures-data_1%3a2.0-1_all.deb", files)
        self.photographs = [
            row("pictures-data_tree", "usr/share/tree.jpg", tree, shrink=3),
            row("pictures-data_cat", "usr/share/all.rcc!/pictures/cat.png", cat, chosen_set="validation"),
        ]
        self.write_tables(self.photographs)

    def write_tables(self, rows) -> None:
        size, digest = self.deb.stat().st_size, photographs.sha256_of(self.deb)
        (self.tables / "photographs.toml").write_text(
            '[[package]]\nname = "pictures-data"\nversion = "1:2.0-1"\nrelease = "bookworm (12)"\n'
            f'architecture = "all"\nsize = {size}\nsha256 = "{digest}"\n'
        )
        with (self.tables / "photographs.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(self.photographs[0])))
            writer.writeheader()
            writer.writerows(asdict(one) for one in rows)

    def run(self, *arguments: str) -> int:
        return photographs.main(["--debs", str(self.debs), "-o", str(self.output), *arguments], self.tables)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_photographs_of_packages_and_of_archives_in_them_are_shrunk_and_written(folder: Folder) -> None:
    assert folder.run() == 0
    with Image.open(folder.output / "pictures-data_tree.png") as tree:
        assert (tree.mode, tree.size) == ("RGB", (46 // 3, 33 // 3))
    with Image.open(folder.validation / "pictures-data_cat.png") as cat:
        whole = Image.open(io.BytesIO(picture(2))).crop((0, 0, 46, 32))
        assert cat.tobytes() == whole.resize((23, 16), Image.Resampling.BICUBIC).tobytes()
    assert not (folder.output / "pictures-data_cat.png").exists()


def test_the_index_names_author_and_licence_of_each_photograph(folder: Folder) -> None:
    folder.run()
    with (folder.output / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [one["name"] for one in rows] == ["pictures-data_tree"]
    assert (rows[0]["author"], rows[0]["licence"], rows[0]["version"]) == ("Jane Doe", "CC0-1.0", "1:2.0-1")


def test_a_second_run_writes_nothing_and_needs_no_package(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.run()
    folder.deb.unlink()
    before = (folder.output / "pictures-data_tree.png").stat().st_mtime_ns
    assert folder.run() == 0
    assert (folder.output / "pictures-data_tree.png").stat().st_mtime_ns == before
    assert "0 written" in capsys.readouterr().out


def test_a_missing_photograph_is_made_again(folder: Folder) -> None:
    folder.run()
    (folder.output / "pictures-data_tree.png").unlink()
    assert folder.run() == 0
    assert (folder.output / "pictures-data_tree.png").exists()


def test_another_image_of_the_same_name_is_not_overwritten(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.output.mkdir()
    theirs = folder.output / "pictures-data_tree.png"
    theirs.write_bytes(picture(3))
    assert folder.run() == 1
    assert theirs.read_bytes() == picture(3)
    assert "pictures-data_tree.png exists and is not" in capsys.readouterr().err


def test_a_package_that_is_not_the_one_of_the_table_is_refused(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    make_deb(folder.deb, {"usr/share/tree.jpg": picture(4, file_format="JPEG")})
    assert folder.run() == 1
    assert "has SHA-256" in capsys.readouterr().err
    assert not list(folder.output.glob("*.png"))


def test_a_missing_package_is_named_with_its_release(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.deb.unlink()
    assert folder.run() == 1
    assert "pictures-data_1%3a2.0-1_all.deb (Debian bookworm (12))" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("sha256", "0" * 64, "in the table 0000"),
        ("pixels_sha256", "0" * 64, "other pixels"),
        ("file", "usr/share/bush.jpg", "does not hold usr/share/bush.jpg"),
        ("file", "usr/share/all.rcc!/pictures/dog.png", "dog.png: not in the archive"),
        ("width", 99, "not 99 x"),
        ("package", "other-data", "does not list other-data"),
    ],
)
def test_what_differs_from_the_table_is_refused(
    folder: Folder, capsys: pytest.CaptureFixture[str], column: str, value: object, message: str
) -> None:
    folder.write_tables([replace(folder.photographs[0], **{column: value})])
    assert folder.run() == 1
    assert message in capsys.readouterr().err
    assert not list(folder.output.glob("*.png"))


def test_two_photographs_of_one_name_are_refused(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write_tables([folder.photographs[0]] * 2)
    assert folder.run() == 1
    assert "more than once" in capsys.readouterr().err


def test_packages_compressed_with_gzip_are_read(tmp_path: Path) -> None:
    deb = make_deb(tmp_path / "a.deb", {"usr/a": b"content", "usr/b": b"other"}, "gz")
    assert photographs.read_deb(deb, ["usr/b"]) == {"usr/b": b"other"}


@pytest.mark.parametrize("damage", ["not a package", "cut", "no data", "zstd"])
def test_damaged_packages_end_in_one_sentence(tmp_path: Path, damage: str) -> None:
    deb = make_deb(tmp_path / "a.deb", {"usr/a": bytes(range(256)) * 40})
    content = deb.read_bytes()
    changed = {
        "not a package": b"PK" + content,
        "cut": content[:-300],
        "no data": content.replace(b"data.tar", b"tada.tar"),
        "zstd": content.replace(lzma.compress(b"")[:6], b"\x28\xb5\x2f\xfd\0\0"),
    }
    deb.write_bytes(changed[damage])
    with pytest.raises(photographs.PhotographError, match=r"a\.deb"):
        photographs.read_deb(deb, ["usr/a"])


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("compressed", [True, False])
def test_resource_archives_of_all_versions_are_read(version: int, compressed: bool) -> None:
    files = {"cat.png": picture(5), "grün.txt": b""}
    archive = make_rcc(files, version=version, compressed=compressed)
    assert photographs.read_rcc(archive) == {f"pictures/{name}": content for name, content in files.items()}


@pytest.mark.parametrize("archive", [b"", b"qres", b"GIF89a" + bytes(40), make_rcc({"a": bytes(99)})[:-40]])
def test_damaged_resource_archives_are_refused(archive: bytes) -> None:
    with pytest.raises(photographs.PhotographError):
        photographs.read_rcc(archive)


def test_files_compressed_with_zstandard_are_refused_by_name() -> None:
    with pytest.raises(photographs.PhotographError, match=r"pictures/cat\.png is compressed with Zstandard"):
        photographs.read_rcc(make_rcc({"cat.png": b"x"}, compressed=False, flags=4))


def test_photographs_with_transparent_parts_are_refused() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(file, "PNG")
    with pytest.raises(photographs.PhotographError, match="transparent"):
        photographs.shrink_photograph(file.getvalue(), 2)


def test_apt_get_is_asked_for_the_versions_of_the_table(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(command: list[str], cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        (Path(cwd) / folder.deb.name).write_bytes(folder.deb.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(photographs.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(photographs.subprocess, "run", fetch)
    assert photographs.main(["-o", str(folder.output)], folder.tables) == 0
    assert asked == [["apt-get", "download", "--quiet", "pictures-data=1:2.0-1"]]
    assert (folder.output / "pictures-data_tree.png").exists()


def test_a_failure_of_apt_get_is_reported_with_its_reason(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 100, "", "E: Version '1:2.0-1' was not found\n")

    monkeypatch.setattr(photographs.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(photographs.subprocess, "run", fail)
    assert photographs.main(["-o", str(folder.output)], folder.tables) == 1
    assert "Version '1:2.0-1' was not found" in capsys.readouterr().err


def test_the_committed_tables_are_sound() -> None:
    packages, rows = photographs.read_tables()
    assert {one.package for one in rows} == set(packages)
    assert {one.set for one in rows} == {"training", "validation"}
    assert all(one.licence and one.author and one.shrink in (1, 2, 3, 4) for one in rows)


def test_no_photograph_that_is_kept_for_measuring_is_listed() -> None:
    reserved = (
        "EveningGlow",
        "picosdeeuropa",
        "friends_by",
        "Picture_1A",
        "LadyBird",
        "cincinnati-bridge",
        "img2d",
        "img3d",
    )
    _, rows = photographs.read_tables()
    assert not [one.file for one in rows for name in reserved if name in one.file]
