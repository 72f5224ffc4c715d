"""Planning in the background: always the newest choices, a moment after the last one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, QTimer, Signal

from napari_mgbpv2.conversion import ConversionPlan
from napari_mgbpv2.conversion.estimates import Estimate, estimate
from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.plugin.layer_image import LayerImage
from napari_mgbpv2.plugin.measuring import with_measured_range
from napari_mgbpv2.plugin.running import Job
from napari_mgbpv2.plugin.upscaling.preparing import prepare_layer
from napari_mgbpv2.upscaling import UpscaleOptions

PLAN_MS = 200  # how long choices must rest before they are planned


@dataclass(frozen=True)
class Wish:
    """What is to be upscaled, and how: read from the GUI in its own thread, for others.

    Attributes
    ----------
    layer
        The layer.
    image, place
        Its image, and its ``scale``, ``translate`` and ``units``.
    choices
        How.
    note, warning
        What has been measured about its values, and what of them lies below black.
    """

    layer: Any
    image: LayerImage
    place: dict[str, Any]
    choices: UpscaleOptions
    note: str = ""
    warning: str = ""

    def measured(self) -> Wish:
        """Measure the range of values, where it matters; reads a sample of the pixels."""
        found = with_measured_range(self.image, self.choices.value_range)
        return replace(self, image=found.image, note=found.note, warning=found.warning)

    def prepare(self, destination: Path = Path("estimate.ome.zarr")) -> ConversionPlan:
        """Plan it; reads no pixel."""
        return prepare_layer(self.image, self.place, self.choices, destination)


class Planner(QObject):
    """Plans wishes and estimates what they take.

    Parameters
    ----------
    read
        Reads what is chosen now; None where there is nothing to plan.
    parent
        Owner.
    """

    planned = Signal(object, object, object)  # a `Wish`, the conversion that is prepared for it, and an `Estimate`
    impossible = Signal(str)
    nothing_chosen = Signal()

    def __init__(self, read: Callable[[], Wish | None], parent: QObject) -> None:
        super().__init__(parent)
        self._read = read
        self._newest: tuple[Wish, ConversionPlan] | None = None
        self._job: Job | None = None
        self._stale = False  # whether something has been chosen since planning began
        self._waiting: list[Callable[[Wish, ConversionPlan], None]] = []
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PLAN_MS)
        self._timer.timeout.connect(self._plan)

    @property
    def is_settled(self) -> bool:
        """Whether what has been planned last is what is chosen now."""
        return self._job is None and not self._stale

    def plan_soon(self) -> None:
        """Plan anew: something else has been chosen."""
        self._newest, self._stale = None, True
        self._timer.start()

    def when_planned(self, act: Callable[[Wish, ConversionPlan], None]) -> None:
        """Do something with the plan of what is chosen now, as soon as there is one."""
        if self._newest is not None:
            act(*self._newest)
            return
        self._waiting.append(act)
        if not self._timer.isActive():
            self._timer.start()

    def _plan(self) -> None:
        if self._job is not None:
            return  # it plans again when that ends
        self._stale = False
        try:
            wish = self._read()
        except MGBPv2Error as error:
            self._on_failed(str(error))
            return
        if wish is None:
            self.nothing_chosen.emit()
            return
        self._job = Job(lambda tell, cancelled: _plan_and_measure(wish), self, notifies=False, title="estimating")
        self._job.succeeded.connect(lambda found: self._on_planned(*found))
        self._job.failed.connect(self._on_failed)
        self._job.ended.connect(self._on_ended)
        self._job.start()

    def _on_planned(self, wish: Wish, prepared: ConversionPlan, found: Estimate) -> None:
        self._job = None
        if self._stale:
            return
        self._newest = wish, prepared
        self.planned.emit(wish, prepared, found)
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            act(wish, prepared)

    def _on_failed(self, sentence: str) -> None:
        self._job = None
        self.impossible.emit(sentence)
        if self._waiting:
            self._waiting = []
            show_error(sentence)

    def _on_ended(self) -> None:
        self._job = None
        if self._newest is None and self._stale:
            self._timer.start()


def _plan_and_measure(wish: Wish) -> tuple[Wish, ConversionPlan, Estimate]:
    wish = wish.measured()
    prepared = wish.prepare()
    return wish, prepared, estimate(prepared, Path.home())
