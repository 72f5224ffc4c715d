"""What the widgets of the docks have in common: a view that scrolls, layers, models and devices to offer, and a job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.layers import Image
from napari.utils.notifications import show_error
from napari.utils.theme import get_theme
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.plugin.device_view import DeviceView
from napari_mgbpv2.plugin.devices import find_devices
from napari_mgbpv2.plugin.finetuning.curve_view import CurveView
from napari_mgbpv2.plugin.listening import Connections
from napari_mgbpv2.plugin.model_view import ModelView
from napari_mgbpv2.plugin.models import MODELS
from napari_mgbpv2.plugin.parts_view import WarningLabel
from napari_mgbpv2.plugin.roles import is_source
from napari_mgbpv2.plugin.running import Job, Work

SMALLEST = (250, 220)  # pixels along x and y in which all can be reached, by scrolling down
USUAL = (300, 640)


class DockedWidget(QWidget):
    """Base of coordinators: between a view, which only asks, and what is done.

    Parameters
    ----------
    viewer
        The viewer that it is docked in.
    view
        What is shown. It has a ``progress`` and ``set_running``.
    """

    def __init__(self, viewer: Any, view: Any) -> None:
        super().__init__()
        self._viewer, self.view = viewer, view
        self._job: Job | None = None
        self._forget: list[Callable[[], object]] = []
        self._is_docked = True  # until napari says otherwise: it docks the widget right after making it
        self._on_docked: list[Callable[[], object]] = []
        self._on_undocked: list[Callable[[], object]] = []
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(view)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)
        self.setMinimumSize(*SMALLEST)
        themes = Connections()
        themes.connect(viewer.events.theme, self._show_theme)
        self._forget.append(themes.end)
        self._show_theme()
        view.progress.cancel_requested.connect(self._cancel)
        forget, undock = self._forget, self._on_undocked  # when it is destroyed, there is no self any more
        self.destroyed.connect(lambda: [each() for each in (*forget, *undock)])

    def sizeHint(self) -> QSize:
        """Width and height that all of it likes to have."""
        return QSize(*USUAL)

    def _show_theme(self, event: object = None) -> None:
        """Choose colours that can be read on the background of the theme."""
        red, green, blue = get_theme(self._viewer.theme).background.as_rgb_tuple(alpha=False)
        dark = red + green + blue < 3 * 128
        for kind in (WarningLabel, CurveView):
            for part in self.findChildren(kind):
                part.set_dark(dark)

    @property
    def is_running(self) -> bool:
        """Whether a job is under way."""
        return self._job is not None

    def changeEvent(self, event: QEvent) -> None:
        """Notice being closed: napari then takes the widget out of its dock, and makes a new one next time."""
        super().changeEvent(event)
        if event.type() != QEvent.Type.ParentChange:
            return
        if self.parent() is None and self._is_docked:
            self._is_docked = False
            self.undocked()
        elif self.parent() is not None and not self._is_docked:
            self._is_docked = True
            for act in self._on_docked:
                act()

    def undocked(self) -> None:
        """Let go of what belongs to a widget that is seen; a job goes on."""
        undo, self._on_undocked[:] = list(self._on_undocked), []
        for each in undo:
            each()

    # --- what there is to choose

    def image_layers(self) -> list[Any]:
        """Return the image layers of the viewer but previews and maps; labels, shapes and points are no images."""
        return [layer for layer in self._viewer.layers if isinstance(layer, Image) and is_source(layer)]

    def offer_layers(self, offer: Callable[..., None]) -> None:
        """Call ``offer`` now, and whenever layers have come, gone, moved or been renamed."""
        events, listing, names = self._viewer.layers.events, Connections(), Connections()

        def offer_all(event: object = None) -> None:
            names.end()
            for layer in self.image_layers():
                names.connect(layer.events.name, offer_all)
            offer()

        for emitter in (events.inserted, events.removed, events.reordered):
            listing.connect(emitter, offer_all)
        self._forget += [listing.end, names.end]
        offer_all()

    def offer_models(self, show: Callable[[Any], None]) -> None:
        """Call ``show`` with the cards of all models now, and whenever there is a new one."""

        def refresh() -> None:
            if isalive(self):  # napari may delete a closed dock without telling it
                show(MODELS.cards)

        self._forget.append(MODELS.listen(refresh))
        show(MODELS.cards)

    def offer_devices(self, view: DeviceView) -> None:
        """Fill a list of devices, as soon as they are found."""
        finding = Job(lambda tell, cancelled: find_devices(), self, notifies=False, title="finding devices")
        finding.succeeded.connect(view.set_devices)
        finding.start()

    def offer_options(self, options: ModelView) -> None:
        """Offer models and devices, and open a model's file when the user names one."""

        def open_model(path: Path) -> None:
            try:
                card = MODELS.add(path)
            except MGBPv2Error as error:
                show_error(str(error))
                return
            options.choose_model(card.path)

        options.model_file_chosen.connect(open_model)
        self.offer_models(options.set_models)
        self.offer_devices(options.device)

    def bind_key(self, key: str, act: Callable[[], None]) -> None:
        """Do something when a key is pressed in the viewer while this is docked, unless that key is taken."""
        viewer = self._viewer

        def act_on_key(viewer: Any) -> None:
            act()

        def bind() -> None:
            try:
                viewer.bind_key(key, act_on_key)
            except ValueError:  # taken
                return
            self._on_undocked.append(lambda: viewer.bind_key(key, None))

        self._on_docked.append(bind)
        bind()

    # --- what it does, one job at a time

    def run_job(
        self,
        work: Work,
        *,
        title: str,
        told: Callable[[Any], None],
        succeeded: Callable[[Any], None],
        cancelled: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        """Do some work in the background; the view shows its progress meanwhile.

        Parameters
        ----------
        work, title
            As `Job` has them.
        told, succeeded
            Called with what the work tells, and with its result.
        cancelled
            Called when it has been stopped.
        failed
            Called with a sentence.
        """
        self._job = job = Job(work, self, title=title)
        job.told.connect(told)
        job.succeeded.connect(succeeded)
        job.cancelled.connect(lambda _: cancelled())
        job.failed.connect(failed)
        job.ended.connect(self._on_ended)
        self.view.set_running(True)
        job.start()

    def _on_ended(self) -> None:
        self._job = None
        self.view.set_running(False)

    def _cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()
