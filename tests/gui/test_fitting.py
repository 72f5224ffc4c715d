"""Every widget is whole at 250 x 500 px, all of it reached by scrolling down, and can be read in each theme."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitting import THEMES, problems, widget_types
from napari.utils.theme import get_theme
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget
from superqt import QCollapsible
from user import User

from napari_mgbpv2.plugin.finetuning.curve_view import COLORS
from napari_mgbpv2.plugin.model_view import ModelView
from napari_mgbpv2.plugin.parts_view import WARNING_COLORS

SCRIPT = Path(__file__).with_name("fitting.py")
LEAST_CONTRAST = 4.5  # WCAG 2.2, level AA


@pytest.fixture(params=widget_types())
def widget(request: pytest.FixtureRequest, make_napari_viewer_proxy: Callable[..., Any], qtbot: Any) -> Any:
    """A widget of its own, which is as large as it is told to be."""
    widget = widget_types()[request.param](make_napari_viewer_proxy())
    qtbot.addWidget(widget)
    return widget


class TestANarrowDock:
    @pytest.mark.parametrize("theme", THEMES)
    def test_nothing_is_cut(self, widget: Any, theme: str) -> None:
        assert problems(widget, theme) == []

    def test_nor_is_it_on_a_screen_that_is_scaled_twice(self) -> None:
        done = subprocess.run(
            [sys.executable, str(SCRIPT)],
            env=os.environ | {"QT_SCALE_FACTOR": "2"},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        assert json.loads(done.stdout.splitlines()[-1]) == {"ratio": 2.0, "problems": {}}

    def test_it_asks_for_more_than_two_rows_beside_another_dock(self, widget: Any) -> None:
        assert widget.minimumHeight() >= 200
        assert widget.sizeHint().height() >= 500

    def test_the_card_of_a_model_is_whole_after_another_has_been_chosen(self, widget: Any, qtbot: Any) -> None:
        options = getattr(widget.view, "options", None)
        if not isinstance(options, ModelView):
            pytest.skip("offers no scale")
        widget.resize(250, 500)
        widget.show()
        for scale in range(options.scale.count()):
            options.scale.setCurrentIndex(scale)
            qtbot.wait(20)
            assert options.card.height() >= options.card.heightForWidth(options.card.width())


class TestReading:
    @staticmethod
    def contrast(one: str, other: str) -> float:
        """Return the contrast of two colours as WCAG defines it, 1 to 21."""

        def luminance(name: str) -> float:
            parts = np.array(QColor(name).getRgbF()[:3])
            return float(
                np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
            )

        dark, light = sorted((luminance(one), luminance(other)))
        return (light + 0.05) / (dark + 0.05)

    @pytest.mark.parametrize("theme", THEMES)
    def test_warnings_and_curves_stand_out_from_the_background(self, theme: str) -> None:
        background = QColor(*get_theme(theme).background.as_rgb_tuple(alpha=False)).name()
        for color in (WARNING_COLORS[theme == "dark"], *COLORS[theme == "dark"]):
            assert self.contrast(color, background) >= LEAST_CONTRAST

    def test_a_warning_changes_its_colour_with_the_theme(self, user: User) -> None:
        for theme in ("light", "dark", "light"):
            user.widget.window()
            user.viewer.theme = theme
            assert WARNING_COLORS[theme == "dark"] in user.view.warning.styleSheet()


class TestTheKeyboard:
    def test_tab_goes_down_the_view(self, widget: Any) -> None:
        view, order = widget.view, []
        for folded in view.findChildren(QCollapsible):
            folded.expand(animate=False)
        widget.resize(300, 900)
        widget.show()
        part = view.nextInFocusChain()
        while part is not view and len(order) < 500:
            if view.isAncestorOf(part) and part.focusPolicy() & Qt.FocusPolicy.TabFocus and part.isVisibleTo(view):
                order.append(part)
            part = part.nextInFocusChain()
        rows = [part.mapTo(view, QPoint(0, 0)).y() for part in order]
        assert len(order) > 5
        first = rows.index(min(rows))
        turned = rows[first:] + rows[:first]
        assert all(later >= earlier - 12 for earlier, later in pairwise(turned))

    def test_everything_that_can_be_set_is_explained(self, widget: Any) -> None:
        options = getattr(widget.view, "options", None)
        if not isinstance(options, ModelView):
            pytest.skip("has other controls")
        advanced = options.advanced
        parts: list[QWidget] = [options.scale, options.model, options.open_model, options.noise, options.device.list]
        parts += [advanced.tile, advanced.overlap, advanced.seed, advanced.precision, advanced.blending]
        parts += [advanced.black, advanced.white, advanced.axes]
        assert all(part.toolTip() for part in parts)


class TestBlackAndWhite:
    @pytest.mark.parametrize(("black", "white"), [("10", ""), ("", "200"), ("dark", "200")])
    def test_anything_but_two_numbers_is_refused(self, user: User, black: str, white: str) -> None:
        user.viewer.add_image(np.zeros((30, 20), "u1"))
        advanced = user.view.options.advanced
        advanced.black.setText(black)
        advanced.white.setText(white)
        advanced.white.editingFinished.emit()
        user.settles()
        assert "give a number for each, or leave both empty" in user.view.warning.text()
