"""The rules of the tree: which package may import which, which may name a heavy package, and what importing one loads.

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

# What `import napari_mgbpv2.<package>` may load, or of a module where the modules of a package differ.
AT_IMPORT = {
    "_moved": set(),
    "_version": set(),
    "addresses": set(),
    "caching": set(),
    "errors": set(),
    "formatting": set(),
    "memory": set(),
    "paths": set(),
    "model": set(),
    "model.config": set(),
    "model.downloads": set(),
    "model.zoo": set(),
    "model.network": TORCH,
    "model.checkpoints": TORCH,
    "imaging": set(),
    "imaging.alpha": {"numpy"},
    "imaging.axes": set(),
    "imaging.noise": {"numpy"},
    "imaging.values": {"numpy"},
    "imaging.resampling": TORCH,
    "tiling": {"numpy"},
    "metrics": TORCH,
    "io": {"numpy"},
    "io.storage": set(),
    "io.readers": {"numpy"},
    "io.writers.ome_tiff": {"numpy"},
    "io.writers.ome_zarr": {"numpy", "zarr"},
    "runtime": TORCH,
    "upscaling": {"numpy"},
    "export": TORCH,
    "conversion": {"numpy"},
    "training": TORCH,
    "inspection": TORCH,
    "cli": {"numpy"},
    "plugin": set(),
}

# Packages whose files need more than this package does; their own tests import them.
WITH_WINDOWS = {"plugin"} if not find_spec("napari") or not find_spec("qtpy") else set()

# What the files of a folder may load beyond that, all of them together: the package imports them later.
IN_FILES = {
    "model": TORCH,
    "imaging": TORCH,
    "io": {"imagecodecs", "PIL", "tifffile", "zarr"},
    "io.readers": {"imagecodecs", "PIL", "tifffile", "zarr"},
    "io.storage": {"numpy", "zarr"},
    "upscaling": {"dask", "scipy"},
    "conversion": {"dask", "distributed", "scipy"},
    "plugin": HEAVY - {"distributed"},
}

TORCH_PACKAGES = sorted(package for package, allowed in AT_IMPORT.items() if "torch" in allowed)
LIGHT_PACKAGES = sorted(set(AT_IMPORT) - set(TORCH_PACKAGES))


def heavy_modules_after(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter and tell which heavy packages it has loaded."""
    tell = f"import json, sys; print(json.dumps(sorted({HEAVY!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", f"{statement}\n{tell}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def packages_on_disk() -> set[str]:
    """Name the modules and folders directly below the package."""
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    return folders | {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}


def modules_of(package: str) -> list[str]:
    """Name a package and, if it is a folder, every module in it."""
    path = PACKAGE.joinpath(*package.split("."))
    files = sorted(path.rglob("*.py")) or [path.with_suffix(".py")]
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
    """import-linter: packages import downward, one package per dependency."""

    def test_every_import_keeps_to_the_contracts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(PROJECT)
        assert lint_imports(config_filename="pyproject.toml", no_cache=True, no_logo=True) == 0


class TestModuleLevelImports:
    """ruff: heavy packages and packages are imported where they are needed, not at module level."""

    def test_no_light_package_imports_a_heavy_one_at_module_level(self) -> None:
        done = ruff_findings("src")
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize(
        "statement",
        ["import torch", "from dask import array", "from napari_mgbpv2 import runtime", "from . import tiling"],
    )
    def test_the_rule_can_fail(self, statement: str) -> None:
        done = ruff_findings("--stdin-filename", "src/napari_mgbpv2/upscaling/plan.py", "-", source=f"{statement}\n")
        assert re.search("TID25[23]", done.stdout)


class TestLoading:
    """A fresh interpreter: what importing a package loads."""

    def test_importing_the_package_loads_nothing_heavy(self) -> None:
        assert heavy_modules_after("import napari_mgbpv2; dir(napari_mgbpv2); napari_mgbpv2.__version__") == set()

    @pytest.mark.parametrize("package", LIGHT_PACKAGES)
    def test_a_light_package_loads_only_its_own_dependencies(self, package: str) -> None:
        assert heavy_modules_after(importing([f"napari_mgbpv2.{package}"])) - AT_IMPORT[package] == set()

    @pytest.mark.parametrize(
        "package",
        [name for name in LIGHT_PACKAGES if PACKAGE.joinpath(*name.split(".")).is_dir() and name not in WITH_WINDOWS],
    )
    def test_the_files_of_a_light_package_load_only_its_own_dependencies(self, package: str) -> None:
        loaded = heavy_modules_after(importing(modules_of(package)))
        assert loaded - AT_IMPORT[package] - IN_FILES.get(package, set()) == set()

    def test_the_torch_core_and_the_trainer_load_only_torch(self) -> None:
        modules = [module for package in TORCH_PACKAGES for module in modules_of(package)]
        assert heavy_modules_after(importing(modules)) - TORCH == set()

    def test_every_package_has_a_rule(self) -> None:
        assert packages_on_disk() == {name.partition(".")[0] for name in AT_IMPORT}

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
