"""Where the network runs: a list to choose from, and below it the one in use."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_mgbpv2.plugin.devices import ANY_DEVICES, AUTOMATIC, Device, title_of
from napari_mgbpv2.plugin.parts_view import WrappedLabel, keep_narrow
from napari_mgbpv2.plugin.settings import Defaults


class DeviceView(QWidget):
    """A list of devices.

    Parameters
    ----------
    defaults
        What to begin with.
    """

    changed = Signal()

    def __init__(self, defaults: Defaults) -> None:
        super().__init__()
        self.list, self.in_use = QComboBox(), WrappedLabel()
        keep_narrow(self.list)
        self.list.setToolTip(f'"{AUTOMATIC}" takes the fastest kind that there is.')
        self._devices: tuple[Device, ...] = ()
        self.in_use.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.list)
        layout.addWidget(self.in_use)
        self._offer(ANY_DEVICES, defaults.device)
        self.list.currentIndexChanged.connect(lambda _: self.changed.emit())

    def chosen(self) -> str | None:
        """Return the name of the device that is chosen; None for the fastest kind."""
        name: str | None = self.list.currentData()
        return name

    def set_devices(self, devices: tuple[Device, ...]) -> None:
        """Offer what there is; what is chosen stays so, even where it is not there: it is said when it is tried."""
        self.list.blockSignals(True)
        self._offer(devices, self.chosen())
        self.list.blockSignals(False)

    def show_in_use(self, name: str) -> None:
        """Say which device is in use."""
        text = f"in use: {title_of(name, self._devices)}" if name else ""
        self.in_use.setText(text)
        self.in_use.setVisible(bool(text))

    def _offer(self, devices: tuple[Device, ...], chosen: str | None) -> None:
        self._devices = devices
        self.list.clear()
        self.list.addItem(AUTOMATIC, None)
        for device in devices:
            self.list.addItem(device.title, device.name)
        if chosen is not None and self.list.findData(chosen) < 0:
            self.list.addItem(chosen, chosen)
        self.list.setCurrentIndex(max(0, self.list.findData(chosen)) if chosen else 0)
