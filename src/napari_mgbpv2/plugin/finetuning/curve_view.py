"""A curve that grows: the loss, and on its own scale the gain over bicubic upscaling."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_mgbpv2.plugin.parts_view import WARNING_COLORS

# Of the loss, of the gain, and of lines and the words beside them, on a dark and on a light background: all of them
# with a contrast of at least 4.5 : 1.
COLORS = {True: ("#8ab4f8", WARNING_COLORS[True], "#98a0a8"), False: ("#1a56b0", WARNING_COLORS[False], "#565c64")}
_MARGIN = 22


class CurveView(QWidget):
    """Two curves over the share of the run, 0 to 1; painted by Qt alone, which costs a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[tuple[float, float]] = []
        self.gains: list[tuple[float, float]] = []
        self.set_dark(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_dark(self, dark: bool) -> None:
        """Say whether the background is dark."""
        self._loss, self._gain, self._lines = map(QColor, COLORS[dark])
        self.update()

    def sizeHint(self) -> QSize:
        """Width and height that look well."""
        return QSize(220, 150)

    def clear(self) -> None:
        """Begin anew."""
        self.losses.clear()
        self.gains.clear()
        self.update()

    def add(self, share: float, loss: float, gain: float | None) -> None:
        """Add what is known at a share of the run."""
        if math.isfinite(loss):
            self.losses.append((share, loss))
        if gain is not None and math.isfinite(gain):
            self.gains.append((share, gain))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint both curves, each between its own least and largest value."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(4, _MARGIN, self.width() - 8, self.height() - 2 * _MARGIN)
        painter.setPen(QPen(self._lines, 1))
        painter.drawRect(area)
        self._paint_curve(painter, area, self.losses, self._loss)
        self._paint_curve(painter, area, self.gains, self._gain, dots=True)
        painter.setPen(self._loss)
        loss = f"loss {self.losses[-1][1]:.4f}" if self.losses else "loss"
        painter.drawText(QPointF(4, _MARGIN - 7), loss)
        painter.setPen(self._gain)
        gain = f"{self.gains[-1][1]:+.2f} dB over bicubic" if self.gains else "gain over bicubic"
        above = QRectF(4, 0, self.width() - 8, _MARGIN - 3)
        painter.drawText(above, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignBottom, gain)
        painter.setPen(self._lines)
        painter.drawText(QPointF(4, self.height() - 6), "start")
        painter.drawText(
            QRectF(4, self.height() - _MARGIN, self.width() - 8, _MARGIN - 4),
            Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignBottom,
            "end",
        )
        painter.end()

    def _paint_curve(
        self, painter: QPainter, area: QRectF, values: Sequence[tuple[float, float]], colour: QColor, dots: bool = False
    ) -> None:
        if not values:
            return
        low, high = min(value for _, value in values), max(value for _, value in values)
        span = (high - low) or 1.0
        points = [
            QPointF(
                area.left() + share * area.width(), area.bottom() - (0.08 + 0.84 * (value - low) / span) * area.height()
            )
            for share, value in values
        ]
        painter.setPen(QPen(colour, 1.6))
        painter.drawPolyline(QPolygonF(points))
        if dots:
            painter.setBrush(colour)
            for point in points:
                painter.drawEllipse(point, 2.5, 2.5)
            painter.setBrush(Qt.BrushStyle.NoBrush)
