"""Images that are no images, or unusual ones; options and models that do not fit; memory that does not suffice."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import dask.array as da
import numpy as np
import psutil
import pytest
import torch
import zarr
from folder import Folder
from table import Outcome, Row, content_of

import napari_mgbpv2 as mgbp
from examples import a_network, an_image
from napari_mgbpv2.model.checkpoints import published_state_dict
from napari_mgbpv2.runtime import Engine
from napari_mgbpv2.upscaling.lazy import MAX_CHUNKS

GIGABYTE = 2**30
BOMB = 2**28


def memory_peak() -> int:
    """Most memory that this process has had, in bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def pixels_in(folder: Folder) -> np.ndarray:
    return np.asarray(zarr.open_group(folder.destination, mode="r")["0"])


class TestImages:
    def test_complex_numbers(self, row: Row, folder: Folder) -> None:
        np.save(folder.path / "image.npy", np.ones((20, 20), "c8"))
        row.is_shown_by(folder.upscale(folder.path / "image.npy"))

    def test_python_objects(self, row: Row, folder: Folder) -> None:
        np.save(folder.path / "image.npy", np.array([[{}, 1], [2, 3]]), allow_pickle=True)
        row.is_shown_by(folder.upscale(folder.path / "image.npy"))

    def test_booleans(self, row: Row, folder: Folder) -> None:
        np.save(folder.path / "image.npy", an_image(20, 20) > 99)
        row.is_shown_by(folder.upscale(folder.path / "image.npy"))

    def test_label_image(self, row: Row, folder: Folder) -> None:
        group = zarr.create_group(folder.path / "nuclei.zarr")
        group.create_array("0", data=an_image(20, 20, dtype="u2"))
        group.attrs["ome"] = {"version": "0.5", "image-label": {}, "multiscales": [{"datasets": [{"path": "0"}]}]}
        row.is_shown_by(folder.upscale(folder.path / "nuclei.zarr"))

    def test_packed_by_no_line(self, row: Row, folder: Folder) -> None:
        packing = {"scale_factor": "much"}
        zarr.create_array(folder.path / "a.zarr", data=an_image(20, 20, dtype="i2"), attributes=packing)
        row.is_shown_by(folder.upscale(folder.path / "a.zarr"))

    def test_no_pixels(self, row: Row, folder: Folder) -> None:
        np.save(folder.path / "image.npy", np.ones((0, 20), "u1"))
        row.is_shown_by(folder.upscale(folder.path / "image.npy"))

    def test_one_axis(self, row: Row, folder: Folder) -> None:
        np.save(folder.path / "image.npy", np.ones(20, "u1"))
        row.is_shown_by(folder.upscale(folder.path / "image.npy"))

    def test_other_axes(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(20, 20), "--axes", "zyx"))

    def test_missing_pixels(self, row: Row, folder: Folder) -> None:
        image = an_image(20, 20, dtype="f4")
        lost = {(3, 4): np.nan, (8, 9): np.inf, (15, 2): -np.inf}
        for place, value in lost.items():
            image[place] = value
        np.save(folder.path / "image.npy", image)
        row.is_shown_by(folder.upscale(folder.path / "image.npy"))
        expected = np.zeros((80, 80), "f4")
        for (y, x), value in lost.items():
            expected[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = value
        made = pixels_in(folder)
        np.testing.assert_array_equal(np.where(np.isfinite(made), 0, made), expected)

    def test_one_pixel(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(1, 1)))
        assert pixels_in(folder).shape == (4, 4)

    def test_a_line(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(3, 100_000)))
        assert pixels_in(folder).shape == (12, 400_000)

    def test_huge(self, row: Row, folder: Folder) -> None:
        """Blockwise layers, and never more than a million chunks: Dask itself lists their names at each compute."""
        image = da.zeros((10**6, 10**6), dtype="u1", chunks=4096)
        before, memory, began = content_of(folder.path), memory_peak(), time.monotonic()
        result = mgbp.upscale(image, model=folder.model, axes="yx", tile=400)
        planned = time.monotonic()
        corner = result[-50:, -50:].compute()
        computed = time.monotonic()
        row.is_shown_by(Outcome(0, "", "", before, folder.destination, {}))
        assert result.shape == (4 * 10**6, 4 * 10**6)
        assert corner.shape == (50, 50)
        assert result.npartitions <= MAX_CHUNKS
        assert planned - began < 5
        assert computed - planned < 60
        assert memory_peak() - memory < GIGABYTE


class TestOptions:
    def test_scale(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(20, 20), "--scale", 3, model=None))

    def test_scale_of_a_model(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(20, 20), "--scale", 3))

    def test_value_range(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(20, 20), "--value-range", 5, 5))

    def test_noise(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(20, 20), "--noise", "nan"))

    def test_small_tile(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(), "--tile", 5))

    def test_device(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(20, 20), "--device", "tpu"))

    def test_levels(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(20, 20), "--levels", 99))


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


