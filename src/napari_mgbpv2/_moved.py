"""Import documented modules by their former names, for one release."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_PACKAGE = __name__.rpartition(".")[0]

# Modules of the reference documentation. All others were private.
MOVED = {
    "axes": "imaging.axes",
    "checkpoints": "model.checkpoints",
    "config": "model.config",
    "engine": "runtime",
    "exporting": "export",
    "model_zoo": "model.zoo",
    "network": "model.network",
    "noise": "imaging.noise",
    "resampling": "imaging.resampling",
    "sources": "io.readers",
    "training.metrics": "metrics.scores",
    "training.niqe": "metrics.niqe",
}


class MovedModules(MetaPathFinder, Loader):
    """Find a module under its former name and warn that the name is deprecated."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for a former name, None for any other."""
        if fullname.removeprefix(f"{_PACKAGE}.") in MOVED and fullname.startswith(f"{_PACKAGE}."):
            return ModuleSpec(fullname, self)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module by its present name."""
        new = f"{_PACKAGE}.{MOVED[spec.name.removeprefix(f'{_PACKAGE}.')]}"
        warnings.warn(f"{spec.name} is now {new}; import that", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the module's spec, which the import system has replaced by that of the former name."""
        module.__spec__ = self._spec


def install() -> None:
    """Add the finder after those that search for files."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
