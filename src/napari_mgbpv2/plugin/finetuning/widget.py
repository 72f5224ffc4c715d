"""The coordinator of the widget "Fine-tune": layers and files in, a run, a new model in every list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Image
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.plugin.finetuning.view import FinetuneView
from napari_mgbpv2.plugin.finetuning.working import News, Request, Trained, finetune, free_name
from napari_mgbpv2.plugin.layer_image import read_layer
from napari_mgbpv2.plugin.models import MODELS, own_folder
from napari_mgbpv2.plugin.running import Job
from napari_mgbpv2.plugin.settings import read_defaults
from napari_mgbpv2.wording import readable_seconds


class FinetuneWidget(QWidget):
    """The widget "Fine-tune (MGBPv2)".

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.view = FinetuneView(read_defaults())
        self._offered: list[Any] = []
        self._job: Job | None = None
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(self.view)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)

        events, view = napari_viewer.layers.events, self.view
        view.start_requested.connect(self._start)
        view.progress.cancel_requested.connect(self._stop)
        events.inserted.connect(self._offer_layers)
        events.removed.connect(self._offer_layers)
        forget = MODELS.listen(lambda: view.set_models(MODELS.cards))
        offer = self._offer_layers

        def disconnect() -> None:
            forget()
            events.inserted.disconnect(offer)
            events.removed.disconnect(offer)

        self.destroyed.connect(disconnect)
        view.set_models(MODELS.cards)
        view.output.setText(str(free_name(own_folder(), "mine")))
        self._offer_layers()

    @property
    def is_running(self) -> bool:
        """Whether a run is on."""
        return self._job is not None

    def _offer_layers(self, event: object = None) -> None:
        chosen = self._chosen()
        self._offered = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        self.view.set_layers([layer.name for layer in self._offered], [layer in chosen for layer in self._offered])

    def _chosen(self) -> list[Any]:
        return [layer for layer, is_chosen in zip(self._offered, self.view.chosen_layers(), strict=False) if is_chosen]

    def _start(self) -> None:
        view, card = self.view, self.view.base.currentData()
        if self._job is not None or card is None:
            return
        device, folder = view.device.currentText(), view.folder.text().strip()
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
            device=None if device == "auto" else device,
        )
        view.curve.clear()
        view.set_running(True)
        self._job = Job(lambda tell, cancelled: finetune(request, tell, cancelled), self)
        self._job.told.connect(self._on_news)
        self._job.succeeded.connect(self._on_trained)
        self._job.failed.connect(view.progress.text.setText)
        self._job.cancelled.connect(lambda: view.progress.text.setText("Stopped before there was anything to keep."))
        self._job.ended.connect(self._on_ended)
        self._job.start()

    def _on_news(self, news: News) -> None:
        self.view.curve.add(news.share, news.loss, news.gain)
        left = f", {readable_seconds(news.seconds_left)} left" if news.share else ""
        if self.view.progress.cancel.isEnabled():
            self.view.progress.show_step(news.share, f"step {news.step}{left}")
        if news.gain is not None and news.sheet is not None:
            self.view.show_sheet(news.sheet)

    def _on_trained(self, trained: Trained) -> None:
        card = MODELS.add(trained.path)
        until = " (the best until it was stopped)" if trained.was_stopped else ""
        text = f"The model {card.name}{until} is in the list of models now."
        self.view.progress.text.setText(text)
        show_info(text)

    def _on_ended(self) -> None:
        self._job = None
        self.view.set_running(False)
        self.view.output.setText(str(free_name(own_folder(), "mine")))

    def _stop(self) -> None:
        if self._job is not None:
            self._job.cancel()
