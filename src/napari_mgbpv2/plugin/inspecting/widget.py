"""The coordinator of the widget "Inspect": clicks become filters, buttons become maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from napari.utils import Colormap
from napari.utils.notifications import show_error

from napari_mgbpv2.errors import Cancelled, MGBPv2Error
from napari_mgbpv2.plugin.docked_widget import DockedWidget
from napari_mgbpv2.plugin.inspecting.map_showing import MapLayer
from napari_mgbpv2.plugin.inspecting.view import InspectView
from napari_mgbpv2.plugin.inspecting.working import (
    NO_PIXEL,
    Found,
    Inspection,
    Kind,
    Map,
    consistency,
    find_filter,
    hallucination,
)
from napari_mgbpv2.plugin.layer_image import read_layer
from napari_mgbpv2.plugin.layers_view import LayersView
from napari_mgbpv2.plugin.roles import INSPECTION, marked
from napari_mgbpv2.plugin.settings import read_defaults

# blue below zero, red above it, and the image itself where the filter is zero
DIVERGING = Colormap([[0.0, 0.3, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.2, 0.0, 1.0]], name="mgbpv2 diverging")
STEADY_PX = 3  # of the screen that a hand may move between the two halves of a click


@dataclass(frozen=True)
class Question:
    """A pixel that was clicked."""

    layer: Any
    inspection: Inspection
    point: tuple[float, ...]
    kind: Kind


class InspectWidget(DockedWidget):
    """The widget "Inspect (MGBPv2)".

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: Any) -> None:
        layers = LayersView(napari_viewer)
        super().__init__(napari_viewer, InspectView(read_defaults(), layers))
        self._layers = layers
        self._asked: Question | None = None  # the newest, which waits for the one that is being answered
        self._filter: Any = None  # the layer of the last answer
        self.maps: list[MapLayer] = []
        self.offer_options(self.view.options)
        self.view.picking_toggled.connect(self._set_picking)
        self.view.consistency_requested.connect(lambda: self._make_maps(consistency))
        self.view.hallucination_requested.connect(
            lambda draws: self._make_maps(lambda asked: hallucination(asked, draws))
        )
        callbacks, on_mouse = napari_viewer.mouse_drag_callbacks, self._on_mouse
        self._forget.append(lambda: callbacks.remove(on_mouse) if on_mouse in callbacks else None)

    def _inspection(self) -> Inspection | None:
        layer = self._layers.layer
        try:
            choices = self.view.options.choices()
            if layer is None or choices is None:
                return None
            image = read_layer(layer).with_axes(choices.axes)
            return Inspection(image, replace(choices, axes=image.axes))
        except MGBPv2Error as error:
            show_error(str(error))
            return None

    # --- the filter of a clicked pixel

    def _set_picking(self, picking: bool) -> None:
        callbacks = self._viewer.mouse_drag_callbacks
        if picking and self._on_mouse not in callbacks:
            callbacks.append(self._on_mouse)
        elif not picking and self._on_mouse in callbacks:
            callbacks.remove(self._on_mouse)

    def _on_mouse(self, viewer: Any, event: Any) -> Iterator[None]:
        """Hear of a button that is pressed: a click asks, a drag still moves the view."""
        if event.button != 1:
            return
        pressed = event.pos
        yield
        while event.type == "mouse_move":
            yield
        if max(abs(now - then) for now, then in zip(event.pos, pressed, strict=True)) <= STEADY_PX:
            self._ask(event.position)

    def _ask(self, world: Any) -> None:
        layer, inspection = self._layers.layer, self._inspection()
        if inspection is None:
            return
        point = tuple(float(each) for each in layer.world_to_data(world))
        if not inspection.holds(point):
            self.view.progress.say(NO_PIXEL)
            return
        self._asked = Question(layer, inspection, point, self.view.kind.currentData())
        if self._job is None:
            self._answer()

    def _answer(self) -> None:
        question, self._asked = self._asked, None
        if question is None:
            return
        self.view.found.setText("")
        self._compute(
            "the filter of a pixel",
            lambda: find_filter(question.inspection, question.point, question.kind),
            lambda found: self._show_filter(question, found),
        )

    def _show_filter(self, question: Question, found: Found) -> None:
        layers = self._viewer.layers
        if question.layer not in layers:
            return
        self.view.progress.say("")
        self.view.found.setText(str(found))
        active = layers.selection.active
        if self._filter is not None and self._filter in layers:
            layers.remove(self._filter)
        self._filter = self._viewer.add_image(
            found.pixels,
            name=f"{question.layer.name} (filter)",
            rgb=False,
            colormap=DIVERGING,
            contrast_limits=(-found.limit, found.limit),
            blending="translucent",
            metadata=marked(INSPECTION, inspection=found.kind.name.lower(), position=found.filter.position),
            **found.place(question.layer),
        )
        if active is not None and active in layers:
            layers.selection.active = active

    # --- maps

    def _make_maps(self, make: Callable[[Inspection], list[Map]]) -> None:
        layer, inspection = self._layers.layer, self._inspection()
        if inspection is None or self._job is not None:
            return
        self._compute("a map", lambda: make(inspection), lambda maps: self._show_maps(layer, maps))

    def _show_maps(self, layer: Any, maps: list[Map]) -> None:
        self.view.progress.say("")
        for each in maps if layer in self._viewer.layers else ():
            shown = MapLayer(self._viewer, layer, each, DIVERGING if each.signed else "inferno")
            shown.removed.connect(lambda shown=shown: self.maps.remove(shown))
            self.maps.append(shown)

    # --- work in the background, one after the other

    def _compute(self, title: str, work: Callable[[], Any], succeeded: Callable[[Any], None]) -> None:
        def work_unless_cancelled(tell: object, cancelled: Callable[[], bool]) -> Any:
            result = work()
            if cancelled():
                raise Cancelled("cancelled")
            return result

        say = self.view.progress.say
        self.run_job(
            work_unless_cancelled,
            title=title,
            told=say,
            succeeded=succeeded,
            cancelled=lambda: say("Cancelled."),
            failed=say,
        )
        say(f"computing {title} …")

    def _on_ended(self) -> None:
        super()._on_ended()
        self._answer()
