"""The coordinator of the widget "Upscale": turns requests of the view into plans, layers and jobs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_info

from napari_mgbpv2.conversion import ConversionPlan
from napari_mgbpv2.conversion.estimates import Estimate
from napari_mgbpv2.conversion.oom import has_partial_output, is_out_of_memory, smaller_tile
from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.plugin.docked_widget import DockedWidget
from napari_mgbpv2.plugin.jobs import Step
from napari_mgbpv2.plugin.layer_image import read_layer
from napari_mgbpv2.plugin.layers_view import LayersView
from napari_mgbpv2.plugin.listening import Connections
from napari_mgbpv2.plugin.place import placement_of
from napari_mgbpv2.plugin.roles import PREVIEW, RESULT
from napari_mgbpv2.plugin.running import Job
from napari_mgbpv2.plugin.settings import read_defaults
from napari_mgbpv2.plugin.showing import LazyLayer, result_about, results_in
from napari_mgbpv2.plugin.upscaling.begun import Begun
from napari_mgbpv2.plugin.upscaling.plan_running import Planner, Wish
from napari_mgbpv2.plugin.upscaling.saving import How, Saved, save
from napari_mgbpv2.plugin.upscaling.showing import FilledLayer, StoredLayer
from napari_mgbpv2.plugin.upscaling.side_by_side import SideBySide
from napari_mgbpv2.plugin.upscaling.view import UpscaleView
from napari_mgbpv2.upscaling.choosing import preferred_channels

FLIP_KEY = "U"  # none of napari's own


class UpscaleWidget(DockedWidget):
    """The widget "Upscale (MGBPv2)".

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    """

    view: UpscaleView

    def __init__(self, napari_viewer: Any) -> None:
        defaults = read_defaults()
        super().__init__(napari_viewer, UpscaleView(defaults, LayersView(napari_viewer), FLIP_KEY))
        self._cache_bytes = defaults.cache_bytes
        self._planner = Planner(self._wish, self)
        self._destination: Path | None = None  # where it has been saved to, or tried to
        self._preview: FilledLayer | None = None
        self._result: LazyLayer | None = None  # what is compared
        self._side_by_side = SideBySide(napari_viewer)
        self._ranges_given: set[Any] = set()  # of layers whose contrast slider somebody has given other ends
        self._connect()
        self.offer_options(self.view.options)
        self._prefer_a_model()

    @property
    def is_settled(self) -> bool:
        """Whether the estimate belongs to what is chosen now."""
        return self._planner.is_settled

    def _connect(self) -> None:
        view, planner = self.view, self._planner
        planner.planned.connect(self._on_planned)
        planner.impossible.connect(lambda sentence: view.show_estimate("", sentence))
        planner.nothing_chosen.connect(self._ask_for_an_image)
        view.options.changed.connect(self._plan_soon)
        view.layers.chosen.connect(self._prefer_a_model)
        view.layers.chosen.connect(self._plan_soon)
        view.layers.changed.connect(self._on_layer_changed)
        view.preview_toggled.connect(self._toggle_preview)
        view.add_requested.connect(lambda: self._planner.when_planned(self._add))
        view.saving.save_requested.connect(lambda destination: self._save(destination, How.ASK))
        view.saving.resume_requested.connect(lambda: self._save(self._destination, How.RESUME))
        view.saving.anew_requested.connect(lambda: self._save(self._destination, How.ANEW))
        view.share_changed.connect(self._show_share)
        view.side_by_side_toggled.connect(self._set_side_by_side)
        self.bind_key(FLIP_KEY, view.flip.click)
        self._on_docked.append(planner.plan_soon)
        active = Connections()
        active.connect(self._viewer.layers.selection.events.active, self._on_activated)
        active.connect(self._viewer.canvas.grid.events.enabled, self._on_grid)
        self._forget.append(active.end)
        for each in results_in(self._viewer):  # of a widget that has been closed
            self._watch(each)
        self._on_activated()

    def undocked(self) -> None:
        """End the preview, which nobody could switch off any more, and the comparison."""
        super().undocked()
        self.view.preview.setChecked(False)
        self.view.side_by_side.setChecked(False)
        self.view.show_result()

    # --- planning

    def _plan_soon(self) -> None:
        """Plan anew, unless the widget has been closed."""
        if self._is_docked:
            self._planner.plan_soon()

    def _prefer_a_model(self) -> None:
        layer = self.view.layers.layer
        if layer is None:
            return
        with suppress(MGBPv2Error):  # planning tells of it
            image = read_layer(layer)
            self.view.options.prefer(preferred_channels(image.axes, image.data.dtype))

    def _on_layer_changed(self, what: str) -> None:
        """Plan the layer as it is now: its array, axes, place, name or range of values is another."""
        if what in ("data", "axis_labels"):
            self._prefer_a_model()
        if what == "contrast_limits_range":
            self._ranges_given.add(self.view.layers.layer.unique_id)
        self._plan_soon()

    def _wish(self) -> Wish | None:
        layer, choices = self.view.layers.layer, self.view.options.choices()
        if layer is None or choices is None:
            return None
        image, placed = read_layer(layer).with_axes(choices.axes), placement_of(layer)
        image = replace(image, is_range_given=layer.unique_id in self._ranges_given)
        image = image.reverse(placed.backwards)  # files have no axes that run backwards
        forwards = placed.forwards(image.data.shape)
        place = {"scale": forwards.scale, "translate": forwards.translate, "units": tuple(layer.units)}
        return Wish(layer, image, place, replace(choices, axes=image.axes))

    def _on_planned(self, wish: Wish, prepared: ConversionPlan, found: Estimate) -> None:
        self.view.options.device.show_in_use(found.device)
        text = "\n".join(filter(None, (str(found), wish.note)))
        self.view.show_estimate(text, " ".join(filter(None, (wish.warning, found.warning))))
        noise = f"_W{wish.choices.noise:g}" if wish.choices.noise else ""
        self.view.saving.suggestion = f"{wish.image.name}_x{prepared.plan.scale}{noise}".replace("/", "_")
        if self.view.preview.isChecked():
            self._show_preview(wish, prepared)

    def _ask_for_an_image(self) -> None:
        self.view.show_estimate("Open an image first, or the sample: File > Open Sample > MGBPv2 super-resolution.")
        if self._preview is not None:
            self._preview.remove()

    # --- layers that the network fills

    def _add(self, wish: Wish, prepared: ConversionPlan) -> None:
        plan = prepared.plan
        with_noise = bool(wish.choices.noise) or self.view.options.noise.isEnabled()
        noise = f", W {wish.choices.noise:g}" if with_noise else ""
        self._compare(self._filled(wish, prepared, f"{wish.image.name} x{plan.scale} ({plan.model}{noise})", RESULT))

    def _filled(self, wish: Wish, prepared: ConversionPlan, name: str, role: str) -> FilledLayer:
        filled = FilledLayer(
            self._viewer, wish.layer, wish.image, prepared.plan, name=name, cache_bytes=self._cache_bytes, role=role
        )
        filled.failed.connect(lambda error: self._on_fill_failed(filled, wish, error))
        return filled

    def _toggle_preview(self, wanted: bool) -> None:
        if wanted:
            self._planner.when_planned(self._show_preview)
        elif self._preview is not None:
            self._preview.remove()

    def _show_preview(self, wish: Wish, prepared: ConversionPlan) -> None:
        if not self.view.preview.isChecked():
            return
        preview, name = self._preview, f"{wish.image.name} (preview)"
        if preview is not None and wish.layer == preview.source and preview.can_use(wish.image, prepared.plan):
            if preview.plan is not prepared.plan:
                preview.use(prepared.plan)
            if preview.layer.name != name:
                preview.layer.name = name
            return
        if self._preview is not None:
            old, self._preview = self._preview, None
            old.remove()
        self._preview = self._filled(wish, prepared, name, PREVIEW)
        self._compare(self._preview)

    def _on_fill_failed(self, filled: FilledLayer, wish: Wish, error: Exception) -> None:
        """Try a smaller tile where the memory was not enough."""
        tile = smaller_tile(filled.plan)
        if not is_out_of_memory(error) or tile is None:
            return
        show_info(f"Not enough memory: going on with tiles of {tile} px.")
        smaller = replace(wish, choices=replace(wish.choices, tile=tile))
        job = Job(lambda tell, cancelled: smaller.prepare(), self, title="estimating")
        job.succeeded.connect(lambda prepared: filled.use(prepared.plan))
        job.start()

    # --- saving

    def _save(self, destination: Path | None, how: How) -> None:
        try:
            wish = self._wish()
        except MGBPv2Error as error:
            show_error(str(error))
            return
        if wish is None or destination is None or self.is_running:
            return
        self._destination = destination
        if not placement_of(wish.layer).is_complete:
            show_info("The file keeps a layer's scale and position, but not its rotation, shear or affine.")
        self.run_job(
            lambda tell, cancelled: save(wish.measured().prepare(destination), how, tell, cancelled),
            title=f"saving {destination.name}",
            told=self._show_step,
            succeeded=lambda outcome: self._on_saved(wish, outcome),
            cancelled=self._on_cancelled,
            failed=self._on_failed,
        )

    def _show_step(self, step: Step | str) -> None:
        if isinstance(step, Step):
            self.view.progress.show_step(step.share, str(step))
        else:
            show_info(step)

    def _on_saved(self, wish: Wish, outcome: Saved | Begun) -> None:
        if isinstance(outcome, Begun):
            self.view.progress.say("")
            self._offer_to_go_on(str(outcome))
            return
        destination = outcome.prepared.job.destination
        self.view.progress.say(f"{destination} {'was complete already' if outcome.was_complete else 'is saved'}.")
        self.view.options.device.show_in_use(outcome.prepared.plan.device)
        self._compare(StoredLayer(self._viewer, wish.layer, wish.image, outcome.prepared))

    def _on_cancelled(self) -> None:
        assert self._destination is not None
        kept = has_partial_output(self._destination)
        what = f"what is done is kept in {self._destination}.partial" if kept else "nothing is left of it"
        self.view.progress.say(f"Cancelled: {what}.")
        self._offer_to_go_on()

    def _on_failed(self, sentence: str) -> None:
        self.view.progress.say(sentence)
        self._offer_to_go_on()

    def _offer_to_go_on(self, found: str = "") -> None:
        """Offer what can be done about what is at the destination."""
        assert self._destination is not None
        name, kept = self._destination.name, has_partial_output(self._destination)
        drops = [f"What is done of {name} will be dropped."] if kept else []
        if self._destination.exists():
            drops.append(f"{name} will be replaced as soon as the new image is complete.")
        self.view.saving.offer(found, resume=kept, drops=" ".join(drops))

    # --- comparing

    def _compare(self, result: LazyLayer) -> None:
        """Compare a result that has just been added."""
        self._watch(result)
        self._set_compared(result)

    def _watch(self, result: LazyLayer) -> None:
        result.removed.connect(lambda: self._on_removed(result))

    def _on_activated(self, event: object = None) -> None:
        """Compare what the active layer belongs to: it is a result, or the source of one."""
        active = self._viewer.layers.selection.active
        result = None if active is None else result_about(active, self._viewer)
        if result is not None:
            self._set_compared(result)

    def _set_compared(self, result: LazyLayer | None) -> None:
        if result is self._result:
            return
        self.view.show_result()  # of the one that has been compared
        self._result = result
        self.view.set_comparable(result is not None)
        if self._side_by_side.is_shown:
            self._set_side_by_side(result is not None)

    def _show_share(self, share: float) -> None:
        if self._result is None:
            return
        if share < 1 and not self._result.layer.visible:
            self._result.layer.visible = True
        self._result.compare(share)

    def _set_side_by_side(self, enabled: bool) -> None:
        if enabled and self._result is not None:
            self._side_by_side.show(self._result.source, self._result.layer)
        else:
            self._side_by_side.end()
            self.view.side_by_side.setChecked(False)

    def _on_grid(self, event: object = None) -> None:
        """Notice that somebody has switched the grid off with napari's own button."""
        if not self._viewer.canvas.grid.enabled and self._side_by_side.is_shown:
            self._set_side_by_side(False)

    def _on_removed(self, result: LazyLayer) -> None:
        if self._preview is result:
            self._preview = None
            self.view.preview.setChecked(False)
        if self._result is result:
            left = results_in(self._viewer)
            self._set_compared(left[-1] if left else None)
