"""Builds the package as a release does, and proves that strangers can install it: tox -e package.

- sdist and wheel: complete, described as PyPI wants it, small; the wheel of the sdist equals that of the tree.
- The wheel in a clean environment without napari: imports, upscales the sample, agrees with what it requires.
- The same with napari: its manifest is valid, and a viewer opens the widget.
- What the first one has installed: a bill of materials (CycloneDX) and a list of licences, in build/bill-of-materials.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from licences import not_free

ROOT = Path(__file__).parents[1]
DIST, BILL = ROOT / "dist", ROOT / "build" / "bill-of-materials"
LARGEST_WHEEL = 20e6
NOT_IN_SDIST = (".ci/", ".github/", ".pre-commit-config.yaml")  # of no use to who has no repository
OPEN_WIDGET = """
import napari
from qtpy.QtCore import QTimer

viewer = napari.Viewer()
viewer.open_sample("napari-mgbpv2", "astronaut")
_, widget = viewer.window.add_plugin_dock_widget("napari-mgbpv2", "Upscale (MGBPv2)")
print(type(widget).__name__, viewer.layers[0].data.shape)
QTimer.singleShot(0, viewer.close)  # as somebody closes it: napari waits for what still works
napari.run()
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    print("$", *command, flush=True)
    done = subprocess.run([str(part) for part in command], cwd=cwd, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\nfailed with status {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def build() -> tuple[Path, Path]:
    """Build the sdist and, from the tree and from the sdist, the wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, ".")  # the wheel is built from the sdist
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ".")
        (direct,) = Path(folder).glob("*.whl")
        if contents(direct) != contents(wheel):
            sys.exit("the wheel that is built from the sdist has other files than that of the tree")
    return sdist, wheel


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_files(sdist: Path, wheel: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.1f} MB")
    if size > LARGEST_WHEEL:
        sys.exit(f"the wheel has {size / 1e6:.1f} MB, more than {LARGEST_WHEEL / 1e6:.0f}")
    with tarfile.open(sdist) as archive:
        packed = {
            member.name.partition("/")[2]: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive.getmembers()
            if member.isfile()
        }
    kept = {name for name in run("git", "ls-files").splitlines() if not name.startswith(NOT_IN_SDIST)}
    if kept - packed.keys():
        sys.exit(f"the sdist lacks {', '.join(sorted(kept - packed.keys()))}")
    if stray := packed.keys() - kept - {"PKG-INFO"}:
        sys.exit(f"the sdist holds what git does not: {', '.join(sorted(stray))}")
    files = contents(wheel)
    if stray := {name for name in files if ".dist-info/" not in name and f"src/{name}" not in kept}:
        sys.exit(f"the wheel holds what git does not: {', '.join(sorted(stray))}")
    here = str(ROOT).encode()
    if telling := [name for name, data in (packed | files).items() if here in data]:
        sys.exit(f"tells where it was built: {', '.join(telling)}")


def environment(folder: Path, *packages: str) -> Path:
    """Make an environment with some packages in the tested versions, and return its folder of commands."""
    venv.create(folder, with_pip=True)
    commands = folder / ("Scripts" if sys.platform == "win32" else "bin")
    run(commands / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", *packages)
    run(commands / "python", "-m", "pip", "check")
    return commands


def check_without_napari(wheel: Path, folder: Path) -> None:
    commands = environment(folder / "bare", str(wheel))
    found = "import importlib.util as u, napari_mgbpv2 as m; assert not u.find_spec('napari'); print(m.__file__)"
    package = Path(run(commands / "python", "-c", found, cwd=folder).strip()).parent
    result = folder / "astronaut.ome.zarr"
    run(commands / "mgbpv2-upscale", package / "samples" / "astronaut.png", "-o", result, "--scale", "2", cwd=folder)
    for command in ("mgbpv2-finetune", "mgbpv2-models", "mgbpv2-sweep"):
        run(commands / command, "--help", cwd=folder)
    list_materials(commands / "python")


def list_materials(python: Path) -> None:
    """Write down what an installation holds, and stop at a licence that nobody has thought of."""
    BILL.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "cyclonedx_py", "environment", python, "--output-file", BILL / "cyclonedx.json")
    listing = ("--python", str(python), "--format", "json", "--from", "mixed", "--with-urls")
    packages = json.loads(run(sys.executable, "-m", "piplicenses", *listing))
    (BILL / "licenses.json").write_text(json.dumps(packages, indent=1))
    if odd := not_free(packages):
        sys.exit(f"not known to be free: {', '.join(odd)}")
    print(f"{len(packages)} packages, all of known free licences but NVIDIA's, if there are any")


def check_with_napari(wheel: Path, folder: Path) -> None:
    commands = environment(folder / "napari", f"{wheel}[napari]", "pyqt6")
    run(commands / "npe2", "validate", "--imports", "napari-mgbpv2", cwd=folder)
    screen = ("xvfb-run", "--auto-servernum") if sys.platform == "linux" else ()
    print(run(*screen, commands / "python", "-c", OPEN_WIDGET, cwd=folder))


def main() -> None:
    sdist, wheel = build()
    check_files(sdist, wheel)
    with tempfile.TemporaryDirectory() as folder:
        check_without_napari(wheel, Path(folder))
        check_with_napari(wheel, Path(folder))
    print(f"ready: {sdist.name} and {wheel.name} in {DIST}")


if __name__ == "__main__":
    main()
