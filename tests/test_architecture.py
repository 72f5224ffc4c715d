"""The house rules: which room may import which, which may name a heavy package, and what importing one loads.

Three guards, because none sees everything: import-linter follows every import, also inside functions, but not when it
runs; ruff sees heavy imports at module level, but no dynamic ones; a fresh interpreter sees what is really loaded, but
only at import. `pyproject.toml` holds the rules of the first two, `AT_IMPORT` and `IN_FILES` those of the third.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import napari_mgbpv2

PROJECT = Path(__file__).parents[1]
PACKAGE = Path(napari_mgbpv2.__file__).parent

HEAVY = {
    *("numpy", "scipy", "skimage", "PIL", "imagecodecs", "matplotlib", "tifffile"),
    *("torch", "safetensors", "dask", "distributed", "zarr", "yaozarrs"),
    *("napari", "magicgui", "psygnal", "qtpy", "superqt"),
    *("bioimageio", "onnx", "onnxruntime", "onnxscript", "pooch", "requests"),
    *("bioio", "nibabel", "obstore"),
}
TORCH = {"numpy", "PIL", "torch", "safetensors"}

# What `import napari_mgbpv2.<room>` may load.
AT_IMPORT = {
    "_version": set(),
    "errors": set(),
    "addresses": set(),
    "object_stores": set(),
    "config": set(),
    "network": TORCH,
    "checkpoints": TORCH,
    "inference": TORCH,
    "tiling": {"numpy"},
    "resampling": TORCH,
    "noise": {"numpy"},
    "values": {"numpy"},
    "alpha": {"numpy"},
    "axes": set(),
    "caching": set(),
    "files": set(),
    "downloads": set(),
    "model_zoo": set(),
    "wording": set(),
    "lazy": {"numpy", "scipy", "dask"},  # dask.array looks for scipy
    "engine": TORCH,
    "exporting": TORCH,
    "ome_tiff": {"numpy"},
    "ome_zarr": {"numpy", "zarr"},
    "sources": {"numpy"},
    "upscaling": {"numpy"},
    "conversion": {"numpy"},
    "training": TORCH,
    "inspection": TORCH,
    "cli": {"numpy"},
    "plugin": set(),
}

# Rooms whose files need more than this package does; their own tests import them.
WITH_WINDOWS = {"plugin"} if not find_spec("napari") or not find_spec("qtpy") else set()

# What the files of a room that is a folder may load beyond that, all of them together: the room reaches for them later.
IN_FILES = {
    "conversion": {"dask", "distributed", "scipy"},
    "sources": {"imagecodecs", "PIL", "tifffile", "zarr"},
    "plugin": HEAVY - {"distributed"},
}

TORCH_ROOMS = sorted(room for room, allowed in AT_IMPORT.items() if "torch" in allowed)
LIGHT_ROOMS = sorted(set(AT_IMPORT) - set(TORCH_ROOMS))


def heavy_modules_after(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter and tell which heavy packages it has loaded."""
    tell = f"import json, sys; print(json.dumps(sorted({HEAVY!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", f"{statement}\n{tell}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def rooms_on_disk() -> set[str]:
    """Name the modules and folders directly below the package."""
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    return folders | {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}


def modules_of(room: str) -> list[str]:
    """Name a room and, if it is a folder, every module in it."""
    files = sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]
    dotted = (".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files)
    return [name.removesuffix(".__init__") for name in dotted]


def importing(modules: Iterable[str]) -> str:
    """Write the statement that imports modules."""
    return f"import {', '.join(modules)}"


def ruff_findings(*arguments: str, source: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ruff's import rules with the project's configuration."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID", *arguments]
    return subprocess.run(command, cwd=PROJECT, input=source, capture_output=True, text=True, check=False)


class TestContracts:
    """import-linter: rooms import downward, one door a dependency."""

    def test_every_import_keeps_to_the_contracts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(PROJECT)
        assert lint_imports(config_filename="pyproject.toml", no_cache=True, no_logo=True) == 0


class TestModuleLevelImports:
    """ruff: heavy packages and rooms are imported where they are needed, not at module level."""

    def test_no_light_room_imports_a_heavy_one_at_module_level(self) -> None:
        done = ruff_findings("src")
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize(
        "statement",
        ["import torch", "from dask import array", "from napari_mgbpv2 import engine", "from . import tiling"],
    )
    def test_the_rule_can_fail(self, statement: str) -> None:
        done = ruff_findings("--stdin-filename", "src/napari_mgbpv2/upscaling.py", "-", source=f"{statement}\n")
        assert re.search("TID25[23]", done.stdout)


class TestLoading:
    """A fresh interpreter: what importing a room loads."""

    def test_importing_the_package_loads_nothing_heavy(self) -> None:
        assert heavy_modules_after("import napari_mgbpv2; dir(napari_mgbpv2); napari_mgbpv2.__version__") == set()

    @pytest.mark.parametrize("room", LIGHT_ROOMS)
    def test_a_light_room_loads_only_its_own_dependencies(self, room: str) -> None:
        assert heavy_modules_after(importing([f"napari_mgbpv2.{room}"])) - AT_IMPORT[room] == set()

    @pytest.mark.parametrize(
        "room", [room for room in LIGHT_ROOMS if (PACKAGE / room).is_dir() and room not in WITH_WINDOWS]
    )
    def test_the_files_of_a_light_room_load_only_its_own_dependencies(self, room: str) -> None:
        loaded = heavy_modules_after(importing(modules_of(room)))
        assert loaded - AT_IMPORT[room] - IN_FILES.get(room, set()) == set()

    def test_the_torch_core_and_the_trainer_load_only_torch(self) -> None:
        modules = [module for room in TORCH_ROOMS for module in modules_of(room)]
        assert heavy_modules_after(importing(modules)) - TORCH == set()

    def test_every_room_has_a_rule(self) -> None:
        assert rooms_on_disk() == set(AT_IMPORT)

    def test_the_probe_can_fail(self) -> None:
        assert heavy_modules_after("import zarr") >= {"numpy", "zarr"}


class TestPublicNames:
    """The façade: `napari_mgbpv2.<name>`."""

    def test_every_public_name_resolves(self) -> None:
        assert all(getattr(napari_mgbpv2, name) is not None for name in napari_mgbpv2.__all__)

    def test_every_public_name_is_listed(self) -> None:
        assert sorted(napari_mgbpv2.__all__) == dir(napari_mgbpv2)

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="'downscale'"):
            napari_mgbpv2.downscale  # noqa: B018
