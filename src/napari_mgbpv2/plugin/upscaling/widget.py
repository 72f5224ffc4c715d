"""The coordinator of the widget "Upscale": turns requests of the view into plans, layers and jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari.layers import Image
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_mgbpv2.conversion import Prepared
from napari_mgbpv2.conversion.estimating import Estimate, estimate
from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.plugin.choices import Choices
from napari_mgbpv2.plugin.jobs import Step, is_out_of_memory
from napari_mgbpv2.plugin.layer_image import LayerImage, read_layer
from napari_mgbpv2.plugin.models import MODELS
from napari_mgbpv2.plugin.place import is_upright, same_looks, upscaled_place
from napari_mgbpv2.plugin.running import Job
from napari_mgbpv2.plugin.settings import read_defaults
from napari_mgbpv2.plugin.showing import FilledLayer
from napari_mgbpv2.plugin.stored import open_levels
from napari_mgbpv2.plugin.upscaling.preparing import prepare_layer
from napari_mgbpv2.plugin.upscaling.saving import convert_with_retries, smaller_tile
from napari_mgbpv2.plugin.upscaling.view import UpscaleView

PLAN_MS = 200  # how long choices must rest before they are planned


@dataclass(frozen=True)
class Wish:
    """What is to be upscaled, and how: read from the GUI in its own thread, for others."""

    layer: Any
    image: LayerImage
    place: dict[str, Any]
    choices: Choices

    def prepare(self, destination: Path = Path("estimate.ome.zarr")) -> Prepared:
        """Plan it; reads no pixel."""
        return prepare_layer(self.image, self.place, self.choices, destination)


class UpscaleWidget(QWidget):
    """The widget "Upscale (MGBPv2)".

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer, self._defaults = napari_viewer, read_defaults()
        self.view = UpscaleView(self._defaults)
        self._offered: list[Any] = []
        self._planned: tuple[Wish, Prepared] | None = None
        self._planning: Job | None = None
        self._stale = False  # whether something has been chosen since planning began
        self._waiting: list[Callable[[Wish, Prepared], None]] = []
        self._saving: Job | None = None
        self._preview: FilledLayer | None = None
        self._previewed: Any = None
        self._result: Any = None  # the filled or plain layer that is compared
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PLAN_MS)
        self._timer.timeout.connect(self._plan)

        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(self.view)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)
        self._connect()
        self.view.options.set_models(MODELS.cards)
        self._offer_layers()

    @property
    def is_settled(self) -> bool:
        """Whether the estimate belongs to what is chosen now."""
        return self._planning is None and not self._stale

    @property
    def is_saving(self) -> bool:
        """Whether a conversion is under way."""
        return self._saving is not None

    def _connect(self) -> None:
        view, events = self.view, self._viewer.layers.events
        view.options.changed.connect(self._plan_soon)
        view.layer_chosen.connect(self._plan_soon)
        view.preview_toggled.connect(self._toggle_preview)
        view.add_requested.connect(lambda: self._when_planned(self._add))
        view.save_requested.connect(self._save)
        view.options.model_file_chosen.connect(self._open_model)
        view.flip_toggled.connect(self._flip)
        view.side_by_side_toggled.connect(self._set_side_by_side)
        view.progress.cancel_requested.connect(self._cancel)
        self._connections = [(events.inserted, self._offer_layers), (events.removed, self._offer_layers)]
        for emitter, slot in self._connections:
            emitter.connect(slot)
        forget = MODELS.listen(lambda: view.options.set_models(MODELS.cards))
        connections = self._connections

        def disconnect() -> None:
            forget()
            for emitter, slot in connections:
                emitter.disconnect(slot)

        self.destroyed.connect(disconnect)

    # --- what there is to choose

    def _offer_layers(self, event: object = None) -> None:
        """Offer image layers; labels, shapes and points are no images to upscale."""
        before = self._layer()
        self._offered = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        active = self._viewer.layers.selection.active
        chosen = next((each for each in (before, active) if each in self._offered), None)
        number = self._offered.index(chosen) if chosen is not None else len(self._offered) - 1
        self.view.set_layers([layer.name for layer in self._offered], number)
        if self._layer() != before:
            self._plan_soon()

    def _layer(self) -> Any:
        number = self.view.layers.currentIndex()
        return self._offered[number] if 0 <= number < len(self._offered) else None

    def _open_model(self, path: Path) -> None:
        try:
            card = MODELS.add(path)
        except MGBPv2Error as error:
            show_error(str(error))
            return
        self.view.options.choose_model(card.path)

    def _wish(self) -> Wish | None:
        layer, choices = self._layer(), self.view.options.choices()
        if layer is None or choices is None:
            return None
        place = {name: tuple(getattr(layer, name)) for name in ("scale", "translate", "units")}
        return Wish(layer, read_layer(layer), place, choices)

    # --- planning: in the background, the newest choices only

    def _plan_soon(self) -> None:
        self._planned, self._stale = None, True
        self._timer.start()

    def _plan(self) -> None:
        if self._planning is not None:
            return  # it plans again when that ends
        self._stale = False
        try:
            wish = self._wish()
        except MGBPv2Error as error:
            self._say_impossible(str(error))
            return
        if wish is None:
            self.view.show_estimate("Open an image first, or the sample: File > Open Sample > MGBPv2 super-resolution.")
            return
        self._planning = Job(lambda tell, cancelled: _plan_and_measure(wish), self, notifies=False)
        self._planning.succeeded.connect(lambda found: self._on_planned(wish, *found))
        self._planning.failed.connect(self._say_impossible)
        self._planning.ended.connect(self._on_planning_ended)
        self._planning.start()

    def _on_planned(self, wish: Wish, prepared: Prepared, found: Estimate) -> None:
        self._planning = None
        if self._stale or wish.layer not in self._viewer.layers:
            return
        self._planned = wish, prepared
        self.view.options.show_device(found.device)
        self.view.show_estimate(str(found), found.warning)
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            act(wish, prepared)
        if self.view.preview.isChecked():
            self._show_preview(wish, prepared)

    def _on_planning_ended(self) -> None:
        self._planning = None
        if self._planned is None and self._stale:
            self._timer.start()

    def _say_impossible(self, sentence: str) -> None:
        self._planning = None
        self.view.show_estimate("", sentence)
        if self._waiting:
            self._waiting = []
            show_error(sentence)

    def _when_planned(self, act: Callable[[Wish, Prepared], None]) -> None:
        """Do something with the plan of what is chosen now, as soon as there is one."""
        if self._planned is not None:
            act(*self._planned)
            return
        self._waiting.append(act)
        if not self._timer.isActive():
            self._timer.start()

    # --- three ways to go

    def _add(self, wish: Wish, prepared: Prepared) -> None:
        filled = self._filled(wish, prepared, f"{wish.image.name} x{prepared.plan.scale}")
        self._compare(filled)

    def _filled(self, wish: Wish, prepared: Prepared, name: str) -> FilledLayer:
        filled = FilledLayer(
            self._viewer, wish.layer, wish.image, prepared.plan, name=name, cache_bytes=self._defaults.cache_bytes
        )
        filled.failed.connect(lambda error: self._on_fill_failed(filled, wish, error))
        filled.removed.connect(lambda: self._on_filled_removed(filled))
        return filled

    def _toggle_preview(self, wanted: bool) -> None:
        if wanted:
            self._when_planned(self._show_preview)
        elif self._preview is not None:
            self._preview.remove()

    def _show_preview(self, wish: Wish, prepared: Prepared) -> None:
        if self._preview is not None and wish.layer == self._previewed and self._preview.can_use(prepared.plan):
            if self._preview.plan is not prepared.plan:
                self._preview.use(prepared.plan)
            return
        if self._preview is not None:
            old, self._preview = self._preview, None
            old.remove()
        self._previewed = wish.layer
        self._preview = self._filled(wish, prepared, f"{wish.image.name} (preview)")
        self._compare(self._preview)

    def _save(self, destination: Path) -> None:
        wish = self._wish()
        if wish is None or self._saving is not None:
            return
        self._saving = job = Job(
            lambda tell, cancelled: convert_with_retries(wish.prepare(destination), tell, cancelled), self
        )
        job.told.connect(self._show_step)
        job.succeeded.connect(lambda prepared: self._on_saved(wish, prepared))
        job.failed.connect(lambda sentence: self.view.progress.text.setText(sentence))
        job.cancelled.connect(lambda: self.view.progress.text.setText("Cancelled."))
        job.ended.connect(self._on_saving_ended)
        if not is_upright(wish.layer):
            show_info("OME-Zarr keeps a layer's scale and position, but not its rotation, shear or affine.")
        self.view.set_running(True)
        job.start()

    def _show_step(self, step: Step | str) -> None:
        if isinstance(step, Step):
            self.view.progress.show_step(step.share, str(step))
        else:
            show_info(step)

    def _on_saved(self, wish: Wish, prepared: Prepared) -> None:
        destination, layout = prepared.job.destination, prepared.layout
        self.view.progress.text.setText(f"Saved {destination.name}.")
        levels = open_levels(destination, len(layout.level_shapes()), layout.axes, prepared.plan.axes)
        layer = self._viewer.add_image(
            levels if len(levels) > 1 else levels[0],
            name=destination.name.removesuffix(".ome.zarr"),
            multiscale=len(levels) > 1,
            cache=False,
            metadata={"mgbpv2": dict(layout.provenance)},
            **same_looks(wish.layer),
            **upscaled_place(wish.layer, wish.image.factors(prepared.plan.scale)),
        )
        self._compare(layer)

    def _on_saving_ended(self) -> None:
        self._saving = None
        self.view.set_running(False)

    def _cancel(self) -> None:
        if self._saving is not None:
            self._saving.cancel()

    # --- comparing

    def _compare(self, result: Any) -> None:
        self._result = result
        self.view.flip.setChecked(False)
        self.view.set_comparable(True)

    def _flip(self, bicubic: bool) -> None:
        if isinstance(self._result, FilledLayer):
            self._result.show_bicubic(bicubic)
        elif self._result is not None:
            self._result.visible = not bicubic

    def _set_side_by_side(self, enabled: bool) -> None:
        self._viewer.grid.enabled = enabled

    # --- what happens to layers

    def _on_filled_removed(self, filled: FilledLayer) -> None:
        if self._preview is filled:
            self._preview = None
            self.view.preview.setChecked(False)
        if self._result is filled:
            self._result = None
            self.view.set_comparable(False)

    def _on_fill_failed(self, filled: FilledLayer, wish: Wish, error: Exception) -> None:
        """Try a smaller tile where the memory was not enough."""
        tile = smaller_tile(filled.plan)
        if not is_out_of_memory(error) or tile is None:
            return
        show_info(f"Not enough memory: going on with tiles of {tile} px.")
        smaller = replace(wish, choices=replace(wish.choices, tile=tile))
        job = Job(lambda tell, cancelled: smaller.prepare(), self)
        job.succeeded.connect(lambda prepared: filled.use(prepared.plan))
        job.start()


def _plan_and_measure(wish: Wish) -> tuple[Prepared, Estimate]:
    prepared = wish.prepare()
    return prepared, estimate(prepared, Path.home())
