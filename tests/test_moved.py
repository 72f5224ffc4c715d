"""Former module names: imports of the release before this one still work, with a warning."""

from importlib import import_module

import pytest

from napari_mgbpv2._moved import MOVED


@pytest.mark.parametrize(("former", "module"), MOVED.items())
def test_a_former_name_gives_the_module_of_today_and_warns(former: str, module: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"napari_mgbpv2.{former} is now napari_mgbpv2.{module}; import that"):
        imported = fresh_import(f"napari_mgbpv2.{former}")
    assert imported is import_module(f"napari_mgbpv2.{module}")
    assert imported.__spec__ is not None
    assert imported.__spec__.name == f"napari_mgbpv2.{module}"


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"napari_mgbpv2\.hands"):
        import_module("napari_mgbpv2.hands")


def fresh_import(name: str) -> object:
    """Import a module as if for the first time: Python warns once per process."""
    import sys

    sys.modules.pop(name, None)
    return import_module(name)
