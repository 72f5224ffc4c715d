"""benchmarks/peers.py: other networks that run by ncnn, and their section in the page on quality."""

from __future__ import annotations

import importlib
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("peers")


def write_network(folder: Path, package: str) -> None:
    """A package with a network that repeats each pixel twice in both directions and subtracts 0.1."""
    (folder / package).mkdir()
    (folder / package / "twice.param").write_text(
        "7767517\n4 4\n"
        "Input input 0 1 data\n"
        "MemoryData tenth 0 1 tenth 0=1 1=1 2=1\n"
        "Interp larger 1 1 data larger 0=1 1=2.0 2=2.0\n"
        "BinaryOp less 2 1 larger tenth output 0=1\n"
    )
    (folder / package / "twice.bin").write_bytes(struct.pack("<f", 0.1))


def test_a_peer_runs_the_weights_of_an_installed_package(peers, tmp_path, monkeypatch) -> None:
    pytest.importorskip("ncnn")
    write_network(tmp_path, "made_up_weights")
    monkeypatch.syspath_prepend(tmp_path)
    peer = peers.Peer("twice", 2, "made_up_weights", "twice", "data", "output")
    source = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    expected = np.clip(np.rint(source.repeat(2, 0).repeat(2, 1) - 25.5), 0, 255)
    assert np.abs(peer(source) - expected).max() <= 1  # half values round either way


def test_a_grey_picture_stays_grey(peers, tmp_path, monkeypatch) -> None:
    pytest.importorskip("ncnn")
    write_network(tmp_path, "made_up_weights_for_grey")
    monkeypatch.syspath_prepend(tmp_path)
    peer = peers.Peer("twice", 2, "made_up_weights_for_grey", "twice", "data", "output")
    source = np.random.default_rng(0).integers(40, 256, (7, 9), dtype=np.uint8)
    assert np.abs(peer(source) - (source.repeat(2, 0).repeat(2, 1) - 25.5)).max() <= 1


def test_context_extends_the_source_and_is_cut_off_again(peers, tmp_path, monkeypatch) -> None:
    pytest.importorskip("ncnn")
    write_network(tmp_path, "made_up_weights_with_context")
    monkeypatch.syspath_prepend(tmp_path)
    source = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    plain, extended = (
        peers.Peer("twice", 2, "made_up_weights_with_context", "twice", "data", "output", context)(source)
        for context in (0, 3)
    )
    assert np.array_equal(plain, extended)


def test_a_wheel_that_is_missing_is_named_with_its_remedy(peers) -> None:
    peer = peers.Peer("SPAN", 2, "no_such_wheel", "models/a", "data", "output")
    with pytest.raises(SystemExit, match=r"no_such_wheel is not installed; pip install \"napari-mgbpv2\[peers\]\""):
        peer(np.zeros((8, 8, 3), np.uint8))


def test_peers_are_compared_with_bicubic_upscaling_that_is_rounded_once(peers) -> None:
    source = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    planes = [Image.fromarray(plane.astype("f4")) for plane in np.moveaxis(source, 2, 0)]
    exact = np.stack([np.asarray(plane.resize((22, 18), Image.Resampling.BICUBIC)) for plane in planes], 2)
    made = peers.all_upscalers(2)["bicubic"](source)
    assert made.dtype == np.uint8
    assert np.abs(made - np.clip(exact, 0, 255)).max() < 0.501


def test_the_section_is_renewed_and_the_rest_of_the_page_stays(peers) -> None:
    page = f"# Quality\n\nfirst\n\n{peers.HEADING}\n\nold\n\n## Last\n\nend\n"
    assert peers.with_section(page, f"{peers.HEADING}\n\nnew\n") == page.replace("old", "new")


def test_the_section_is_appended_to_a_page_without_one(peers) -> None:
    page = peers.with_section("# Quality\n", f"{peers.HEADING}\n\nnew\n")
    assert page == f"# Quality\n\n{peers.HEADING}\n\nnew\n"
    assert peers.section_of(page) == f"{peers.HEADING}\n\nnew\n"


def test_a_page_without_the_section_has_none(peers) -> None:
    assert peers.section_of("# Quality\n\n## Photographs\n") == ""


def test_the_crop_sheet_has_a_row_per_picture_and_a_column_per_network(peers, monkeypatch) -> None:
    def nearest(source):
        return source.repeat(2, 0).repeat(2, 1)

    monkeypatch.setattr(peers, "all_upscalers", lambda scale: {"a": nearest, "b": nearest})
    sheet = peers.crop_sheet(2, {"astronaut": (3, 5), "camera": (448, 460)}, side=32, zoom=1)
    assert sheet.size == (3 * 38 - 6, 18 + 2 * 38 - 6)
    import skimage.data

    original = np.asarray(sheet)[18:50, 2 * 38 : 2 * 38 + 32]
    assert np.array_equal(original, skimage.data.astronaut()[3:35, 5:37])


def teardown_module() -> None:
    for name in ("peers", "quality"):
        sys.modules.pop(name, None)
