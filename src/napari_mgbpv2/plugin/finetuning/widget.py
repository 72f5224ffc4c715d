"""The coordinator of the widget "Fine-tune": layers and files in, a run, a new model in every list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_info

from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.formatting import format_duration
from napari_mgbpv2.plugin.docked_widget import DockedWidget
from napari_mgbpv2.plugin.finetuning.view import FinetuneView
from napari_mgbpv2.plugin.finetuning.working import Request, Trained, TrainingUpdate, finetune, free_name
from napari_mgbpv2.plugin.layer_image import read_layer
from napari_mgbpv2.plugin.models import MODELS, own_folder
from napari_mgbpv2.plugin.settings import read_defaults


class FinetuneWidget(DockedWidget):
    """The widget "Fine-tune (MGBPv2)".

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    """

    view: FinetuneView

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer, FinetuneView(read_defaults()))
        self._offered: list[Any] = []
        self.view.start_requested.connect(self._start)
        self._name_the_next()
        self.offer_models(self.view.set_models)
        self.offer_devices(self.view.device)
        self.offer_layers(self._offer_layers)

    def _offer_layers(self, event: object = None) -> None:
        chosen = self._chosen()
        self._offered = self.image_layers()
        self.view.set_layers([layer.name for layer in self._offered], [layer in chosen for layer in self._offered])

    def _chosen(self) -> list[Any]:
        return [layer for layer, is_chosen in zip(self._offered, self.view.chosen_layers(), strict=False) if is_chosen]

    def _start(self) -> None:
        view, card = self.view, self.view.base.currentData()
        if self.is_running or card is None:
            return
        folder = view.folder.text().strip()
        output = Path(view.output.text().strip()).expanduser()
        if output.suffix != ".safetensors":
            output = output.with_name(f"{output.name}.safetensors")
        try:
            layers = tuple(map(read_layer, self._chosen()))
        except MGBPv2Error as error:
            show_error(str(error))
            return
        request = Request(
            layers=layers,
            paths=(Path(folder).expanduser(),) if folder else (),
            base=card.path,
            output=output,
            minutes=view.minutes.value(),
            device=view.device.chosen(),
        )
        view.curve.clear()
        self.run_job(
            lambda tell, cancelled: finetune(request, tell, cancelled),
            title=f"training {output.stem}",
            told=self._on_news,
            succeeded=self._on_trained,
            cancelled=lambda: view.progress.say("Stopped before there was anything to keep."),
            failed=view.progress.say,
        )

    def _on_news(self, news: TrainingUpdate) -> None:
        self.view.curve.add(news.share, news.loss, news.gain)
        self.view.device.show_in_use(news.device)
        left = f", {format_duration(news.seconds_left)} left" if news.share else ""
        if self.view.progress.cancel.isEnabled():
            self.view.progress.show_step(news.share, f"step {news.step}{left}")
        if news.gain is not None and news.sheet is not None:
            self.view.show_sheet(news.sheet)

    def _on_trained(self, trained: Trained) -> None:
        card = MODELS.add(trained.path)
        until = " (the best until it was stopped)" if trained.was_stopped else ""
        text = f"The model {card.name}{until} is in the list of models now."
        self.view.progress.say(text)
        show_info(text)

    def _on_ended(self) -> None:
        super()._on_ended()
        self._name_the_next()

    def _name_the_next(self) -> None:
        self.view.output.setText(str(free_name(own_folder(), "mine")))