class TestModels:
    def test_unknown_model(self, row: Row, folder: Folder) -> None:
        row.is_shown_by(folder.upscale(folder.image(20, 20), model="x5"))

    @pytest.mark.parametrize("form", ["zip", "pickle", "plain pickle"])
    def test_code(self, row: Row, folder: Folder, form: str) -> None:
        target, model = folder.path / "executed", folder.path / "model.pth"
        if form == "plain pickle":
            model.write_bytes(pickle.dumps({"a": Attack(target)}, protocol=2))
        else:
            torch.save({"a": Attack(target)}, model, _use_new_zipfile_serialization=form == "zip")
        row.is_shown_by(folder.upscale(folder.image(20, 20), "--scale", 4, model=model))
        assert not target.exists()
        torch.load(model, weights_only=False) if form != "plain pickle" else pickle.loads(model.read_bytes())
        assert target.exists()  # the attack is a real one

    @pytest.mark.parametrize("record", ["data.pkl", "data/0"])
    def test_bomb(self, row: Row, folder: Folder, record: str) -> None:
        """Many megabytes of zeros in a few hundred kilobytes, in the place of a tensor or of the pickle."""
        good, model = folder.path / "good.pth", folder.path / "model.pth"
        torch.save(published_state_dict(a_network()), good)
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(model, "w", zipfile.ZIP_DEFLATED) as bomb:
            for name in source.namelist():
                if not name.endswith(f"/{record}"):
                    bomb.writestr(name, source.read(name))
                    continue
                with bomb.open(name, "w", force_zip64=True) as file:
                    for _ in range(BOMB // 2**24):
                        file.write(bytes(2**24))
        image = folder.image(20, 20)
        before = memory_peak()
        row.is_shown_by(folder.upscale(image, "--scale", 4, model=model))
        assert memory_peak() - before < BOMB / 4

    def test_nested_bomb(self, row: Row, folder: Folder) -> None:
        """Lists of lists, each twice in the next one: 2 ** 60 in all, in a few hundred bytes."""
        model = folder.path / "model.pth"
        steps = b"".join(b"(h" + bytes([n]) + b"h" + bytes([n]) + b"lq" + bytes([n + 1]) for n in range(60))
        model.write_bytes(b"\x80\x02(lq\0" + steps + b".")
        assert pickle.loads(model.read_bytes())  # which is a pickle
        row.is_shown_by(folder.upscale(folder.image(20, 20), "--scale", 4, model=model))

    def test_model_cut_short(self, row: Row, folder: Folder) -> None:
        folder.model.write_bytes(folder.model.read_bytes()[:-99])
        row.is_shown_by(folder.upscale(folder.image(20, 20)))

    def test_nan_weights(self, row: Row, folder: Folder) -> None:
        model, state = folder.path / "model.pth", published_state_dict(a_network())
        state["Analysis_0.bias"][1] = torch.nan
        torch.save(state, model)
        row.is_shown_by(folder.upscale(folder.image(20, 20), "--scale", 4, model=model))


# Runs the command with as much more memory than what is loaded as its first argument says.
SHORT_OF_MEMORY = """
import resource, sys
import torch, yaozarrs, zarr
import napari_mgbpv2.conversion.local, napari_mgbpv2.io.writers.ome_zarr
import napari_mgbpv2.runtime, napari_mgbpv2.upscaling.lazy
from napari_mgbpv2.cli.upscale import main

torch.nn.functional.conv2d(torch.ones(1, 3, 64, 64), torch.ones(3, 3, 3, 3))
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
limit = used + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""


class TestMemory:
    @pytest.mark.skipif(sys.platform != "linux", reason="no limits of memory there")
    def test_short_of_memory(self, row: Row, folder: Folder) -> None:
        """A tile of 3200 x 3200 px, in a process that may have 280 MB for it."""
        image, before = folder.image(800, 800, dtype="u1"), content_of(folder.path)
        arguments = [280 * 2**20, image, "-o", folder.destination, "--model", folder.model, "--tile", 4000]
        done = subprocess.run(
            [sys.executable, "-c", SHORT_OF_MEMORY, *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        row.is_shown_by(
            folder.outcome(done.returncode, done.stdout, done.stderr, before, image, folder.destination, folder.model)
        )
        half = folder.path / "half.ome.zarr"
        folder.upscale(image, "--tile", 1600, destination=half)
        made = np.asarray(zarr.open_group(half, mode="r")["0"])
        np.testing.assert_array_equal(pixels_in(folder), made)

    def test_out_of_memory(self, row: Row, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a device that has no memory at all."""

        def submit(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        monkeypatch.setattr(Engine, "submit", submit)
        row.is_shown_by(folder.upscale(folder.image(), "--tile", 300))
