"""What of a widget cannot be seen or reached at some size: found in a real widget with napari's own style sheet.

Run as a script, it looks at all widgets and prints what is wrong as JSON: for a scaling of the screen, which Qt only
takes at its start.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from napari._qt.qt_resources import get_stylesheet
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QAbstractButton, QApplication, QLabel, QScrollArea, QWidget

sys.path.insert(0, str(Path(__file__).parents[1]))

SIZE = (250, 500)
THEMES = ("dark", "light")
HASH = "model sha256 was 3f2a9c71d0e4b85566aa01c9deadbeef00112233445566778899aabbccddeeff and is "
WORD = "/home/somebody/a_very_long_folder_name_without_a_break/" + "x" * 90


def widget_types() -> dict[str, Any]:
    from napari_mgbpv2.plugin.batch.widget import BatchWidget
    from napari_mgbpv2.plugin.finetuning.widget import FinetuneWidget
    from napari_mgbpv2.plugin.inspecting.widget import InspectWidget
    from napari_mgbpv2.plugin.upscaling.widget import UpscaleWidget

    return {"upscale": UpscaleWidget, "finetune": FinetuneWidget, "batch": BatchWidget, "inspect": InspectWidget}


def fill(widget: Any) -> None:
    """Show as much as a widget can show, with long words."""
    view = widget.view
    view.set_running(True)
    view.progress.show_step(0.4, WORD)
    options = getattr(view, "options", view)
    options.device.show_in_use(WORD)
    options.card.setText(HASH + WORD)
    if hasattr(options, "advanced"):
        from superqt import QCollapsible

        options.advanced.findChild(QCollapsible).expand(animate=False)
    if hasattr(view, "show_estimate"):
        view.show_estimate(HASH + HASH, WORD + HASH)
        view.saving.offer(HASH + WORD, resume=True, drops=HASH)
    if hasattr(view, "found"):
        view.found.setText(HASH + WORD)


def problems(widget: Any, theme: str) -> list[str]:
    """Say what is cut at the smallest size, in a theme."""
    widget.setStyleSheet(get_stylesheet(theme))
    widget.resize(*SIZE)
    widget.show()
    fill(widget)
    for _ in range(20):
        QApplication.processEvents()
    view, found = widget.view, []
    area = widget.findChild(QScrollArea)
    if widget.width() > SIZE[0]:
        found.append(f"the widget is {widget.width()} px wide")
    if view.width() > area.viewport().width():
        found.append(f"the view is {view.width()} px wide, and {area.viewport().width()} px are seen")
    for part in view.findChildren(QWidget):
        if not part.isVisible():
            continue
        text = part.text() if isinstance(part, (QLabel, QAbstractButton)) else ""
        name = f"{type(part).__name__} {text[:60]!r}"
        left = part.mapTo(view, QPoint(0, 0)).x()
        if left < 0 or left + part.width() > view.width():
            found.append(f"{name} reaches from {left} to {left + part.width()} of {view.width()} px")
        if isinstance(part, QLabel) and part.wordWrap():
            if part.height() < part.heightForWidth(part.width()) or part.width() < part.minimumSizeHint().width():
                found.append(f"{name} is {part.width()} x {part.height()} px, too little for its text")
        elif isinstance(part, (QLabel, QAbstractButton)) and part.width() < part.sizeHint().width():
            found.append(f"{name} is {part.width()} px wide and needs {part.sizeHint().width()}")
    return found


def main() -> None:
    """Look at all widgets in both themes."""
    import napari

    viewer = napari.Viewer(show=False)
    widgets = {name: make(viewer) for name, make in widget_types().items()}
    found = {f"{name}, {theme}": problems(widget, theme) for name, widget in widgets.items() for theme in THEMES}
    ratio = next(iter(widgets.values())).devicePixelRatioF()
    print(json.dumps({"ratio": ratio, "problems": {name: each for name, each in found.items() if each}}), flush=True)
    os._exit(0)  # without waiting for the estimates


if __name__ == "__main__":
    main()
