"""Headers of .npy files that are damaged or made to do harm: refused in plain words, before anything large is read."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import open_source

DAMAGED = "its header is damaged: save it again with numpy.save"


def write_npy(path: Path, header: str, version: tuple[int, int] = (1, 0), length: int | None = None) -> Path:
    data = header.encode()
    size = struct.pack("<H" if version == (1, 0) else "<I", len(data) if length is None else length)
    path.write_bytes(b"\x93NUMPY" + bytes(version) + size + data + bytes(64))
    return path


def header_of(dtype: str = "|u1", shape: str = "(8, 8)", fortran: str = "False") -> str:
    return f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: cannot be read as a NumPy array: ")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': ",
        "\0\0\0",
        "(" * 9_000,
        header_of(shape="(-5, 5)"),
        header_of(shape="(True, 5)"),
        header_of(shape="(5.0, 5)"),
        header_of(fortran="7"),
        header_of(dtype="<f8", shape="(10000000000000, 10000000000000)"),
        header_of(shape="(0, 1000000000000000000000)"),
        "{'descr': ('<u1', (2000000000,)), 'fortran_order': False, 'shape': (5, 5), }\n",
    ],
    ids=["cut", "zeros", "nested", "negative", "boolean", "float", "order", "overflow", "zero-overflow", "subarray"],
)
def test_damaged_headers_are_called_damaged(header: str, tmp_path: Path) -> None:
    assert refusal(write_npy(tmp_path / "a.npy", header)) == f"{DAMAGED}."


def test_a_file_that_ends_within_the_magic_number(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    assert refusal(tmp_path / "a.npy") == f"{DAMAGED}."


def test_more_values_than_the_file_holds(tmp_path: Path) -> None:
    message = refusal(write_npy(tmp_path / "a.npy", header_of(shape="(1000000000, 1000000000)")))
    assert message.startswith("its header announces 1,000,000,000 x 1,000,000,000 values")


def test_a_header_of_two_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "a.npy", "", (2, 0), length=2**31 - 1)
    with path.open("r+b") as file:
        file.truncate(2**31 + 100)  # sparse
    assert refusal(path) == "its header has 2,147,483,647 bytes, and at most 10,000 are read."


def test_python_objects_are_refused(tmp_path: Path) -> None:
    message = refusal(write_npy(tmp_path / "a.npy", header_of(dtype="|O")))
    assert message == "it holds Python objects: save plain numbers with numpy.save."


def test_an_unknown_version(tmp_path: Path) -> None:
    message = refusal(write_npy(tmp_path / "a.npy", header_of(), (9, 0)))
    assert message.startswith("it has version 9.0 of the format")


def test_version_3_is_read(tmp_path: Path) -> None:
    source = open_source(write_npy(tmp_path / "a.npy", header_of(), (3, 0)))
    assert (source.data.shape, source.data.dtype) == ((8, 8), np.uint8)


def test_the_order_of_fortran_is_read(tmp_path: Path) -> None:
    image = np.arange(6 * 8, dtype="<u2").reshape(6, 8)
    np.save(tmp_path / "a.npy", np.asfortranarray(image))
    assert np.array_equal(open_source(tmp_path / "a.npy").data[:, :], image)
