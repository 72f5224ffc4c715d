"""The guide to napari: the script that it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari
import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser

from napari_mgbpv2.plugin.upscaling.widget import UpscaleWidget

GUIDE = Path(__file__).parents[2] / "docs" / "napari.md"


def test_its_script_opens_the_sample_and_the_widget(viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    monkeypatch.setattr(napari, "Viewer", lambda: viewer)
    monkeypatch.setattr(napari, "run", lambda: started.append(True))
    guide = Document.parse(str(GUIDE), PythonCodeBlockParser())
    [script] = guide.examples()
    script.evaluate()
    assert started
    assert [layer.name for layer in viewer.layers] == ["astronaut"]
    widget = guide.namespace["widget"]
    assert isinstance(widget, UpscaleWidget)
    qtbot.waitUntil(lambda: widget.is_settled, timeout=60_000)
